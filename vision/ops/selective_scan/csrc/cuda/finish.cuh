// The last step of a sum over planes: add them in their order and write the type that is wanted.
#pragma once

#include "portable.cuh"
#include "problem.h"

namespace triptych::cuda {

constexpr int kSumThreads = 256;

// blockIdx.y chooses the sum: one launch finishes all gradients of a backward pass.
template <typename IO>
__global__ void __launch_bounds__(kSumThreads) sum_planes(const __grid_constant__ PlaneSums all) {
  const PlaneSum& s = all.sums[blockIdx.y];
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kSumThreads + threadIdx.x; i < s.size;
       i += static_cast<int64_t>(gridDim.x) * kSumThreads) {
    float sum = s.source[i];
    for (int p = 1; p < s.planes; ++p) sum += s.source[p * s.plane + i];
    if (s.to_float)
      static_cast<float*>(s.target)[i] = sum;
    else
      static_cast<IO*>(s.target)[i] = from_float<IO>(sum);
  }
}

}  // namespace triptych::cuda
