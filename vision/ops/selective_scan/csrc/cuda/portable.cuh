// What the kernels may use of a GPU, so that the same sources compile with nvcc and, for tests without a GPU, with a
// C++ compiler over a host emulator (-DTRIPTYCH_EMU and a header simt.h on the include path).
//
// Rules for the kernels: barriers only by TRIPTYCH_BARRIER and TRIPTYCH_WARP_BARRIER, shared memory only by
// TRIPTYCH_DYN_SMEM, launches only by TRIPTYCH_LAUNCH, no inline PTX without an #else, no thread leaves before a
// barrier.
#pragma once

#include <cstdint>

#ifdef TRIPTYCH_EMU
#include "simt.h"
#else
#include <cuda_runtime.h>

// Barriers have names so that the emulator can drop one at a time and a test can tell that it is missed.
#define TRIPTYCH_BARRIER(name) __syncthreads()
#define TRIPTYCH_WARP_BARRIER(name) __syncwarp()
#define TRIPTYCH_DYN_SMEM(name) extern __shared__ __align__(16) float name[]
#define TRIPTYCH_LAUNCH(kernel, blocks, threads, bytes, stream, args) \
  kernel<<<blocks, threads, static_cast<size_t>(bytes), stream>>>(args)
#endif

namespace triptych::cuda {

// 16-bit numbers by their bits: nothing is computed in them, and the toolkit's headers for them double compile times.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

__device__ __forceinline__ float to_float(float x) { return x; }

__device__ __forceinline__ float to_float(BFloat16 x) {
#ifdef TRIPTYCH_EMU
  return emu::float_of_bits(static_cast<uint32_t>(x.bits) << 16);
#else
  return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
#endif
}

__device__ __forceinline__ float to_float(Half x) {
#ifdef TRIPTYCH_EMU
  return emu::float_of_half(x.bits);
#else
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
#endif
}

template <typename IO>
__device__ __forceinline__ IO from_float(float x);

template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}

template <>
__device__ __forceinline__ BFloat16 from_float<BFloat16>(float x) {
#ifdef TRIPTYCH_EMU
  return {emu::bfloat16_of_float(x)};
#else
  BFloat16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
#endif
}

template <>
__device__ __forceinline__ Half from_float<Half>(float x) {
#ifdef TRIPTYCH_EMU
  return {emu::half_of_float(x)};
#else
  Half y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
#endif
}

// The same number, of which the compiler knows nothing: what is computed from it stays where it is written, where
// hoisting it out of a loop would only cost registers.
__device__ __forceinline__ int opaque(int x) {
#ifndef TRIPTYCH_EMU
  asm volatile("" : "+r"(x));
#endif
  return x;
}

constexpr float kLog2E = 1.4426950408889634f;

// 2^x by the special-function unit, error 2^-22 relative; kept to this helper instead of --use_fast_math for all.
__device__ __forceinline__ float exp2_fast(float x) {
#ifdef TRIPTYCH_EMU
  return emu::exp2_approximate(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// a / b for b in [1, 4], where the approximation is within 2 units in the last place.
__device__ __forceinline__ float divide_fast(float a, float b) {
#ifdef TRIPTYCH_EMU
  return emu::divide_approximate(a, b);
#else
  return __fdividef(a, b);
#endif
}

struct Softplus {
  float value, slope;
};

// log(1 + e^x) and its derivative. With e = exp(-|x|) in [0, 1], log(1 + e) = 2 atanh(e / (2 + e)), whose argument is
// at most 1/3: a short series is accurate to the last bits for small e too, where log(1 + e) itself would round 1 + e
// and lose the step sizes around 0.001 that a trained network lives on.
__device__ __forceinline__ Softplus softplus(float x) {
  const float e = exp2_fast(-fabsf(x) * kLog2E);
  const float s = divide_fast(e, 2.0f + e);
  const float q = s * s;
  float series = 1.0f / 13.0f;
  series = fmaf(series, q, 1.0f / 11.0f);
  series = fmaf(series, q, 1.0f / 9.0f);
  series = fmaf(series, q, 1.0f / 7.0f);
  series = fmaf(series, q, 1.0f / 5.0f);
  series = fmaf(series, q, 1.0f / 3.0f);
  series = fmaf(series, q, 1.0f);
  // fmaxf drops a NaN, but e is NaN then, and so is the sum
  return {fmaf(2.0f * s, series, fmaxf(x, 0.0f)), divide_fast(x >= 0.0f ? 1.0f : e, 1.0f + e)};
}

__device__ __forceinline__ float sigmoid(float x) {
  const float e = exp2_fast(-fabsf(x) * kLog2E);
  return divide_fast(x >= 0.0f ? 1.0f : e, 1.0f + e);
}

}  // namespace triptych::cuda
