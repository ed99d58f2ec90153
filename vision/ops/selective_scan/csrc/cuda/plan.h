// How a problem is laid over a GPU: threads, blocks, segments, scratch memory. Host code without CUDA.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <stdexcept>

#include "problem.h"

namespace triptych::cuda {

struct Device {
  int32_t processors = 1;
  int64_t shared_per_block = 48 * 1024, shared_per_processor = 96 * 1024;  // bytes
};

// What a caller may choose instead of the plan; 0 leaves it to the plan.
struct Choice {
  int32_t threads = 0, segments = 0;
  int64_t separate_planes = 32 << 20;  // bytes up to which the directions of an image get planes of their own
};

// Scratch memory in one allocation: laid out once to count it and once in place.
struct Arena {
  float* base = nullptr;
  int64_t used = 0;  // floats
  float* take(int64_t count) {
    float* at = base == nullptr ? nullptr : base + used;
    used += (count + 31) / 32 * 32;
    return at;
  }
};

constexpr int64_t kThreadsPerProcessor = 512;  // that hide the latency of memory; fewer, and the sequence is cut
constexpr int kMaxSegments = 64;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int32_t chunks_of(const Shape& s) { return static_cast<int32_t>(ceil_div(s.length, kChunk)); }
inline int32_t windows_of(const Shape& s) { return static_cast<int32_t>(ceil_div(s.states, kStates)); }
inline bool is_image(const Shape& s) { return s.directions > 1; }
inline int64_t plane_of(const Shape& s) { return static_cast<int64_t>(s.batch) * s.length * s.channels; }

// States that the forward kernel keeps in registers, as compiled: 1, 2 or 4; 0 where it keeps them in columns.
inline int32_t registers_of(int32_t states) { return states > 4 ? 0 : states > 2 ? 4 : states; }

inline Form form_of(const Shape& s, std::initializer_list<const Strided*> tensors) {
  if (is_image(s)) return Form::image;
  for (const Strided* tensor : tensors)
    if (tensor->by_rows) return Form::rows;
  return Form::channels;
}

// Bytes of dynamic shared memory; the kernels lay it out.
inline int64_t forward_shared(Form form, int64_t rank, int32_t states, int32_t threads) {
  const int64_t kept = registers_of(states), rows = kept > 0 ? kept : states,
                columns = kept > 0 ? 0 : 2 * states * threads;
  const int64_t own = form == Form::image  ? rank * (kPitch + threads)
                      : form == Form::rows ? threads / 32 * kExchange
                                           : 0;
  return (2 * rows * kPitch + columns + own) * static_cast<int64_t>(sizeof(float));
}

inline int64_t backward_shared(Form form, int64_t rank, int32_t states, int32_t threads, bool only_ends) {
  const int64_t warps = threads / 32, sums = only_ends ? 0 : 2 * warps;
  const int64_t columns = only_ends ? 2 : kTile + 2;
  int64_t floats = 2 * states * kPitch + columns * states * threads + sums * states * kPairs;
  if (form == Form::image)
    floats += rank * (kPitch + 2 * threads + sums * kTile);
  else if (form == Form::rows)
    floats += warps * kExchange;
  return floats * static_cast<int64_t>(sizeof(float));
}

// Blocks of at most `most` threads over the channels of a group, as even as whole warps allow.
inline void lay_channels(const Shape& s, int32_t most, Grid& grid) {
  const int64_t per_group = s.channels / s.groups, blocks = ceil_div(per_group, most);
  grid.threads = static_cast<int32_t>(ceil_div(ceil_div(per_group, blocks), 32) * 32);
  grid.blocks_per_group = static_cast<int32_t>(ceil_div(per_group, grid.threads));
}

// The largest block is best where shared memory allows; else the one of which most warps fit on a processor.
template <typename Bytes>
int32_t choose_threads(const Device& device, Bytes bytes) {
  int32_t best = 0;
  int64_t most = 0;
  for (int32_t threads = kMaxThreads; threads >= 32; threads -= 32) {
    const int64_t needed = bytes(threads);
    if (needed > device.shared_per_block) continue;
    const int64_t resident =
        std::min<int64_t>(device.shared_per_processor / (needed + 1024) * threads, kThreadsPerProcessor);
    if (resident > most) best = threads, most = resident;
  }
  if (best == 0)
    throw std::runtime_error("triptych: the rank of the step sizes is too large for the GPU's shared memory");
  return best;
}

// Cuts the sequence where channels, batch and directions alone do not fill the GPU. It costs a pass of its own, so a
// cut in two would gain nothing.
inline void cut_segments(const Shape& s, const Device& device, int32_t wanted, Grid& grid) {
  const int64_t threads =
      static_cast<int64_t>(s.batch) * grid.directions * s.groups * grid.blocks_per_group * grid.threads;
  if (wanted == 0) {
    const int64_t fill = device.processors * kThreadsPerProcessor / std::max<int64_t>(threads, 1);
    wanted = fill < 3 ? 1 : static_cast<int32_t>(std::min<int64_t>(fill, kMaxSegments));
  }
  grid.chunks_per_segment = static_cast<int32_t>(ceil_div(chunks_of(s), wanted));
  grid.segments = static_cast<int32_t>(ceil_div(chunks_of(s), grid.chunks_per_segment));
}

inline int64_t blocks_of(const Shape& s, const Grid& grid) {
  const int64_t blocks =
      static_cast<int64_t>(s.batch) * grid.directions * grid.segments * s.groups * grid.blocks_per_group;
  if (blocks > INT32_MAX)
    throw std::runtime_error("triptych: the problem needs more blocks than a GPU launches at once");
  return blocks;
}

inline Segments take_segments(const Shape& s, const Grid& grid, int32_t states, Arena& arena) {
  if (grid.segments == 1) return {};
  const int64_t ends = static_cast<int64_t>(s.batch) * s.directions * grid.segments * s.channels;
  return {arena.take(ends * states), arena.take(ends), states};
}

// How the directions of an image are summed: in planes of their own while these are small, else in turn in one plane.
// Both add in the order of the directions and give the same bits.
struct Planes {
  bool separate = false;
  float* data = nullptr;
};

inline Planes take_planes(const Shape& s, const Choice& choice, char* output, bool io_float, PlaneSums& sums,
                          Arena& arena) {
  Planes planes;
  const int64_t bytes = plane_of(s) * s.directions * static_cast<int64_t>(sizeof(float));
  planes.separate = bytes <= choice.separate_planes && windows_of(s) == 1;
  if (planes.separate) {
    planes.data = arena.take(plane_of(s) * s.directions);
    sums.sums[sums.count++] = {planes.data, output, plane_of(s), plane_of(s), s.directions, false};
  } else {
    planes.data = io_float ? reinterpret_cast<float*>(output) : arena.take(plane_of(s));
  }
  return planes;
}

// ---- forward --------------------------------------------------------------------------------------------------------

struct ForwardCall {
  Problem problem;
  Strided y;
  float *last_state = nullptr, *chunk_states = nullptr;
  bool io_float = true;
  Device device;
  Choice choice;
};

struct ForwardPlan {
  ForwardArgs args;
  Form form = Form::channels;
  int32_t registers = 0;  // see registers_of
  int64_t shared = 0;
  Planes planes;
  PlaneSums sums;
};

inline ForwardPlan plan_forward(const ForwardCall& call, Arena& arena) {
  const Shape& s = call.problem.shape;
  ForwardPlan plan;
  const int32_t states = std::min(s.states, kStates);
  plan.registers = registers_of(s.states);
  plan.form = form_of(s, {&call.problem.u, &call.problem.delta, &call.problem.z, &call.y});
  const auto bytes = [&](int32_t threads) { return forward_shared(plan.form, s.rank, states, threads); };
  ForwardArgs& a = plan.args;
  a.problem = call.problem;
  a.last_state = call.last_state;
  a.chunk_states = call.chunk_states;
  a.y.out = call.y;
  lay_channels(s, call.choice.threads != 0 ? call.choice.threads : choose_threads(call.device, bytes), a.grid);
  plan.shared = bytes(a.grid.threads);
  a.grid.first_direction = 0;
  a.grid.directions = s.directions;
  if (is_image(s)) {
    plan.planes = take_planes(s, call.choice, call.y.data, call.io_float, plan.sums, arena);
    if (!plan.planes.separate) a.grid.directions = 1;
  } else if (windows_of(s) > 1) {
    plan.planes.data = arena.take(plane_of(s));
  }
  cut_segments(s, call.device, call.choice.segments, a.grid);
  a.segments = take_segments(s, a.grid, states, arena);
  a.y.plane = plan.planes.data;
  a.y.per_direction = plan.planes.separate ? plane_of(s) : 0;
  return plan;
}

// ---- backward -------------------------------------------------------------------------------------------------------

struct BackwardCall {
  Problem problem;
  Strided grad_y;
  const float *grad_last = nullptr, *chunk_states = nullptr;
  Strided du, ddelta, dz;
  void *dB = nullptr, *dC = nullptr, *ddts = nullptr;  // of the kernels' I/O type, contiguous
  float *dA = nullptr, *dD = nullptr, *dbias = nullptr, *dweight = nullptr, *dinitial = nullptr;
  bool io_float = true, deterministic = false;
  Device device;
  Choice choice;
};

struct BackwardPlan {
  BackwardArgs args;
  Form form = Form::channels;
  int64_t shared = 0, shared_ends = 0;
  Planes planes;
  float* zeroed = nullptr;  // what atomics add to
  int64_t zeroed_count = 0;
  PlaneSums sums;
};

// A sum of `parts` shares of `size` each for `target`; nothing where there is no target.
inline Share take_share(void* target, bool to_float, int64_t size, int64_t parts, bool deterministic,
                        BackwardPlan& plan, Arena& arena) {
  Share share;
  if (target == nullptr) return share;
  share.atomic = !deterministic && parts > 1;
  if (parts == 1 && to_float) {
    share.data = static_cast<float*>(target);
    return share;
  }
  const int64_t planes = share.atomic ? 1 : parts;
  share.plane = share.atomic ? 0 : size;
  share.data = arena.take(size * planes);
  plan.sums.sums[plan.sums.count++] = {share.data, target, size, size, static_cast<int32_t>(planes), to_float};
  return share;
}

inline void take_shares(const BackwardCall& call, BackwardPlan& plan, Arena& arena) {
  const Shape& s = call.problem.shape;
  BackwardArgs& a = plan.args;
  const int64_t positions = static_cast<int64_t>(s.batch) * s.length * (is_image(s) ? s.directions : s.groups);
  const int64_t rows = static_cast<int64_t>(s.directions) * s.channels;
  const int64_t blocks = a.grid.blocks_per_group, parts = static_cast<int64_t>(s.batch) * a.grid.segments;
  const auto share = [&](void* target, bool to_float, int64_t size, int64_t of) {
    return take_share(target, to_float, size, of, call.deterministic, plan, arena);
  };
  const int64_t before = arena.used;
  plan.zeroed = arena.take(0);
  a.dB = share(call.dB, call.io_float, positions * s.states, blocks);
  a.dC = share(call.dC, call.io_float, positions * s.states, blocks);
  a.ddts = share(call.ddts, call.io_float, positions * s.rank, blocks);
  a.dA = share(call.dA, true, rows * s.states, parts);
  a.dD = share(call.dD, true, rows, parts);
  a.dbias = share(call.dbias, true, rows, parts);
  a.dweight = share(call.dweight, true, rows * s.rank, parts);
  // a few planes that no atomics touch may lie among the others; zeroing them too is harmless
  plan.zeroed_count = call.deterministic ? 0 : arena.used - before;
}

inline BackwardPlan plan_backward(const BackwardCall& call, Arena& arena) {
  const Shape& s = call.problem.shape;
  BackwardPlan plan;
  BackwardArgs& a = plan.args;
  const int32_t states = std::min(s.states, kStates);
  plan.form = form_of(
      s, {&call.problem.u, &call.problem.delta, &call.problem.z, &call.grad_y, &call.du, &call.ddelta, &call.dz});
  const auto bytes = [&](int32_t threads) { return backward_shared(plan.form, s.rank, states, threads, false); };
  a.problem = call.problem;
  a.grad_y = call.grad_y;
  a.grad_last = call.grad_last;
  a.chunk_states = call.chunk_states;
  a.dinitial = call.dinitial;
  a.du.out = call.du;
  a.ddelta.out = call.ddelta;
  a.dz.out = call.dz;
  lay_channels(s, call.choice.threads != 0 ? call.choice.threads : choose_threads(call.device, bytes), a.grid);
  plan.shared = bytes(a.grid.threads);
  plan.shared_ends = backward_shared(plan.form, s.rank, states, a.grid.threads, true);
  a.grid.first_direction = 0;
  a.grid.directions = s.directions;
  if (is_image(s)) {
    plan.planes = take_planes(s, call.choice, call.du.data, call.io_float, plan.sums, arena);
    if (!plan.planes.separate) a.grid.directions = 1;
    a.du.plane = plan.planes.data;
    a.du.per_direction = plan.planes.separate ? plane_of(s) : 0;
  } else if (windows_of(s) > 1) {
    a.du.plane = arena.take(plane_of(s));
    a.ddelta.plane = arena.take(plane_of(s));
    if (call.dz.data != nullptr) a.dz.plane = arena.take(plane_of(s));
  }
  cut_segments(s, call.device, call.choice.segments, a.grid);
  a.segments = take_segments(s, a.grid, states, arena);
  take_shares(call, plan, arena);
  return plan;
}

}  // namespace triptych::cuda
