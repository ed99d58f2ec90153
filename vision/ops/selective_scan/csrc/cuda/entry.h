// The two passes, each with scratch memory of the size that the plan counts; compiled once for each I/O type.
#pragma once

#include "plan.h"

#ifndef TRIPTYCH_EMU
#include <cuda_runtime.h>
#endif

namespace triptych::cuda {

#ifdef TRIPTYCH_EMU
using Stream = int;
#else
using Stream = cudaStream_t;
#endif

struct Half;
struct BFloat16;

template <typename IO>
void forward(const ForwardCall& call, float* workspace, Stream stream);

template <typename IO>
void backward(const BackwardCall& call, float* workspace, Stream stream);

// Floats of scratch memory that a call needs.
inline int64_t workspace_of(const ForwardCall& call) {
  Arena arena;
  plan_forward(call, arena);
  return arena.used;
}

inline int64_t workspace_of(const BackwardCall& call) {
  Arena arena;
  plan_backward(call, arena);
  return arena.used;
}

}  // namespace triptych::cuda
