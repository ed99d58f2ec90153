// Backward scan: a thread owns one channel and goes through its segment backwards, a chunk at a time. From the state
// that the forward pass saved before the chunk it computes the states before each tile again, into a column of shared
// memory of its own; then, tile by tile from the last, the states of the tile in registers and the gradients.
//
// With g the gradient by the state, from the step after: g += C dy; dC = dy h; dB = g x; d(dt A) = g e^(dt A) h_before;
// g = g e^(dt A). dB and dC are sums over channels: first over the lanes of a warp, then over the warps of the block,
// then over blocks (see Share).
#pragma once

#include "tile.cuh"

namespace triptych::cuda {

// The parts of a block's dynamic shared memory. The kernel that only looks for the ends of segments carries one state
// each and makes no sums.
template <Form FORM>
struct BackwardShared {
  float *b_rows, *c_rows;     // [states, kPitch]
  float *rates, *grad_rates;  // [states, threads]: A, and its gradient
  float* carried;             // [kTile, states, threads]: 0 the gradient by the state, t the state before tile t
  float* sums;                // [2, warps, states, kPairs]
  float* step_sums;           // of an image: [2, warps, R, kTile]
  float* exchange;            // not of an image: the warp's own
  LowRank low;
  float* grad_weights;  // [R, threads]

  __device__ BackwardShared(float* shared, const Shape& s, int states, int threads, bool only_ends) {
    const int warps = only_ends ? 0 : threads / 32;
    b_rows = shared;
    c_rows = b_rows + states * kPitch;
    rates = c_rows + states * kPitch;
    grad_rates = rates + states * threads;
    carried = only_ends ? grad_rates : grad_rates + states * threads;
    sums = carried + (only_ends ? 1 : kTile) * states * threads;
    step_sums = sums + 2 * warps * states * kPairs;
    float* own = FORM == Form::image ? step_sums + 2 * warps * s.rank * kTile : step_sums;
    exchange = own + threadIdx.x / 32 * kExchange;
    low.steps = own;
    low.weights = own + s.rank * kPitch;
    grad_weights = low.weights + s.rank * threads;
  }
};

// What a thread carries through the whole sweep.
struct Totals {
  float skip = 0.0f, bias = 0.0f;
};

// A tile in registers. `steps` and `inputs` collect the gradients by dt and by x = dt u; `before_gate` the ungated
// output. What belongs to a step or a channel that does not exist is zero.
struct Tile {
  int at[kTile], valid;
  float u[kTile], dt[kTile], slope[kTile], x[kTile], dy[kTile], gate[kTile];
  float steps[kTile], inputs[kTile], before_gate[kTile];
};

// ---- sums over the lanes of a warp ----------------------------------------------------------------------------------

// Each round halves the values: a lane keeps one half and gives the other to its partner. COUNT values cost about COUNT
// shuffles; the lanes whose number starts with i in binary (most significant bit first) end with the sum of value i.
template <int COUNT, int PARTNER = 16>
__device__ __forceinline__ float sum_over_warp(const float (&v)[COUNT]) {
  constexpr int kHalf = COUNT > 1 ? COUNT / 2 : 1;
  float kept[kHalf];
  if constexpr (PARTNER == 0) {
    return v[0];
  } else if constexpr (COUNT == 1) {
    kept[0] = v[0] + __shfl_xor_sync(0xffffffffu, v[0], PARTNER);
  } else {
    const bool upper = (threadIdx.x & PARTNER) != 0;
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const float keep = upper ? v[i + kHalf] : v[i], give = upper ? v[i] : v[i + kHalf];
      kept[i] = keep + __shfl_xor_sync(0xffffffffu, give, PARTNER);
    }
  }
  if constexpr (PARTNER > 0) return sum_over_warp<kHalf, PARTNER / 2>(kept);
}

__device__ __forceinline__ void put(const Share& share, int plane, int64_t at, float value) {
  float* to = share.data + plane * share.plane + at;
  if (share.atomic)
    atomicAdd(to, value);
  else
    *to = share.add ? *to + value : value;
}

// ---- loading a tile -------------------------------------------------------------------------------------------------

__device__ __forceinline__ void clear_absent(const Place& p, int valid, float (&x)[kTile]) {
#pragma unroll
  for (int t = 0; t < kTile; ++t) x[t] = p.active && t < valid ? x[t] : 0.0f;
}

template <typename IO, Form FORM>
__device__ __forceinline__ void load_steps(const BackwardArgs& a, const Place& p, const BackwardShared<FORM>& m,
                                           int offset, float bias, Tile& tile) {
  const Problem& q = a.problem;
  if (FORM != Form::image) load<IO, FORM>(q.delta, base_of<FORM>(q.delta, p), p, tile.at, m.exchange, tile.dt);
  step_sizes<FORM>(q, p, m.low, a.grid.threads, offset, bias, tile.valid, tile.dt, tile.slope);
}

template <typename IO, Form FORM>
__device__ __forceinline__ void load_inputs(const BackwardArgs& a, const Place& p, const BackwardShared<FORM>& m,
                                            int offset, float bias, Tile& tile) {
  load<IO, FORM>(a.problem.u, base_of<FORM>(a.problem.u, p), p, tile.at, m.exchange, tile.u);
  clear_absent(p, tile.valid, tile.u);
  load_steps<IO, FORM>(a, p, m, offset, bias, tile);
#pragma unroll
  for (int t = 0; t < kTile; ++t) tile.x[t] = tile.dt[t] * tile.u[t];
}

// The gradient of the ungated output; and in `gate`, what the gate's gradient is but for the ungated output.
template <typename IO, Form FORM>
__device__ __forceinline__ void load_gradient(const BackwardArgs& a, const Place& p, float* exchange, Tile& tile) {
  load<IO, FORM>(a.grad_y, base_of<FORM>(a.grad_y, p), p, tile.at, exchange, tile.dy);
  if (FORM != Form::image && a.problem.z.data != nullptr) {
    float z[kTile];
    load<IO, FORM>(a.problem.z, base_of<FORM>(a.problem.z, p), p, tile.at, exchange, z);
#pragma unroll
    for (int t = 0; t < kTile; ++t) {
      const float s = sigmoid(z[t]);
      tile.gate[t] = tile.dy[t] * s * fmaf(z[t], 1.0f - s, 1.0f);
      tile.dy[t] *= z[t] * s;
    }
  }
  clear_absent(p, tile.valid, tile.dy);
}

// ---- the chunk ------------------------------------------------------------------------------------------------------

// The saved state, to where the state before tile 1 belongs: it is needed before that is known, and after it was used.
__device__ __forceinline__ void read_saved(const BackwardArgs& a, const Place& p, int chunk, float* carried) {
  const Shape& s = a.problem.shape;
  float* column = carried + static_cast<int64_t>(a.states) * a.grid.threads + threadIdx.x;
  if (!p.active) {
#pragma unroll 1
    for (int n = 0; n < a.states; ++n) column[n * a.grid.threads] = 0.0f;
    return;
  }
  const int64_t at = part_of(p, s, chunk, (s.length - 1) / kChunk + 1) * s.channels + p.channel;
  to_column(a.chunk_states + at * s.states + a.first_state, a.states, a.grid.threads, column);
}

// States before the tiles 1, 2, ... of a chunk, into the thread's column.
template <typename IO, Form FORM>
__device__ __forceinline__ void recompute(const BackwardArgs& a, const Place& p, const BackwardShared<FORM>& m,
                                          Cursor<FORM> cursor, int chunk, int left, float bias) {
  const int threads = a.grid.threads;
  read_saved(a, p, chunk, m.carried);
#pragma unroll 1
  for (int offset = 0; offset + kTile < min(left, kChunk); offset += kTile) {
    Tile tile;
    tile.valid = kTile;
    positions_of<FORM>(cursor, a.problem.shape.length - 1, tile.at);
    cursor.move(kTile);
    load_inputs<IO, FORM>(a, p, m, offset, bias, tile);
    float* after = m.carried + (offset / kTile + 1) * a.states * threads + threadIdx.x;
    const float* before = offset == 0 ? after : after - a.states * threads;
#pragma unroll 1
    for (int n = 0; n < a.states; ++n) {
      float b[kTile], state = before[n * threads];
      const float rate = m.rates[n * threads + threadIdx.x] * kLog2E;
      read_tile(m.b_rows + n * kPitch + offset, b);
#pragma unroll
      for (int t = 0; t < kTile; ++t) state = fmaf(exp2_fast(tile.dt[t] * rate), state, tile.x[t] * b[t]);
      after[n * threads] = state;
    }
  }
}

// Of the two places for sums, the one that a tile uses: neighbours differ, across chunks too.
__device__ __forceinline__ int parity_of(int offset) { return offset / kTile & 1; }

// ---- the tile -------------------------------------------------------------------------------------------------------

// One state over a tile, forwards and back; the gradients of B and C go to `pairs`, that of A is returned.
__device__ __forceinline__ float sweep_state(const float* b_row, const float* c_row, float rate, float before,
                                             Tile& tile, float& grad, float (&pairs)[kPairs], bool gated) {
  float b[kTile], c[kTile], decay[kTile], state[kTile];
  read_tile(b_row, b);
  read_tile(c_row, c);
#pragma unroll
  for (int t = 0; t < kTile; ++t) {
    decay[t] = exp2_fast(tile.dt[t] * (rate * kLog2E));
    state[t] = fmaf(decay[t], t > 0 ? state[t - 1] : before, tile.x[t] * b[t]);
  }
  if (gated) {
#pragma unroll
    for (int t = 0; t < kTile; ++t) tile.before_gate[t] = fmaf(c[t], state[t], tile.before_gate[t]);
  }
  float grad_rate = 0.0f;
#pragma unroll
  for (int t = kTile - 1; t >= 0; --t) {
    grad = fmaf(tile.dy[t], c[t], grad);
    pairs[kTile + t] = tile.dy[t] * state[t];
    pairs[t] = grad * tile.x[t];
    tile.inputs[t] = fmaf(grad, b[t], tile.inputs[t]);
    grad *= decay[t];
    const float exponent = grad * (t > 0 ? state[t - 1] : before);
    tile.steps[t] = fmaf(exponent, rate, tile.steps[t]);
    grad_rate = fmaf(exponent, tile.dt[t], grad_rate);
  }
  return grad_rate;
}

template <Form FORM>
__device__ __forceinline__ void sweep_states(const BackwardArgs& a, const BackwardShared<FORM>& m, int offset,
                                             float* sums, Tile& tile) {
  const int threads = a.grid.threads, lane = static_cast<int>(threadIdx.x & 31u);
  const bool gated = FORM != Form::image && a.problem.z.data != nullptr;
  // of tile 0 the saved state, which read_saved put in the place of tile 1
  const float* before = m.carried + max(offset / kTile, 1) * a.states * threads + threadIdx.x;
  float* grads = m.carried + threadIdx.x;
#pragma unroll 1
  for (int n = 0; n < a.states; ++n) {
    const int at = n * threads + static_cast<int>(threadIdx.x);
    float pairs[kPairs], grad = grads[n * threads];
    m.grad_rates[at] += sweep_state(m.b_rows + n * kPitch + offset, m.c_rows + n * kPitch + offset, m.rates[at],
                                    before[n * threads], tile, grad, pairs, gated);
    grads[n * threads] = grad;
    const float sum = sum_over_warp<kPairs>(pairs);
    if ((lane & 1) == 0) sums[n * kPairs + lane / 2] = sum;
  }
}

// Of an image: what the gradient by the step sizes, in slope, gives to their low-rank form and to the weights.
template <Form FORM>
__device__ __forceinline__ void sweep_ranks(const BackwardArgs& a, const BackwardShared<FORM>& m, int offset,
                                            float* sums, const float (&grad)[kTile]) {
  const int threads = a.grid.threads, lane = static_cast<int>(threadIdx.x & 31u);
#pragma unroll 1
  for (int r = 0; r < a.problem.shape.rank; ++r) {
    const int at = r * threads + static_cast<int>(threadIdx.x);
    float steps[kTile], by_rank[kTile], grad_weight = m.grad_weights[at];
    const float weight = m.low.weights[at];
    read_tile(m.low.steps + r * kPitch + offset, steps);
#pragma unroll
    for (int t = 0; t < kTile; ++t) {
      grad_weight = fmaf(grad[t], steps[t], grad_weight);
      by_rank[t] = grad[t] * weight;
    }
    m.grad_weights[at] = grad_weight;
    const float sum = sum_over_warp<kTile>(by_rank);
    if ((lane & 3) == 0) sums[r * kTile + lane / 4] = sum;
  }
}

template <typename IO, Form FORM>
__device__ __forceinline__ void sweep_tile(const BackwardArgs& a, const Place& p, const BackwardShared<FORM>& m,
                                           const Cursor<FORM>& cursor, int offset, int valid, float bias,
                                           Totals& totals) {
  const int parity = parity_of(offset), warps = a.grid.threads / 32,
            mine = parity * warps + static_cast<int>(threadIdx.x / 32u);
  const Shape& shape = a.problem.shape;
  Tile tile;
  tile.valid = valid;
  positions_of<FORM>(cursor, shape.length - 1, tile.at);
  load_inputs<IO, FORM>(a, p, m, offset, bias, tile);
  load_gradient<IO, FORM>(a, p, m.exchange, tile);
#pragma unroll
  for (int t = 0; t < kTile; ++t) tile.steps[t] = tile.inputs[t] = tile.before_gate[t] = 0.0f;
  sweep_states<FORM>(a, m, offset, m.sums + mine * a.states * kPairs, tile);
  const float skip = a.problem.D != nullptr ? a.problem.D[p.row] : 0.0f;
#pragma unroll
  for (int t = 0; t < kTile; ++t) {
    tile.steps[t] = tile.slope[t] * fmaf(tile.u[t], tile.inputs[t], tile.steps[t]);
    tile.inputs[t] *= tile.dt[t];
    totals.bias += tile.steps[t];
    if (a.first_launch) {
      totals.skip = fmaf(tile.dy[t], tile.u[t], totals.skip);
      tile.inputs[t] = fmaf(skip, tile.dy[t], tile.inputs[t]);
      tile.before_gate[t] = fmaf(skip, tile.u[t], tile.before_gate[t]);
    }
  }
  positions_anew<FORM>(cursor, shape.length - 1, tile.at);  // no registers for them while the states were swept
  emit<IO, FORM>(a.du, base_of<FORM>(a.du.out, p), shape, p, tile.at, valid, m.exchange, tile.inputs);
  if (FORM == Form::image) {
    sweep_ranks<FORM>(a, m, offset, m.step_sums + mine * shape.rank * kTile, tile.steps);
    return;
  }
  emit<IO, FORM>(a.ddelta, base_of<FORM>(a.ddelta.out, p), shape, p, tile.at, valid, m.exchange, tile.steps);
  if (a.problem.z.data == nullptr) return;
#pragma unroll
  for (int t = 0; t < kTile; ++t) tile.before_gate[t] *= tile.gate[t];
  emit<IO, FORM>(a.dz, base_of<FORM>(a.dz.out, p), shape, p, tile.at, valid, m.exchange, tile.before_gate);
}

// Sums over the warps of the block, in their order, to dB, dC and, of an image, the low-rank step sizes.
template <Form FORM>
__device__ __forceinline__ void flush_tile(const BackwardArgs& a, const Place& p, const BackwardShared<FORM>& m,
                                           const Cursor<FORM>& cursor, int valid, int parity) {
  const Shape& s = a.problem.shape;
  const bool image = FORM == Form::image;
  const int warps = a.grid.threads / 32, outer = image ? s.directions : s.groups, own = image ? p.direction : p.group;
  for (int i = static_cast<int>(threadIdx.x); i < kPairs * a.states; i += a.grid.threads) {
    const int n = i % a.states, pair = i / a.states, t = pair % kTile;
    if (t >= valid) continue;
    float sum = 0.0f;
#pragma unroll 1
    for (int w = 0; w < warps; ++w) sum += m.sums[((parity * warps + w) * a.states + n) * kPairs + pair];
    const int64_t row = (static_cast<int64_t>(p.batch) * s.length + cursor.at(t)) * outer + own;
    put(pair < kTile ? a.dB : a.dC, p.block, row * s.states + a.first_state + n, sum);
  }
  const int ranks = FORM == Form::image ? s.rank : 0;
  for (int i = static_cast<int>(threadIdx.x); i < kTile * ranks; i += a.grid.threads) {
    const int r = i % s.rank, t = i / s.rank;
    if (t >= valid) continue;
    float sum = 0.0f;
#pragma unroll 1
    for (int w = 0; w < warps; ++w) sum += m.step_sums[((parity * warps + w) * s.rank + r) * kTile + t];
    const int64_t row = (static_cast<int64_t>(p.batch) * s.length + cursor.at(t)) * outer + own;
    put(a.ddts, p.block, row * s.rank + r, sum);
  }
}

// ---- the whole ------------------------------------------------------------------------------------------------------

// The gradient by the state after the segment: that by the last state, carried back through the segments behind.
template <Form FORM>
__device__ __forceinline__ void start_columns(const BackwardArgs& a, const Place& p, const BackwardShared<FORM>& m) {
  const Shape& s = a.problem.shape;
  const int threads = a.grid.threads;
  to_column(a.problem.A + static_cast<int64_t>(p.row) * s.states + a.first_state, a.states, threads,
            m.rates + threadIdx.x);
  float* grads = m.carried + threadIdx.x;
  const int64_t last = (part_of(p, s, 0, 1) * s.channels + p.channel) * s.states + a.first_state;
#pragma unroll 1
  for (int n = 0; n < a.states; ++n) {
    grads[n * threads] = p.active && a.grad_last != nullptr ? a.grad_last[last + n] : 0.0f;
    m.grad_rates[n * threads + threadIdx.x] = 0.0f;
  }
#pragma unroll 1
  for (int segment = a.grid.segments - 1; p.active && segment > p.segment; --segment) {
    const int64_t at = part_of(p, s, segment, a.grid.segments) * s.channels + p.channel;
    pass_column(a.segments.state + at * a.segments.states, a.states, threads, m.rates + threadIdx.x,
                a.segments.steps[at] * kLog2E, grads);
  }
  if (FORM == Form::image) load_weights(a.problem, p, threads, m.low.weights);
  const int ranks = FORM == Form::image ? s.rank : 0;
#pragma unroll 1
  for (int r = 0; r < ranks; ++r) m.grad_weights[r * threads + threadIdx.x] = 0.0f;
}

// Gradients of the parameters, which are sums over batch and segments, and by the initial state.
template <Form FORM>
__device__ __forceinline__ void finish_columns(const BackwardArgs& a, const Place& p, const BackwardShared<FORM>& m,
                                               const Totals& totals) {
  if (!p.active) return;
  const Shape& s = a.problem.shape;
  const int threads = a.grid.threads, part = p.batch * a.grid.segments + p.segment;
#pragma unroll 1
  for (int n = 0; n < a.states; ++n) {
    const int64_t at = static_cast<int64_t>(p.row) * s.states + a.first_state + n;
    put(a.dA, part, at, m.grad_rates[n * threads + threadIdx.x]);
    if (a.dinitial != nullptr && p.segment == 0)
      a.dinitial[static_cast<int64_t>(p.batch) * s.channels * s.states + at] = m.carried[n * threads + threadIdx.x];
  }
  if (a.dD.data != nullptr && a.first_launch) put(a.dD, part, p.row, totals.skip);
  if (a.dbias.data != nullptr) put(a.dbias, part, p.row, totals.bias);
  const int ranks = FORM == Form::image ? s.rank : 0;
#pragma unroll 1
  for (int r = 0; r < ranks; ++r)
    put(a.dweight, part, static_cast<int64_t>(p.row) * s.rank + r, m.grad_weights[r * threads + threadIdx.x]);
}

template <typename IO, Form FORM>
__global__ void __launch_bounds__(kMaxThreads, 3) scan_backward(const __grid_constant__ BackwardArgs a) {
  TRIPTYCH_DYN_SMEM(shared);
  const Shape& s = a.problem.shape;
  const Place p = locate(s, a.grid);
  const BackwardShared<FORM> m(shared, s, a.states, a.grid.threads, false);
  const float bias = bias_of(a.problem, p);
  Totals totals;
  start_columns<FORM>(a, p, m);
#pragma unroll 1
  for (int chunk = p.end_chunk - 1; chunk >= p.first_chunk; --chunk) {
    const int left = min(s.length - chunk * kChunk, kChunk);
    Cursor<FORM> cursor(s, p.direction, chunk * kChunk);
    stage<IO, FORM>(a.problem, p, cursor, left, a.first_state, a.states, a.grid.threads, m.b_rows, m.low.steps);
    TRIPTYCH_BARRIER(backward_rows_staged);
    recompute<IO, FORM>(a, p, m, cursor, chunk, left, bias);
    const int last = (left - 1) / kTile * kTile;
    cursor.move(last);
#pragma unroll 1
    for (int offset = last; offset >= 0; offset -= kTile) {
      if (offset == 0) read_saved(a, p, chunk, m.carried);
      sweep_tile<IO, FORM>(a, p, m, cursor, offset, left - offset, bias, totals);
      // This also frees the chunk's rows to be staged anew. The sums have two places: those of a tile are read while
      // the next tile writes the other, and no thread is a second tile ahead.
      TRIPTYCH_BARRIER(backward_sums_ready);
      flush_tile<FORM>(a, p, m, cursor, left - offset, parity_of(offset));
      cursor.move(-kTile);
    }
  }
  finish_columns<FORM>(a, p, m, totals);
}

// ---- segments -------------------------------------------------------------------------------------------------------

// Of a segment alone: the gradient by the state before it, and the sum of its steps.
template <typename IO, Form FORM>
__global__ void __launch_bounds__(kMaxThreads, 4) scan_backward_ends(const __grid_constant__ BackwardArgs a) {
  TRIPTYCH_DYN_SMEM(shared);
  const Problem& q = a.problem;
  const Shape& s = q.shape;
  const Place p = locate(s, a.grid);
  if (p.segment == 0) return;  // the whole block; no segment lies before it
  const BackwardShared<FORM> m(shared, s, a.states, a.grid.threads, true);
  const int threads = a.grid.threads;
  const float bias = bias_of(q, p);
  float steps = 0.0f;
  to_column(q.A + static_cast<int64_t>(p.row) * s.states + a.first_state, a.states, threads, m.rates + threadIdx.x);
#pragma unroll 1
  for (int n = 0; n < a.states; ++n) m.carried[n * threads + threadIdx.x] = 0.0f;
  if (FORM == Form::image) load_weights(q, p, threads, m.low.weights);
#pragma unroll 1
  for (int chunk = p.end_chunk - 1; chunk >= p.first_chunk; --chunk) {
    const int left = min(s.length - chunk * kChunk, kChunk);
    Cursor<FORM> cursor(s, p.direction, chunk * kChunk);
    TRIPTYCH_BARRIER(ends_rows_free);
    stage<IO, FORM>(a.problem, p, cursor, left, a.first_state, a.states, a.grid.threads, m.b_rows, m.low.steps);
    TRIPTYCH_BARRIER(ends_rows_staged);
    const int last = (left - 1) / kTile * kTile;
    cursor.move(last);
#pragma unroll 1
    for (int offset = last; offset >= 0; offset -= kTile) {
      Tile tile;
      tile.valid = left - offset;
      positions_of<FORM>(cursor, s.length - 1, tile.at);
      cursor.move(-kTile);
      load_steps<IO, FORM>(a, p, m, offset, bias, tile);
      load_gradient<IO, FORM>(a, p, m.exchange, tile);
#pragma unroll
      for (int t = 0; t < kTile; ++t) steps += tile.dt[t];
#pragma unroll 1
      for (int n = 0; n < a.states; ++n) {
        const int at = n * threads + static_cast<int>(threadIdx.x);
        const float rate = m.rates[at] * kLog2E;
        float c[kTile], grad = m.carried[at];
        read_tile(m.c_rows + n * kPitch + offset, c);
#pragma unroll
        for (int t = kTile - 1; t >= 0; --t) grad = fmaf(tile.dy[t], c[t], grad) * exp2_fast(tile.dt[t] * rate);
        m.carried[at] = grad;
      }
    }
  }
  if (!p.active) return;
  const int64_t at = part_of(p, s, p.segment, a.grid.segments) * s.channels + p.channel;
  a.segments.steps[at] = steps;
#pragma unroll 1
  for (int n = 0; n < a.states; ++n)
    a.segments.state[at * a.segments.states + n] = m.carried[n * threads + threadIdx.x];
}

}  // namespace triptych::cuda
