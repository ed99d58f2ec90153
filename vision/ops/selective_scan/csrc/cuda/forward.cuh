// Forward scan: a thread owns one channel and its states in registers and goes through its segment of the sequence in
// order; nothing is exchanged between lanes, and B and C are shared by the whole block.
#pragma once

#include "tile.cuh"

namespace triptych::cuda {

// Floats of dynamic shared memory: B and C of a chunk, then the low-rank step sizes of an image and their weights, or the
// places where warps exchange layouts.
template <bool IMAGE>
inline int64_t forward_shared(const Shape& s, int states, int threads, bool exchange) {
  const int64_t own = IMAGE ? static_cast<int64_t>(s.rank) * (kPitch + threads) : exchange ? threads / 32 * kExchange : 0;
  return 2 * states * kPitch + own;
}

// The state before the segment: the initial one, carried through the segments before this one.
template <int NT>
__device__ __forceinline__ void enter_segment(const ForwardArgs& a, const Place& p, const float (&rate)[NT],
                                              float (&state)[NT]) {
  const Shape& s = a.problem.shape;
#pragma unroll
  for (int n = 0; n < NT; ++n) state[n] = 0.0f;
  if (!p.active || a.only_ends) return;
  if (a.problem.initial != nullptr) {
    const int64_t at = (static_cast<int64_t>(p.batch) * s.channels + p.channel) * s.states + a.first_state;
    read_states<NT>(a.problem.initial + at, s.states - a.first_state, state);
  }
  for (int segment = 0; segment < p.segment; ++segment) {
    const int64_t at = part_of(p, s, segment, a.grid.segments) * s.channels + p.channel;
    const float steps = a.segments.steps[at];
    float alone[NT];
    read_states<NT>(a.segments.state + at * NT, NT, alone);
#pragma unroll
    for (int n = 0; n < NT; ++n) state[n] = fmaf(exp2_fast(rate[n] * steps), state[n], alone[n]);
  }
}

// What is left of a segment: its end state alone and the sum of its steps, or the last state of all.
template <int NT>
__device__ __forceinline__ void leave_segment(const ForwardArgs& a, const Place& p, const float (&state)[NT],
                                              float steps) {
  const Shape& s = a.problem.shape;
  if (!p.active) return;
  if (a.only_ends) {
    const int64_t at = part_of(p, s, p.segment, a.grid.segments) * s.channels + p.channel;
    a.segments.steps[at] = steps;
    write_states<NT>(a.segments.state + at * NT, NT, state);
  } else if (a.last_state != nullptr && p.segment == a.grid.segments - 1) {
    const int64_t at = (part_of(p, s, 0, 1) * s.channels + p.channel) * s.states + a.first_state;
    write_states<NT>(a.last_state + at, s.states - a.first_state, state);
  }
}

template <int NT>
__device__ __forceinline__ void save_state(const ForwardArgs& a, const Place& p, int chunk, const float (&state)[NT]) {
  if (a.chunk_states == nullptr || a.only_ends || !p.active) return;
  const Shape& s = a.problem.shape;
  const int64_t at = part_of(p, s, chunk, (s.length - 1) / kChunk + 1) * s.channels + p.channel;
  write_states<NT>(a.chunk_states + at * s.states + a.first_state, s.states - a.first_state, state);
}

// A tile of the recurrence, one state after the other: h = 2^(dt rate) h + x B, y += h C, where x = dt u.
template <int NT>
__device__ __forceinline__ void advance(const float* b_rows, const float* c_rows, const float (&rate)[NT],
                                        const float (&dt)[kTile], const float (&x)[kTile], float (&state)[NT],
                                        float (&y)[kTile]) {
#pragma unroll
  for (int n = 0; n < NT; ++n) {
    float b[kTile], c[kTile];
    read_tile(b_rows + n * kPitch, b);
    read_tile(c_rows + n * kPitch, c);
#pragma unroll
    for (int t = 0; t < kTile; ++t) {
      state[n] = fmaf(exp2_fast(dt[t] * rate[n]), state[n], x[t] * b[t]);
      y[t] = fmaf(state[n], c[t], y[t]);
    }
  }
}

// The sum over states to the output; the gate comes with the launch that finishes it.
template <typename IO, bool IMAGE>
__device__ __forceinline__ void put_output(const ForwardArgs& a, const Place& p, const Cursor<IMAGE>& cursor, int valid,
                                           float skip, const float (&u)[kTile], float* exchange, float (&y)[kTile]) {
  if (a.first_state == 0) {  // once, however many windows the states take
#pragma unroll
    for (int t = 0; t < kTile; ++t) y[t] = fmaf(skip, u[t], y[t]);
  }
  accumulate<IMAGE>(a.y, a.problem.shape, p, cursor, valid, y);
  if (!a.y.finish) return;
  if (!IMAGE && a.problem.z.data != nullptr) {
    float z[kTile];
    load<IO, IMAGE>(a.problem.z, p, cursor, valid, exchange, z);
#pragma unroll
    for (int t = 0; t < kTile; ++t) y[t] *= z[t] * sigmoid(z[t]);
  }
  store<IO, IMAGE>(a.y.out, p, cursor, valid, exchange, y);
}

// Loads of the next tile are under way while this one is computed.
template <typename IO, int NT, bool IMAGE>
__global__ void __launch_bounds__(kMaxThreads) scan_forward(const ForwardArgs a) {
  TRIPTYCH_DYN_SMEM(shared);
  const Problem& q = a.problem;
  const Place p = locate(q.shape, a.grid);
  const int threads = a.grid.threads, first = p.first_chunk * kChunk, end = min(p.end_chunk * kChunk, q.shape.length);
  float* b_rows = shared;
  float* c_rows = b_rows + NT * kPitch;
  float* own = c_rows + NT * kPitch;
  const LowRank low{own, own + static_cast<int64_t>(q.shape.rank) * kPitch};
  float* exchange = own + threadIdx.x / 32 * kExchange;

  float rate[NT], state[NT], steps = 0.0f;
#pragma unroll
  for (int n = 0; n < NT; ++n) {
    const int of_all = a.first_state + n;
    rate[n] = of_all < q.shape.states ? q.A[static_cast<int64_t>(p.row) * q.shape.states + of_all] * kLog2E : 0.0f;
  }
  const float bias = bias_of(q, p), skip = q.D != nullptr ? q.D[p.row] : 0.0f;
  if (IMAGE) load_weights(q, p, threads, low.weights);
  enter_segment<NT>(a, p, rate, state);

  Cursor<IMAGE> cursor(q.shape, p.direction, first);
  IO raw_u[kTile], raw_delta[kTile];
  fetch<IO, IMAGE>(q.u, p, cursor, end - first, raw_u);
  if (!IMAGE) fetch<IO, IMAGE>(q.delta, p, cursor, end - first, raw_delta);
#pragma unroll 1
  for (int chunk = p.first_chunk; chunk < p.end_chunk; ++chunk) {
    const int left = end - chunk * kChunk;
    TRIPTYCH_BARRIER(forward_rows_free);
    stage_pair<IO, IMAGE>(q, p, cursor, left, a.first_state, NT, threads, b_rows, c_rows);
    if (IMAGE) {
      stage<IO, IMAGE>(q.dts, p, p.direction, cursor, left, 0, q.shape.rank, q.shape.rank,
                       static_cast<int>(threadIdx.x), threads, low.steps);
    }
    TRIPTYCH_BARRIER(forward_rows_staged);
    save_state<NT>(a, p, chunk, state);
#pragma unroll 1
    for (int offset = 0; offset < min(left, kChunk); offset += kTile) {
      const int valid = left - offset;
      float u[kTile], dt[kTile], x[kTile], slope[kTile], y[kTile] = {};
      settle<IO, IMAGE>(q.u, raw_u, exchange, u);
      if (!IMAGE) settle<IO, IMAGE>(q.delta, raw_delta, exchange, dt);
      const Cursor<IMAGE> here = cursor;
      cursor.move(kTile);
      fetch<IO, IMAGE>(q.u, p, cursor, valid - kTile, raw_u);
      if (!IMAGE) fetch<IO, IMAGE>(q.delta, p, cursor, valid - kTile, raw_delta);
      step_sizes<IMAGE>(q, p, low, threads, offset, bias, valid, dt, slope);
#pragma unroll
      for (int t = 0; t < kTile; ++t) {
        x[t] = dt[t] * u[t];
        steps += dt[t];
      }
      advance<NT>(b_rows + offset, c_rows + offset, rate, dt, x, state, y);
      if (!a.only_ends) put_output<IO, IMAGE>(a, p, here, valid, skip, u, exchange, y);
    }
  }
  leave_segment<NT>(a, p, state, steps);
}

}  // namespace triptych::cuda
