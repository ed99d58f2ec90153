// Moving data: a lane owns a channel and takes kTile steps of it at a time into registers; B, C and the low-rank step
// sizes, which all channels share, are staged a chunk of steps at a time in shared memory.
#pragma once

#include "portable.cuh"
#include "problem.h"

namespace triptych::cuda {

// ---- where a thread works -------------------------------------------------------------------------------------------

struct Place {
  int batch, direction, segment, block, group;
  int channel, warp_channel, end;  // the lane's, its warp's first, one past the group's last
  bool active;                     // the lane has a channel; one that has none takes part in every barrier,
  int safe_channel;                // and reads what belongs to the last channel
  int row;                         // of the parameters [K, D]
  int first_chunk, end_chunk;      // of the segment
};

__device__ __forceinline__ Place locate(const Shape& shape, const Grid& grid) {
  Place p;
  int id = static_cast<int>(blockIdx.x);
  const int blocks = grid.blocks_per_group * shape.groups;
  const int block = id % blocks;
  id /= blocks;
  p.segment = id % grid.segments;
  id /= grid.segments;
  p.direction = grid.first_direction + id % grid.directions;
  p.batch = id / grid.directions;
  p.group = block / grid.blocks_per_group;
  p.block = block % grid.blocks_per_group;
  const int per_group = shape.channels / shape.groups;
  const int first = p.group * per_group + p.block * grid.threads;
  p.end = (p.group + 1) * per_group;
  p.warp_channel = first + static_cast<int>(threadIdx.x & ~31u);
  p.channel = first + static_cast<int>(threadIdx.x);
  p.active = p.channel < p.end;
  p.safe_channel = min(p.channel, p.end - 1);
  p.row = p.direction * shape.channels + p.safe_channel;
  const int chunks = (shape.length - 1) / kChunk + 1;
  p.first_chunk = p.segment * grid.chunks_per_segment;
  p.end_chunk = min(p.first_chunk + grid.chunks_per_segment, chunks);
  return p;
}

// Index of (batch, direction, part) where each has `parts` parts, in 64 bits.
__device__ __forceinline__ int64_t part_of(const Place& p, const Shape& shape, int part, int parts) {
  return (static_cast<int64_t>(p.batch) * shape.directions + p.direction) * parts + part;
}

// ---- the order of positions -----------------------------------------------------------------------------------------

// Walks a sequence, or an image by rows or by columns, forwards or backwards, without a division a step: a walk goes
// `inner` steps of `stride` (a column down), then jumps by `wrap` more (to the next column's top).
template <Form FORM>
struct Cursor {
  int position = 0;

  __device__ __forceinline__ Cursor(const Shape&, int, int step) : position(step) {}
  __device__ __forceinline__ void next() { ++position; }
  __device__ __forceinline__ void move(int steps) { position += steps; }
  __device__ __forceinline__ int at(int steps) const { return position + steps; }
};

template <>
struct Cursor<Form::image> {
  int position, row, inner, stride, wrap;

  __device__ __forceinline__ Cursor(const Shape& s, int direction, int step) {
    const bool columns = (direction & 1) != 0, back = direction >= 2;
    inner = columns ? s.height : s.length;
    stride = columns ? s.width : 1;
    wrap = columns ? 1 - s.length : 0;
    row = step % inner;
    position = columns ? row * s.width + step / inner : step;
    if (back) {
      stride = -stride;
      wrap = -wrap;
      position = s.length - 1 - position;
    }
  }
  __device__ __forceinline__ void next() {
    ++row;
    position += stride;
    if (row == inner) {
      row = 0;
      position += wrap;
    }
  }
  __device__ __forceinline__ void move(int steps) {
    row += steps;
    position += steps * stride;
    while (row >= inner) {
      row -= inner;
      position += wrap;
    }
    while (row < 0) {
      row += inner;
      position -= wrap;
    }
  }
  __device__ __forceinline__ int at(int steps) const {
    Cursor moved = *this;
    moved.move(steps);
    return moved.position;
  }
};

// The positions of a tile, the last valid one again for steps that do not exist: loads need no conditions then, and
// what a step that does not exist would add is taken out by its step size of zero.
template <Form FORM>
__device__ __forceinline__ void positions_of(Cursor<FORM> cursor, int last, int (&at)[kTile]) {
#pragma unroll
  for (int t = 0; t < kTile; ++t) {
    at[t] = max(min(cursor.position, last), 0);
    cursor.next();
  }
}

// The same, but not by keeping what was computed before.
template <Form FORM>
__device__ __forceinline__ void positions_anew(Cursor<FORM> cursor, int last, int (&at)[kTile]) {
  cursor.position = opaque(cursor.position);
  positions_of<FORM>(cursor, last, at);
}

// ---- channels: global memory and registers --------------------------------------------------------------------------

template <typename IO>
__device__ __forceinline__ IO* address(char* base, int index, int stride) {
  return reinterpret_cast<IO*>(base + static_cast<int64_t>(index) * stride);
}

// Where a thread's part of a tensor begins: at its channel, or, of a tensor by rows, at its batch element.
template <Form FORM>
__device__ __forceinline__ char* base_of(const Strided& s, const Place& p) {
  char* base = s.data + p.batch * s.batch;
  return FORM == Form::rows && s.by_rows ? base : base + static_cast<int64_t>(opaque(p.safe_channel)) * s.inner;
}

// Of a tensor whose positions are adjacent, (B, D, L) in memory, a warp reads four channels of eight positions at a
// time, so that a request covers four runs of memory and not thirty-two; `settle` then hands every lane its own
// channel. A lane that has no channel reads the last one's.
template <typename IO, Form FORM>
__device__ __forceinline__ void fetch(const Strided& s, char* base, const Place& p, const int (&at)[kTile],
                                      IO (&raw)[kTile]) {
  if (FORM == Form::rows && s.by_rows) {
    const int lane = static_cast<int>(threadIdx.x & 31u), t = lane & (kTile - 1);
    char* column = base + static_cast<int64_t>(min(at[0] + t, at[kTile - 1])) * s.step;
#pragma unroll
    for (int i = 0; i < kTile; ++i)
      raw[i] = *address<IO>(column, min(p.warp_channel + i * (32 / kTile) + lane / kTile, p.end - 1), s.inner);
    return;
  }
#pragma unroll
  for (int t = 0; t < kTile; ++t) raw[t] = *address<IO>(base, at[t], s.step);
}

template <typename IO, Form FORM>
__device__ __forceinline__ void settle(const Strided& s, const IO (&raw)[kTile], float* exchange, float (&x)[kTile]) {
  if (FORM != Form::rows || !s.by_rows) {
#pragma unroll
    for (int t = 0; t < kTile; ++t) x[t] = to_float(raw[t]);
    return;
  }
  const int lane = static_cast<int>(threadIdx.x & 31u);
#pragma unroll
  for (int i = 0; i < kTile; ++i)
    exchange[(i * (32 / kTile) + lane / kTile) * kExchangePitch + (lane & (kTile - 1))] = to_float(raw[i]);
  TRIPTYCH_WARP_BARRIER(settle_written);
#pragma unroll
  for (int t = 0; t < kTile; ++t) x[t] = exchange[lane * kExchangePitch + t];
  TRIPTYCH_WARP_BARRIER(settle_read);
}

template <typename IO, Form FORM>
__device__ __forceinline__ void load(const Strided& s, char* base, const Place& p, const int (&at)[kTile],
                                     float* exchange, float (&x)[kTile]) {
  IO raw[kTile];
  fetch<IO, FORM>(s, base, p, at, raw);
  settle<IO, FORM>(s, raw, exchange, x);
}

template <typename IO, Form FORM>
__device__ __forceinline__ void store(const Strided& s, char* base, const Place& p, const int (&at)[kTile], int valid,
                                      float* exchange, const float (&x)[kTile]) {
  if (FORM == Form::rows && s.by_rows) {
    const int lane = static_cast<int>(threadIdx.x & 31u), t = lane & (kTile - 1);
    char* column = base + static_cast<int64_t>(at[0] + t) * s.step;
#pragma unroll
    for (int i = 0; i < kTile; ++i) exchange[lane * kExchangePitch + i] = x[i];
    TRIPTYCH_WARP_BARRIER(store_written);
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
      const int of_warp = i * (32 / kTile) + lane / kTile, channel = p.warp_channel + of_warp;
      if (channel < p.end && t < valid)
        *address<IO>(column, channel, s.inner) = from_float<IO>(exchange[of_warp * kExchangePitch + t]);
    }
    TRIPTYCH_WARP_BARRIER(store_read);
    return;
  }
#pragma unroll
  for (int t = 0; t < kTile; ++t)
    if (p.active && t < valid) *address<IO>(base, at[t], s.step) = from_float<IO>(x[t]);
}

// Adds what the sink's plane holds to x, or leaves the sum there for the next launch.
__device__ __forceinline__ void accumulate(const Sink& sink, const Shape& shape, const Place& p, const int (&at)[kTile],
                                           int valid, float (&x)[kTile]) {
  if (sink.plane == nullptr) return;
  float* plane = sink.plane + p.direction * sink.per_direction +
                 static_cast<int64_t>(p.batch) * shape.length * shape.channels + p.channel;
#pragma unroll
  for (int t = 0; t < kTile; ++t) {
    if (!p.active || t >= valid) continue;
    float* to = plane + static_cast<int64_t>(at[t]) * shape.channels;
    if (sink.add) x[t] += *to;
    if (!sink.finish) *to = x[t];
  }
}

template <typename IO, Form FORM>
__device__ __forceinline__ void emit(const Sink& sink, char* base, const Shape& shape, const Place& p,
                                     const int (&at)[kTile], int valid, float* exchange, float (&x)[kTile]) {
  accumulate(sink, shape, p, at, valid, x);
  if (sink.finish) store<IO, FORM>(sink.out, base, p, at, valid, exchange, x);
}

// ---- what channels share: shared memory -----------------------------------------------------------------------------

// A chunk of steps of B and C, columns [first, first + count), to rows of kPitch floats: one row a state, B's and then
// C's; and of an image the low-rank step sizes behind them, at `low`. Zero where there is no such column or step.
template <typename IO, Form FORM>
__device__ __forceinline__ void stage(const Problem& q, const Place& p, const Cursor<FORM>& chunk, int valid, int first,
                                      int count, int threads, float* rows, float* low) {
  constexpr int kTensors = FORM == Form::image ? 3 : 2;
  const int group = FORM == Form::image ? p.direction : p.group;
#pragma unroll 1
  for (int item = static_cast<int>(threadIdx.x); item < kTensors * kChunk; item += threads) {
    const int which = item / kChunk, step = item % kChunk;
    const Strided& s = q.shared[which];
    const bool low_rank = which == 2;
    const int columns = low_rank ? q.shape.rank : count;
    const int there = step < valid ? (low_rank ? columns : min(columns, q.shape.states - first)) : 0;
    const char* from = s.data + p.batch * s.batch + static_cast<int64_t>(group) * s.outer +
                       static_cast<int64_t>(there > 0 ? chunk.at(step) : 0) * s.step +
                       static_cast<int64_t>(low_rank ? 0 : first) * s.inner;
    float* to = (low_rank ? low : rows + which * count * kPitch) + step;
#pragma unroll 4
    for (int c = 0; c < columns; ++c)
      to[c * kPitch] =
          c < there ? to_float(*reinterpret_cast<const IO*>(from + static_cast<int64_t>(c) * s.inner)) : 0.0f;
  }
}

__device__ __forceinline__ void read_tile(const float* row, float (&x)[kTile]) {
  const float4 low = *reinterpret_cast<const float4*>(row), high = *reinterpret_cast<const float4*>(row + 4);
  x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
  x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
}

// ---- columns of shared memory, one a thread ------------------------------------------------------------------------

// Four at a time where they lie so: the lanes of a warp are a row of states apart, and a request then costs a quarter.
__device__ __forceinline__ bool by_fours(const float* states, int count) {
  return count % 4 == 0 && (reinterpret_cast<uintptr_t>(states) & 15u) == 0;
}

__device__ __forceinline__ void to_column(const float* from, int count, int pitch, float* column) {
  if (by_fours(from, count)) {
#pragma unroll 1
    for (int n = 0; n < count; n += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + n);
      column[n * pitch] = four.x;
      column[(n + 1) * pitch] = four.y;
      column[(n + 2) * pitch] = four.z;
      column[(n + 3) * pitch] = four.w;
    }
    return;
  }
#pragma unroll 2
  for (int n = 0; n < count; ++n) column[n * pitch] = from[n];
}

__device__ __forceinline__ void from_column(const float* column, int pitch, int count, float* to) {
  if (by_fours(to, count)) {
#pragma unroll 1
    for (int n = 0; n < count; n += 4)
      *reinterpret_cast<float4*>(to + n) =
          make_float4(column[n * pitch], column[(n + 1) * pitch], column[(n + 2) * pitch], column[(n + 3) * pitch]);
    return;
  }
#pragma unroll 2
  for (int n = 0; n < count; ++n) to[n] = column[n * pitch];
}

// States through a segment whose end states from zero and whose sum of steps are known: x = 2^(rate steps) x + alone.
__device__ __forceinline__ void pass_column(const float* alone, int count, int pitch, const float* rates, float steps,
                                            float* column) {
  const bool fours = by_fours(alone, count);
#pragma unroll 1
  for (int n = 0; n < count; n += 4) {
    float4 four = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (fours) {
      four = *reinterpret_cast<const float4*>(alone + n);
    } else {
      four.x = alone[n];
      if (n + 1 < count) four.y = alone[n + 1];
      if (n + 2 < count) four.z = alone[n + 2];
      if (n + 3 < count) four.w = alone[n + 3];
    }
    const float ends[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = (n + i) * pitch;
      if (n + i < count) column[at] = fmaf(exp2_fast(rates[at] * steps), column[at], ends[i]);
    }
  }
}

// ---- step sizes -----------------------------------------------------------------------------------------------------

// What a block keeps for the step sizes of an image: the low-rank form of a chunk, and each channel's weights in a
// column.
struct LowRank {
  float* steps = nullptr;    // [R, kPitch]
  float* weights = nullptr;  // [R, threads]
};

__device__ __forceinline__ void load_weights(const Problem& q, const Place& p, int threads, float* weights) {
  const float* row = q.dt_weight + static_cast<int64_t>(p.row) * q.shape.rank;
  to_column(row, q.shape.rank, threads, weights + threadIdx.x);
}

// Step sizes of a tile from delta (in place), or from their low-rank form at `offset` in the chunk; and their slopes,
// the derivative by what softplus was given. A step that does not exist has size and slope zero: the state passes
// through it.
template <Form FORM>
__device__ __forceinline__ void step_sizes(const Problem& q, const Place& p, const LowRank& low, int threads,
                                           int offset, float bias, int valid, float (&dt)[kTile],
                                           float (&slope)[kTile]) {
  if (FORM == Form::image) {
#pragma unroll
    for (int t = 0; t < kTile; ++t) dt[t] = 0.0f;
#pragma unroll 1
    for (int r = 0; r < q.shape.rank; ++r) {
      float steps[kTile];
      read_tile(low.steps + r * kPitch + offset, steps);
      const float weight = low.weights[r * threads + threadIdx.x];
#pragma unroll
      for (int t = 0; t < kTile; ++t) dt[t] = fmaf(weight, steps[t], dt[t]);
    }
  }
#pragma unroll
  for (int t = 0; t < kTile; ++t) dt[t] += bias, slope[t] = 1.0f;
  if (FORM == Form::image || q.softplus) {
#pragma unroll
    for (int t = 0; t < kTile; ++t) {
      const Softplus s = softplus(dt[t]);
      dt[t] = s.value, slope[t] = s.slope;
    }
  }
#pragma unroll
  for (int t = 0; t < kTile; ++t) {
    const bool there = p.active && t < valid;
    dt[t] = there ? dt[t] : 0.0f;
    slope[t] = there ? slope[t] : 0.0f;
  }
}

__device__ __forceinline__ float bias_of(const Problem& q, const Place& p) {
  return q.bias != nullptr ? q.bias[p.row] : 0.0f;
}

}  // namespace triptych::cuda
