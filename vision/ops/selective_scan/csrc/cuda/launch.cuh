// The launches of a forward and of a backward pass, in the order that their sums are made in.
#pragma once

#include <string>

#include "backward.cuh"
#include "finish.cuh"
#include "forward.cuh"
#include "entry.h"

namespace triptych::cuda {

#ifdef TRIPTYCH_EMU
inline void allow_shared(const void*, int64_t) {}
inline void check_launch() {}
inline void zero(float* data, int64_t count, Stream) { std::fill(data, data + count, 0.0f); }
#else
inline void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("triptych: CUDA: ") + cudaGetErrorString(error));
}
// More than 48 KB of shared memory has to be asked for.
inline void allow_shared(const void* kernel, int64_t bytes) {
  if (bytes > 48 * 1024)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
}
inline void check_launch() { check(cudaGetLastError()); }
inline void zero(float* data, int64_t count, Stream stream) {
  check(cudaMemsetAsync(data, 0, static_cast<size_t>(count) * sizeof(float), stream));
}
#endif

template <typename Args>
void launch(void (*kernel)(const Args), const Args& args, int64_t shared, Stream stream) {
  allow_shared(reinterpret_cast<const void*>(kernel), shared);
  const dim3 blocks(static_cast<unsigned>(blocks_of(args.problem.shape, args.grid)));
  TRIPTYCH_LAUNCH(kernel, blocks, args.grid.threads, shared, stream, args);
  check_launch();
}

template <typename IO>
void launch_sums(const PlaneSums& sums, Stream stream) {
  if (sums.count == 0) return;
  int64_t largest = 1;
  for (int i = 0; i < sums.count; ++i) largest = std::max(largest, sums.sums[i].size);
  const dim3 blocks(static_cast<unsigned>(std::min<int64_t>(ceil_div(largest, kSumThreads), 4096)),
                    static_cast<unsigned>(sums.count));
  TRIPTYCH_LAUNCH(sum_planes<IO>, blocks, kSumThreads, 0, stream, sums);
  check_launch();
}

template <typename IO, Form FORM>
auto forward_kernel(int32_t registers) -> void (*)(const ForwardArgs) {
  switch (registers) {
    case 1: return scan_forward<IO, 1, FORM>;
    case 2: return scan_forward<IO, 2, FORM>;
    case 4: return scan_forward<IO, 4, FORM>;
    default: return scan_forward<IO, 0, FORM>;
  }
}

// One launch for all directions where each has a plane; else one for each, adding to the plane that the last one writes
// out. `args` may be of either pass: `sink` is the one that the directions share.
template <typename Args>
void launch_directions(void (*kernel)(const Args), Args args, Sink Args::* sink, bool separate, bool first, bool last,
                       int64_t shared, Stream stream) {
  const int32_t directions = args.problem.shape.directions;
  if (separate) {
    (args.*sink).finish = false;
    launch(kernel, args, shared, stream);
    return;
  }
  args.grid.directions = 1;
  for (int32_t k = 0; k < directions; ++k) {
    args.grid.first_direction = k;
    (args.*sink).add = !(first && k == 0);
    (args.*sink).finish = last && k == directions - 1;
    launch(kernel, args, shared, stream);
  }
}

template <typename IO, Form FORM>
void run_forward(const ForwardPlan& plan, Stream stream) {
  const Shape& s = plan.args.problem.shape;
  const auto kernel = forward_kernel<IO, FORM>(plan.registers);
  const int32_t windows = windows_of(s);
  for (int32_t w = 0; w < windows; ++w) {
    ForwardArgs a = plan.args;
    a.first_state = w * kStates;
    a.states = std::min(kStates, s.states - a.first_state);
    if (a.grid.segments > 1) {
      ForwardArgs ends = a;
      ends.only_ends = true;
      ends.grid.directions = s.directions;
      launch(kernel, ends, plan.shared, stream);
    }
    a.y.add = w > 0;
    a.y.finish = w == windows - 1;
    if (FORM == Form::image)
      launch_directions(kernel, a, &ForwardArgs::y, plan.planes.separate, w == 0, w == windows - 1, plan.shared,
                        stream);
    else
      launch(kernel, a, plan.shared, stream);
  }
  launch_sums<IO>(plan.sums, stream);
}

template <typename IO>
void forward(const ForwardCall& call, float* workspace, Stream stream) {
  Arena arena{workspace};
  const ForwardPlan plan = plan_forward(call, arena);
  switch (plan.form) {
    case Form::image: return run_forward<IO, Form::image>(plan, stream);
    case Form::rows: return run_forward<IO, Form::rows>(plan, stream);
    default: return run_forward<IO, Form::channels>(plan, stream);
  }
}

// What a later window of states adds to, because the first one wrote it.
inline void continue_sums(BackwardArgs& a) {
  a.first_launch = false;
  a.du.add = a.ddelta.add = a.dz.add = true;
  a.dbias.add = a.ddts.add = a.dweight.add = true;
}

template <typename IO, Form FORM>
void run_backward(const BackwardPlan& plan, Stream stream) {
  const Shape& s = plan.args.problem.shape;
  const int32_t windows = windows_of(s);
  if (plan.zeroed_count > 0) zero(plan.zeroed, plan.zeroed_count, stream);
  for (int32_t w = 0; w < windows; ++w) {
    BackwardArgs a = plan.args;
    a.first_state = w * kStates;
    a.states = std::min(kStates, s.states - a.first_state);
    if (w > 0) continue_sums(a);
    if (a.grid.segments > 1) {
      BackwardArgs ends = a;
      ends.grid.directions = s.directions;
      launch(scan_backward_ends<IO, FORM>, ends, plan.shared_ends, stream);
    }
    a.du.finish = a.ddelta.finish = a.dz.finish = w == windows - 1;
    if (FORM == Form::image)
      launch_directions(scan_backward<IO, FORM>, a, &BackwardArgs::du, plan.planes.separate, w == 0, w == windows - 1,
                        plan.shared, stream);
    else
      launch(scan_backward<IO, FORM>, a, plan.shared, stream);
  }
  launch_sums<IO>(plan.sums, stream);
}

template <typename IO>
void backward(const BackwardCall& call, float* workspace, Stream stream) {
  Arena arena{workspace};
  const BackwardPlan plan = plan_backward(call, arena);
  switch (plan.form) {
    case Form::image: return run_backward<IO, Form::image>(plan, stream);
    case Form::rows: return run_backward<IO, Form::rows>(plan, stream);
    default: return run_backward<IO, Form::channels>(plan, stream);
  }
}

}  // namespace triptych::cuda
