// The states of a channel that a launch carries, and how they go through a tile: a few in registers, more in a column
// of shared memory, one after the other, so that the number of registers does not grow with them.
#pragma once

#include "tile.cuh"

namespace triptych::cuda {

// A tile of one state: h = 2^(dt rate) h + x B, y += h C, where x = dt u. Returns the state after it.
__device__ __forceinline__ float advance_state(const float* b_row, const float* c_row, float rate, float state,
                                               const float (&dt)[kTile], const float (&x)[kTile], float (&y)[kTile]) {
  float b[kTile], c[kTile];
  read_tile(b_row, b);
  read_tile(c_row, c);
#pragma unroll
  for (int t = 0; t < kTile; ++t) {
    state = fmaf(exp2_fast(dt[t] * rate), state, x[t] * b[t]);
    y[t] = fmaf(state, c[t], y[t]);
  }
  return state;
}

template <int NT>
__device__ __forceinline__ void read_states(const float* from, int count, float (&x)[NT]) {
  if (NT % 4 == 0 && count >= NT && by_fours(from, NT)) {
#pragma unroll
    for (int n = 0; n + 3 < NT; n += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + n);
      x[n] = four.x, x[n + 1] = four.y, x[n + 2] = four.z, x[n + 3] = four.w;
    }
    return;
  }
#pragma unroll
  for (int n = 0; n < NT; ++n) x[n] = n < count ? from[n] : 0.0f;
}

template <int NT>
__device__ __forceinline__ void write_states(float* to, int count, const float (&x)[NT]) {
  if (NT % 4 == 0 && count >= NT && by_fours(to, NT)) {
#pragma unroll
    for (int n = 0; n + 3 < NT; n += 4)
      *reinterpret_cast<float4*>(to + n) = make_float4(x[n], x[n + 1], x[n + 2], x[n + 3]);
    return;
  }
#pragma unroll
  for (int n = 0; n < NT; ++n)
    if (n < count) to[n] = x[n];
}

template <int NT>
class InRegisters {
 public:
  __device__ __forceinline__ InRegisters(const float* rates, int count, float*, int) {
    read_states<NT>(rates, count, rate_);
#pragma unroll
    for (int n = 0; n < NT; ++n) rate_[n] *= kLog2E, state_[n] = 0.0f;
  }
  __device__ __forceinline__ static constexpr int rows(int) { return NT; }
  __device__ __forceinline__ void read(const float* from, int count) { read_states<NT>(from, count, state_); }
  __device__ __forceinline__ void write(float* to, int count) const { write_states<NT>(to, count, state_); }

  // Through a segment whose end state from zero and whose sum of steps are known.
  __device__ __forceinline__ void pass(const float* alone, int count, float steps) {
    float end[NT];
    read_states<NT>(alone, count, end);
#pragma unroll
    for (int n = 0; n < NT; ++n) state_[n] = fmaf(exp2_fast(rate_[n] * steps), state_[n], end[n]);
  }

  __device__ __forceinline__ void advance(const float* b_rows, const float* c_rows, int, const float (&dt)[kTile],
                                          const float (&x)[kTile], float (&y)[kTile]) {
#pragma unroll
    for (int n = 0; n < NT; ++n)
      state_[n] = advance_state(b_rows + n * kPitch, c_rows + n * kPitch, rate_[n], state_[n], dt, x, y);
  }

 private:
  float rate_[NT], state_[NT];
};

class InColumns {
 public:
  __device__ __forceinline__ InColumns(const float* rates, int count, float* columns, int pitch)
      : rate_(columns + threadIdx.x), state_(columns + count * pitch + threadIdx.x), pitch_(pitch) {
    to_column(rates, count, pitch, rate_);
#pragma unroll 1
    for (int n = 0; n < count; ++n) rate_[n * pitch] *= kLog2E, state_[n * pitch] = 0.0f;
  }
  __device__ __forceinline__ static constexpr int rows(int count) { return count; }
  __device__ __forceinline__ void read(const float* from, int count) { to_column(from, count, pitch_, state_); }
  __device__ __forceinline__ void write(float* to, int count) const { from_column(state_, pitch_, count, to); }

  __device__ __forceinline__ void pass(const float* alone, int count, float steps) {
    pass_column(alone, count, pitch_, rate_, steps, state_);
  }

  __device__ __forceinline__ void advance(const float* b_rows, const float* c_rows, int count, const float (&dt)[kTile],
                                          const float (&x)[kTile], float (&y)[kTile]) {
#pragma unroll 2
    for (int n = 0; n < count; ++n)
      state_[n * pitch_] =
          advance_state(b_rows + n * kPitch, c_rows + n * kPitch, rate_[n * pitch_], state_[n * pitch_], dt, x, y);
  }

 private:
  float *rate_, *state_;
  int pitch_;
};

// NT states in registers; 0: any number, in columns.
template <int NT>
struct CarrierOf {
  using Type = InRegisters<NT>;
};
template <>
struct CarrierOf<0> {
  using Type = InColumns;
};
template <int NT>
using Carrier = typename CarrierOf<NT>::Type;

}  // namespace triptych::cuda
