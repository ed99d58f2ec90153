// Moving data: a lane owns a channel and takes kTile steps of it at a time into registers; B, C and the low-rank step
// sizes, which all channels share, are staged a chunk of steps at a time in shared memory.
#pragma once

#include "portable.cuh"
#include "problem.h"

namespace triptych::cuda {

constexpr int kExchangePitch = kTile + 1;                // odd: a column of it touches every bank once
constexpr int kExchange = 32 * kExchangePitch;           // floats of shared memory a warp exchanges layouts in

// ---- where a thread works -------------------------------------------------------------------------------------------

struct Place {
  int batch, direction, segment, block, group;
  int channel, warp_channel, end;  // the lane's, its warp's first, one past the group's last
  bool active;                     // the lane has a channel; one that has none takes part in every barrier
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
  // an idle lane reads the parameters of the last channel, and nothing else
  p.row = p.direction * shape.channels + (p.active ? p.channel : p.end - 1);
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
template <bool IMAGE>
struct Cursor {
  int position = 0;

  __device__ __forceinline__ Cursor(const Shape&, int, int step) : position(step) {}
  __device__ __forceinline__ void next() { ++position; }
  __device__ __forceinline__ void move(int steps) { position += steps; }
  __device__ __forceinline__ int at(int steps) const { return position + steps; }
};

template <>
struct Cursor<true> {
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

// ---- channels: global memory and registers --------------------------------------------------------------------------

template <typename IO>
__device__ __forceinline__ IO* address(const Strided& s, int batch, int position, int channel) {
  return reinterpret_cast<IO*>(s.data + batch * s.batch + static_cast<int64_t>(position) * s.step +
                               static_cast<int64_t>(channel) * s.inner);
}

// Of a tensor whose positions are adjacent, (B, D, L) in memory, a warp reads four channels of eight positions at a time,
// so that a request covers four runs of memory and not thirty-two; `settle` then hands every lane its own channel.
template <typename IO, bool IMAGE>
__device__ __forceinline__ void fetch(const Strided& s, const Place& p, Cursor<IMAGE> cursor, int valid,
                                      IO (&raw)[kTile]) {
  if (!IMAGE && s.by_rows) {
    const int lane = static_cast<int>(threadIdx.x & 31u), t = lane & (kTile - 1);
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
      const int channel = p.warp_channel + i * (32 / kTile) + lane / kTile;
      raw[i] = channel < p.end && t < valid ? *address<IO>(s, p.batch, cursor.position + t, channel) : IO{};
    }
    return;
  }
#pragma unroll
  for (int t = 0; t < kTile; ++t) {
    raw[t] = p.active && t < valid ? *address<IO>(s, p.batch, cursor.position, p.channel) : IO{};
    cursor.next();
  }
}

template <typename IO, bool IMAGE>
__device__ __forceinline__ void settle(const Strided& s, const IO (&raw)[kTile], float* exchange, float (&x)[kTile]) {
  if (IMAGE || !s.by_rows) {
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

template <typename IO, bool IMAGE>
__device__ __forceinline__ void load(const Strided& s, const Place& p, const Cursor<IMAGE>& cursor, int valid,
                                     float* exchange, float (&x)[kTile]) {
  IO raw[kTile];
  fetch<IO, IMAGE>(s, p, cursor, valid, raw);
  settle<IO, IMAGE>(s, raw, exchange, x);
}

template <typename IO, bool IMAGE>
__device__ __forceinline__ void store(const Strided& s, const Place& p, Cursor<IMAGE> cursor, int valid, float* exchange,
                                      const float (&x)[kTile]) {
  if (!IMAGE && s.by_rows) {
    const int lane = static_cast<int>(threadIdx.x & 31u), t = lane & (kTile - 1);
#pragma unroll
    for (int i = 0; i < kTile; ++i) exchange[lane * kExchangePitch + i] = x[i];
    TRIPTYCH_WARP_BARRIER(store_written);
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
      const int of_warp = i * (32 / kTile) + lane / kTile, channel = p.warp_channel + of_warp;
      if (channel < p.end && t < valid)
        *address<IO>(s, p.batch, cursor.position + t, channel) = from_float<IO>(exchange[of_warp * kExchangePitch + t]);
    }
    TRIPTYCH_WARP_BARRIER(store_read);
    return;
  }
#pragma unroll
  for (int t = 0; t < kTile; ++t) {
    if (p.active && t < valid) *address<IO>(s, p.batch, cursor.position, p.channel) = from_float<IO>(x[t]);
    cursor.next();
  }
}

// Adds what the sink's plane holds to x, or leaves the sum there for the next launch.
template <bool IMAGE>
__device__ __forceinline__ void accumulate(const Sink& sink, const Shape& shape, const Place& p, Cursor<IMAGE> cursor,
                                           int valid, float (&x)[kTile]) {
  if (sink.plane == nullptr) return;
  float* plane = sink.plane + p.direction * sink.per_direction +
                 static_cast<int64_t>(p.batch) * shape.length * shape.channels + p.channel;
#pragma unroll
  for (int t = 0; t < kTile; ++t) {
    if (p.active && t < valid) {
      float* at = plane + static_cast<int64_t>(cursor.position) * shape.channels;
      if (sink.add) x[t] += *at;
      if (!sink.finish) *at = x[t];
    }
    cursor.next();
  }
}

template <typename IO, bool IMAGE>
__device__ __forceinline__ void emit(const Sink& sink, const Shape& shape, const Place& p, const Cursor<IMAGE>& cursor,
                                     int valid, float* exchange, float (&x)[kTile]) {
  accumulate<IMAGE>(sink, shape, p, cursor, valid, x);
  if (sink.finish) store<IO, IMAGE>(sink.out, p, cursor, valid, exchange, x);
}

// ---- what channels share: shared memory -----------------------------------------------------------------------------

// Columns [first, first + count) of a tensor [B, L, G, *], a chunk of steps, to rows of kPitch floats; zero where there
// is no such column or step. `lane` counts the threads that stage, `lanes` of them.
template <typename IO, bool IMAGE>
__device__ __forceinline__ void stage(const Strided& s, const Place& p, int group, const Cursor<IMAGE>& chunk, int valid,
                                      int first, int width, int count, int lane, int lanes, float* rows) {
  for (int step = lane; step < kChunk; step += lanes) {
    const char* base = s.data + p.batch * s.batch + static_cast<int64_t>(group) * s.outer +
                       static_cast<int64_t>(step < valid ? chunk.at(step) : 0) * s.step;
#pragma unroll 4
    for (int c = 0; c < count; ++c) {
      const bool there = step < valid && first + c < width;
      rows[c * kPitch + step] =
          there ? to_float(*reinterpret_cast<const IO*>(base + static_cast<int64_t>(first + c) * s.inner)) : 0.0f;
    }
  }
}

// B and C of a chunk, by half of the block each where the block is more than a warp.
template <typename IO, bool IMAGE>
__device__ __forceinline__ void stage_pair(const Problem& q, const Place& p, const Cursor<IMAGE>& chunk, int valid,
                                           int first, int count, int threads, float* b, float* c) {
  const int group = IMAGE ? p.direction : p.group, thread = static_cast<int>(threadIdx.x);
  const int half = threads / 2, width = q.shape.states;
  if (half >= 32) {
    const bool second = thread >= half;
    stage<IO, IMAGE>(second ? q.C : q.B, p, group, chunk, valid, first, width, count, second ? thread - half : thread,
                     second ? threads - half : half, second ? c : b);
  } else {
    stage<IO, IMAGE>(q.B, p, group, chunk, valid, first, width, count, thread, threads, b);
    stage<IO, IMAGE>(q.C, p, group, chunk, valid, first, width, count, thread, threads, c);
  }
}

__device__ __forceinline__ void read_tile(const float* row, float (&x)[kTile]) {
#ifdef TRIPTYCH_EMU
  for (int t = 0; t < kTile; ++t) x[t] = row[t];
#else
  const float4 low = *reinterpret_cast<const float4*>(row), high = *reinterpret_cast<const float4*>(row + 4);
  x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
  x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
#endif
}

// ---- states of a channel: adjacent in global memory, columns of shared memory ---------------------------------------

// Four at a time where they lie so: the lanes of a warp are a row of states apart, and a request then costs a quarter.
__device__ __forceinline__ bool by_fours(const float* states, int count) {
  return count % 4 == 0 && (reinterpret_cast<uintptr_t>(states) & 15u) == 0;
}

template <int NT>
__device__ __forceinline__ void read_states(const float* from, int count, float (&x)[NT]) {
#ifndef TRIPTYCH_EMU
  if (NT % 4 == 0 && count >= NT && by_fours(from, NT)) {
#pragma unroll
    for (int n = 0; n + 3 < NT; n += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + n);
      x[n] = four.x, x[n + 1] = four.y, x[n + 2] = four.z, x[n + 3] = four.w;
    }
    return;
  }
#endif
#pragma unroll
  for (int n = 0; n < NT; ++n) x[n] = n < count ? from[n] : 0.0f;
}

template <int NT>
__device__ __forceinline__ void write_states(float* to, int count, const float (&x)[NT]) {
#ifndef TRIPTYCH_EMU
  if (NT % 4 == 0 && count >= NT && by_fours(to, NT)) {
#pragma unroll
    for (int n = 0; n + 3 < NT; n += 4)
      *reinterpret_cast<float4*>(to + n) = make_float4(x[n], x[n + 1], x[n + 2], x[n + 3]);
    return;
  }
#endif
#pragma unroll
  for (int n = 0; n < NT; ++n)
    if (n < count) to[n] = x[n];
}

__device__ __forceinline__ void to_column(const float* from, int count, int pitch, float* column) {
#ifndef TRIPTYCH_EMU
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
#endif
  for (int n = 0; n < count; ++n) column[n * pitch] = from[n];
}

// ---- step sizes -----------------------------------------------------------------------------------------------------

// What a block keeps for the step sizes of an image: the low-rank form of a chunk, and each channel's weights in a column.
struct LowRank {
  float* steps = nullptr;    // [R, kPitch]
  float* weights = nullptr;  // [R, threads]
};

__device__ __forceinline__ void load_weights(const Problem& q, const Place& p, int threads, float* weights) {
  const float* row = q.dt_weight + static_cast<int64_t>(p.row) * q.shape.rank;
  to_column(row, q.shape.rank, threads, weights + threadIdx.x);
}

// Step sizes of a tile from delta (in place), or from their low-rank form at `offset` in the chunk; and their slopes, the
// derivative by what softplus was given. A step that does not exist has size and slope zero: the state passes through it.
template <bool IMAGE>
__device__ __forceinline__ void step_sizes(const Problem& q, const Place& p, const LowRank& low, int threads, int offset,
                                           float bias, int valid, float (&dt)[kTile], float (&slope)[kTile]) {
  if (IMAGE) {
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
  const bool soft = IMAGE || q.softplus;
#pragma unroll
  for (int t = 0; t < kTile; ++t) {
    const float x = dt[t] + bias;
    Softplus s{x, 1.0f};
    if (soft) s = softplus(x);
    const bool there = p.active && t < valid;
    dt[t] = there ? s.value : 0.0f;
    slope[t] = there ? s.slope : 0.0f;
  }
}

__device__ __forceinline__ float bias_of(const Problem& q, const Place& p) {
  return q.bias != nullptr ? q.bias[p.row] : 0.0f;
}

}  // namespace triptych::cuda
