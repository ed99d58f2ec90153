// Forward scan: a thread owns one channel and its states and goes through its segment of the sequence in order; nothing
// is exchanged between lanes, and B and C are shared by the whole block.
#pragma once

#include "states.cuh"

namespace triptych::cuda {

// The state before the segment: the initial one, carried through the segments before this one.
template <int NT>
__device__ __forceinline__ void enter_segment(const ForwardArgs& a, const Place& p, Carrier<NT>& carrier) {
  const Shape& s = a.problem.shape;
  if (!p.active || a.only_ends) return;
  if (a.problem.initial != nullptr) {
    const int64_t at = (static_cast<int64_t>(p.batch) * s.channels + p.channel) * s.states + a.first_state;
    carrier.read(a.problem.initial + at, a.states);
  }
#pragma unroll 1
  for (int segment = 0; segment < p.segment; ++segment) {
    const int64_t at = part_of(p, s, segment, a.grid.segments) * s.channels + p.channel;
    carrier.pass(a.segments.state + at * a.segments.states, a.states, a.segments.steps[at]);
  }
}

// What is left of a segment: its end state alone and the sum of its steps, or the last state of all.
template <int NT>
__device__ __forceinline__ void leave_segment(const ForwardArgs& a, const Place& p, const Carrier<NT>& carrier,
                                              float steps) {
  const Shape& s = a.problem.shape;
  if (!p.active) return;
  if (a.only_ends) {
    const int64_t at = part_of(p, s, p.segment, a.grid.segments) * s.channels + p.channel;
    a.segments.steps[at] = steps;
    carrier.write(a.segments.state + at * a.segments.states, a.states);
  } else if (a.last_state != nullptr && p.segment == a.grid.segments - 1) {
    carrier.write(a.last_state + (part_of(p, s, 0, 1) * s.channels + p.channel) * s.states + a.first_state, a.states);
  }
}

template <int NT>
__device__ __forceinline__ void save_state(const ForwardArgs& a, const Place& p, int chunk,
                                           const Carrier<NT>& carrier) {
  if (a.chunk_states == nullptr || a.only_ends || !p.active) return;
  const Shape& s = a.problem.shape;
  const int64_t at = part_of(p, s, chunk, (s.length - 1) / kChunk + 1) * s.channels + p.channel;
  carrier.write(a.chunk_states + at * s.states + a.first_state, a.states);
}

// The sum over states to the output; the gate comes with the launch that finishes it.
template <typename IO, int NT, Form FORM>
__device__ __forceinline__ void put_output(const ForwardArgs& a, const Place& p, const Cursor<FORM>& cursor, int valid,
                                           float* exchange, float (&y)[kTile]) {
  const Problem& q = a.problem;
  int at[kTile];
  positions_anew<FORM>(cursor, q.shape.length - 1, at);
  if (FORM == Form::image || NT == 0) accumulate(a.y, q.shape, p, at, valid, y);
  if (!a.y.finish) return;
  if (FORM != Form::image && q.z.data != nullptr) {
    float z[kTile];
    load<IO, FORM>(q.z, base_of<FORM>(q.z, p), p, at, exchange, z);
#pragma unroll
    for (int t = 0; t < kTile; ++t) y[t] *= z[t] * sigmoid(z[t]);
  }
  store<IO, FORM>(a.y.out, base_of<FORM>(a.y.out, p), p, at, valid, exchange, y);
}

// The inputs of a tile as they lie in memory.
template <typename IO>
struct Raw {
  IO u[kTile], delta[kTile];
};

template <typename IO, Form FORM>
__device__ __forceinline__ void fetch_inputs(const Problem& q, const Place& p, const Cursor<FORM>& cursor, char* u_base,
                                             char* delta_base, Raw<IO>& raw) {
  int at[kTile];
  positions_of<FORM>(cursor, q.shape.length - 1, at);
  fetch<IO, FORM>(q.u, u_base, p, at, raw.u);
  if (FORM != Form::image) fetch<IO, FORM>(q.delta, delta_base, p, at, raw.delta);
}

template <typename IO, int NT, Form FORM>
__global__ void __launch_bounds__(kMaxThreads, 4) scan_forward(const __grid_constant__ ForwardArgs a) {
  TRIPTYCH_DYN_SMEM(shared);
  const Problem& q = a.problem;
  const Place p = locate(q.shape, a.grid);
  if (a.only_ends && p.segment == a.grid.segments - 1) return;  // the whole block; no segment lies behind
  const int threads = a.grid.threads, first = p.first_chunk * kChunk, end = min(p.end_chunk * kChunk, q.shape.length);
  const int rows = Carrier<NT>::rows(a.states);
  float* b_rows = shared;  // the layout that forward_shared counts
  float* c_rows = b_rows + rows * kPitch;
  float* columns = c_rows + rows * kPitch;
  float* own = columns + (NT == 0 ? 2 * rows * threads : 0);
  const LowRank low{own, own + static_cast<int64_t>(q.shape.rank) * kPitch};
  float* exchange = own + threadIdx.x / 32 * kExchange;
  char *u_base = base_of<FORM>(q.u, p), *delta_base = base_of<FORM>(q.delta, p);
  Carrier<NT> carrier(q.A + static_cast<int64_t>(p.row) * q.shape.states + a.first_state, a.states, columns, threads);
  float steps = 0.0f;
  const float bias = bias_of(q, p);
  const float skip =
      q.D != nullptr && a.first_state == 0 ? q.D[p.row] : 0.0f;  // once, whatever windows the states take
  if (FORM == Form::image) load_weights(q, p, threads, low.weights);
  enter_segment<NT>(a, p, carrier);

  Cursor<FORM> cursor(q.shape, p.direction, first);
  // With few states memory is the limit: the loads of the next tile are under way while this one is computed. With many
  // the special-function unit is, and the registers are better spent on more warps.
  constexpr bool kAhead = NT > 0;
  Raw<IO> raw;
  if (kAhead) fetch_inputs<IO, FORM>(q, p, cursor, u_base, delta_base, raw);
#pragma unroll 1
  for (int chunk = p.first_chunk; chunk < p.end_chunk; ++chunk) {
    const int left = end - chunk * kChunk;
    TRIPTYCH_BARRIER(forward_rows_free);
    stage<IO, FORM>(q, p, cursor, left, a.first_state, rows, threads, b_rows, low.steps);
    TRIPTYCH_BARRIER(forward_rows_staged);
    save_state<NT>(a, p, chunk, carrier);
#pragma unroll 1
    for (int offset = 0; offset < min(left, kChunk); offset += kTile) {
      const int valid = left - offset;
      float u[kTile], dt[kTile], x[kTile], slope[kTile], y[kTile];
      if (!kAhead) fetch_inputs<IO, FORM>(q, p, cursor, u_base, delta_base, raw);
      settle<IO, FORM>(q.u, raw.u, exchange, u);
      if (FORM != Form::image) settle<IO, FORM>(q.delta, raw.delta, exchange, dt);
      const Cursor<FORM> here = cursor;
      cursor.move(kTile);
      if (kAhead) fetch_inputs<IO, FORM>(q, p, cursor, u_base, delta_base, raw);
      step_sizes<FORM>(q, p, low, threads, offset, bias, valid, dt, slope);
#pragma unroll
      for (int t = 0; t < kTile; ++t) {
        x[t] = t < valid ? dt[t] * u[t] : 0.0f;
        y[t] = skip * u[t];
        steps += dt[t];
      }
      carrier.advance(b_rows + offset, c_rows + offset, a.states, dt, x, y);
      if (!a.only_ends) put_output<IO, NT, FORM>(a, p, here, valid, exchange, y);
    }
  }
  leave_segment<NT>(a, p, carrier, steps);
}

}  // namespace triptych::cuda
