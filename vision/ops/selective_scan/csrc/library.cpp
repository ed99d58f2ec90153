// The operators of the namespace `triptych`, on LibTorch's stable ABI: schemas, and what runs on the CPU.
//
// Shapes, types and devices are checked with friendly words in Python; what is checked here keeps memory safe when an
// operator is called directly.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <string>
#include <tuple>

#include "cpu/dispatch.h"
#include "cpu/kernels.h"

namespace triptych::cpu {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Optional = std::optional<Tensor>;

// ---- checks ---------------------------------------------------------------------------------------------------------

Dtype dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return Dtype::f32;
    case ScalarType::Half: return Dtype::f16;
    case ScalarType::BFloat16: return Dtype::bf16;
    default: STD_TORCH_CHECK(false, "triptych: expected float32, float16 or bfloat16");
  }
}

void check_shape(const char* name, const Tensor& t, std::initializer_list<int64_t> shape) {
  bool fits = t.is_cpu() && t.dim() == static_cast<int64_t>(shape.size());
  int64_t axis = 0;
  for (int64_t size : shape) fits = fits && t.size(axis++) == size;
  STD_TORCH_CHECK(fits, "triptych: ", name, " is not a CPU tensor of the shape that goes with the others");
}

const float* floats(const char* name, const Tensor& t, std::initializer_list<int64_t> shape) {
  check_shape(name, t, shape);
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float && t.is_contiguous(),
                  "triptych: ", name, " must be contiguous float32");
  return static_cast<const float*>(t.const_data_ptr());
}

const float* floats(const char* name, const Optional& t, std::initializer_list<int64_t> shape) {
  return t ? floats(name, *t, shape) : nullptr;
}

Strided strided(const char* name, const Tensor& t, Dtype dtype, std::initializer_list<int64_t> shape) {
  check_shape(name, t, shape);
  STD_TORCH_CHECK(dtype_of(t) == dtype, "triptych: ", name, " must have the dtype of the first input");
  const int64_t last = t.dim() - 1;
  // Kernels never write through the pointer of an input.
  void* data = const_cast<void*>(t.const_data_ptr());
  return {data, t.stride(0), t.stride(1), last == 3 ? t.stride(2) : 0, t.stride(last)};
}

Strided strided(const char* name, const Optional& t, Dtype dtype, std::initializer_list<int64_t> shape) {
  return t ? strided(name, *t, dtype, shape) : Strided{};
}

// B or C with the states side by side: kernels read each number many times, so that a copy pays.
Tensor states_together(const Tensor& t) {
  const bool spread = t.dim() == 4 && t.size(3) > 1 && t.stride(3) != 1;
  return spread ? torch::stable::contiguous(t) : t;
}

Strided output(const Tensor& t) {
  return {t.mutable_data_ptr(), t.stride(0), t.stride(1), t.dim() == 4 ? t.stride(2) : 0, t.stride(t.dim() - 1)};
}

// ---- memory and threads ---------------------------------------------------------------------------------------------

Tensor new_floats(const Tensor& like, std::initializer_list<int64_t> shape) {
  return torch::stable::new_empty(like, shape, ScalarType::Float);
}

float* data(const Tensor& t) { return static_cast<float*>(t.mutable_data_ptr()); }

template <class Task>
void run(void (*kernel)(const Task&, int64_t, int64_t), const Task& task) {
  const int64_t count = tasks(task);
  if (count == 0) return;
  torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) { kernel(task, begin, end); });
}

// Adds parts [parts, ...] in their order into a tensor of the remaining shape and the wanted dtype.
Tensor add_parts(const Tensor& parts, const Tensor& like, std::initializer_list<int64_t> shape, Dtype dtype) {
  const int64_t count = parts.size(0);
  Tensor total = new_floats(like, shape);
  const int64_t size = total.numel();
  const float* source = data(parts);
  float* sum = data(total);
  torch::stable::parallel_for(0, size, 16384, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) sum[i] = count > 0 ? source[i] : 0.0f;
    for (int64_t part = 1; part < count; ++part) {
      const float* row = source + part * size;
      for (int64_t i = begin; i < end; ++i) sum[i] += row[i];
    }
  });
  if (dtype == Dtype::f32) return total;
  return torch::stable::to(total, dtype == Dtype::f16 ? ScalarType::Half : ScalarType::BFloat16);
}

// How many tasks the channels of one batch element and group are split into for a backward pass: by shape alone, so
// that sums are made in the same order whatever the number of threads.
int64_t splits_of(int64_t outer, int64_t channels) {
  constexpr int64_t kTasks = 16;
  const int64_t wanted = outer > 0 ? (kTasks + outer - 1) / outer : 1;
  const int64_t most = blocks(channels);
  return wanted < most ? wanted : (most > 0 ? most : 1);
}

// ---- selective scan -------------------------------------------------------------------------------------------------

template <class Task>
Task scan_task(const Tensor& u, const Tensor& delta, const Tensor& A, const Tensor& B, const Tensor& C,
               const Optional& D, const Optional& z, const Optional& delta_bias, const Optional& initial_state,
               bool delta_softplus) {
  STD_TORCH_CHECK(u.dim() == 3 && A.dim() == 2 && B.dim() == 4, "triptych: expected u [N, L, D], A [D, S], B [N, L, G, S]");
  Task s;
  s.dtype = dtype_of(u);
  s.batch = u.size(0);
  s.length = u.size(1);
  s.channels = u.size(2);
  s.states = A.size(1);
  s.groups = B.size(2);
  s.softplus = delta_softplus;
  STD_TORCH_CHECK(s.groups > 0 && s.channels % s.groups == 0, "triptych: the groups of B must divide the channels of u");
  s.u = strided("u", u, s.dtype, {s.batch, s.length, s.channels});
  s.delta = strided("delta", delta, s.dtype, {s.batch, s.length, s.channels});
  s.z = strided("z", z, s.dtype, {s.batch, s.length, s.channels});
  s.B = strided("B", B, s.dtype, {s.batch, s.length, s.groups, s.states});
  s.C = strided("C", C, s.dtype, {s.batch, s.length, s.groups, s.states});
  s.A = floats("A", A, {s.channels, s.states});
  s.D = floats("D", D, {s.channels});
  s.bias = floats("delta_bias", delta_bias, {s.channels});
  s.initial = floats("initial_state", initial_state, {s.batch, s.channels, s.states});
  return s;
}

std::tuple<Tensor, Tensor, Tensor> scan_forward(const Tensor& u, ScanForward s, bool keep_chunks) {
  Tensor y = torch::stable::empty_like(u);
  Tensor last = new_floats(u, {s.batch, s.channels, s.states});
  Tensor states = keep_chunks ? new_floats(u, {s.batch, chunks(s.length), s.channels, s.states}) : Tensor();
  s.y = output(y);
  s.last_state = data(last);
  s.chunk_states = keep_chunks ? data(states) : nullptr;
  run(kernels().scan_forward, s);
  return {y, last, states};
}

std::tuple<Tensor, Tensor> selective_scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Optional D, Optional z,
                                          Optional delta_bias, Optional initial_state, bool delta_softplus) {
  B = states_together(B);
  C = states_together(C);
  auto task = scan_task<ScanForward>(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus);
  auto [y, last, states] = scan_forward(u, task, false);
  return {y, last};
}

std::tuple<Tensor, Tensor, Tensor> selective_scan_fwd(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Optional D,
                                                      Optional z, Optional delta_bias, Optional initial_state,
                                                      bool delta_softplus) {
  B = states_together(B);
  C = states_together(C);
  auto task = scan_task<ScanForward>(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus);
  return scan_forward(u, task, true);
}

using ScanGradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

ScanGradients selective_scan_bwd(Tensor grad_y, Optional grad_last_state, Tensor u, Tensor delta, Tensor A, Tensor B,
                                 Tensor C, Optional D, Optional z, Optional delta_bias, Optional initial_state,
                                 Tensor states, bool delta_softplus, bool) {
  B = states_together(B);
  C = states_together(C);
  auto s = scan_task<ScanBackward>(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus);
  s.grad_y = strided("grad_y", grad_y, s.dtype, {s.batch, s.length, s.channels});
  s.grad_last_state = floats("grad_last_state", grad_last_state, {s.batch, s.channels, s.states});
  s.chunk_states = floats("states", states, {s.batch, chunks(s.length), s.channels, s.states});
  s.splits = splits_of(s.batch * s.groups, s.channels / s.groups);

  const auto none = [&u] { return new_floats(u, {0}); };  // each of its own: no two results may share memory
  Tensor grad_u = torch::stable::empty_like(u), grad_delta = torch::stable::empty_like(delta);
  Tensor grad_z = z ? torch::stable::empty_like(*z) : torch::stable::new_empty(u, {0});
  Tensor part_B = new_floats(u, {s.splits, s.batch, s.length, s.groups, s.states});
  Tensor part_C = new_floats(u, {s.splits, s.batch, s.length, s.groups, s.states});
  Tensor part_A = new_floats(u, {s.batch, s.channels, s.states});
  Tensor part_D = D ? new_floats(u, {s.batch, s.channels}) : none();
  Tensor part_bias = delta_bias ? new_floats(u, {s.batch, s.channels}) : none();
  Tensor grad_initial = initial_state ? new_floats(u, {s.batch, s.channels, s.states}) : none();
  s.grad_u = output(grad_u);
  s.grad_delta = output(grad_delta);
  s.grad_z = z ? output(grad_z) : Strided{};
  s.grad_B = data(part_B);
  s.grad_C = data(part_C);
  s.grad_A = data(part_A);
  s.grad_D = D ? data(part_D) : nullptr;
  s.grad_bias = delta_bias ? data(part_bias) : nullptr;
  s.grad_initial = initial_state ? data(grad_initial) : nullptr;
  run(kernels().scan_backward, s);

  const auto like_B = {s.batch, s.length, s.groups, s.states};
  return {grad_u,
          grad_delta,
          add_parts(part_A, u, {s.channels, s.states}, Dtype::f32),
          add_parts(part_B, u, like_B, s.dtype),
          add_parts(part_C, u, like_B, s.dtype),
          D ? add_parts(part_D, u, {s.channels}, Dtype::f32) : none(),
          grad_z,
          delta_bias ? add_parts(part_bias, u, {s.channels}, Dtype::f32) : none(),
          grad_initial};
}

// ---- four-direction scan of an image --------------------------------------------------------------------------------

template <class Task>
Task image_task(const Tensor& x, const Tensor& dts, const Tensor& dt_weight, const Tensor& dt_bias, const Tensor& A,
                const Tensor& B, const Tensor& C, const Tensor& D, int64_t height, int64_t width) {
  STD_TORCH_CHECK(x.dim() == 3 && dts.dim() == 4 && A.dim() == 3, "triptych: expected x [N, H W, D], dts [N, H W, K, R], A [K, D, S]");
  Task s;
  s.dtype = dtype_of(x);
  s.batch = x.size(0);
  s.height = height;
  s.width = width;
  s.channels = x.size(2);
  s.states = A.size(2);
  s.rank = dts.size(3);
  const int64_t length = height * width, K = kDirections;
  STD_TORCH_CHECK(height >= 0 && width >= 0, "triptych: height and width must not be negative");
  s.x = strided("x", x, s.dtype, {s.batch, length, s.channels});
  STD_TORCH_CHECK(s.x.inner == 1 || s.channels <= 1, "triptych: the channels of x must be contiguous");
  s.dts = strided("dts", dts, s.dtype, {s.batch, length, K, s.rank});
  s.B = strided("B", B, s.dtype, {s.batch, length, K, s.states});
  s.C = strided("C", C, s.dtype, {s.batch, length, K, s.states});
  s.dt_weight = floats("dt_weight", dt_weight, {K, s.channels, s.rank});
  s.dt_bias = floats("dt_bias", dt_bias, {K, s.channels});
  s.A = floats("A", A, {K, s.channels, s.states});
  s.D = floats("D", D, {K, s.channels});
  return s;
}

Tensor image_forward(const Tensor& x, ImageForward s, float* chunk_states) {
  // As many channels together as stay in the second-level cache with their outputs, and a task for every thread.
  constexpr int64_t kCache = 512 * 1024, kBytes = 2 * sizeof(float) * kBlock;
  const int64_t all = blocks(s.channels), fitting = 1 + kCache / (kBytes * (s.height * s.width + 1));
  const int64_t threads = torch::stable::get_num_threads();
  s.splits = std::max((all + fitting - 1) / fitting, (threads + s.batch - 1) / std::max<int64_t>(s.batch, 1));
  s.splits = std::max<int64_t>(1, std::min(s.splits, all));
  Tensor y = torch::stable::new_empty(x, {s.batch, s.height * s.width, s.channels});
  s.y = output(y);
  s.chunk_states = chunk_states;
  run(kernels().image_forward, s);
  return y;
}

Tensor ss2d(Tensor x, Tensor dts, Tensor dt_weight, Tensor dt_bias, Tensor A, Tensor B, Tensor C, Tensor D,
            int64_t height, int64_t width) {
  return image_forward(x, image_task<ImageForward>(x, dts, dt_weight, dt_bias, A, B, C, D, height, width), nullptr);
}

std::tuple<Tensor, Tensor> ss2d_fwd(Tensor x, Tensor dts, Tensor dt_weight, Tensor dt_bias, Tensor A, Tensor B,
                                    Tensor C, Tensor D, int64_t height, int64_t width) {
  auto s = image_task<ImageForward>(x, dts, dt_weight, dt_bias, A, B, C, D, height, width);
  Tensor states = new_floats(x, {s.batch, kDirections, chunks(height * width), s.channels, s.states});
  return {image_forward(x, s, data(states)), states};
}

using ImageGradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

ImageGradients ss2d_bwd(Tensor grad_y, Tensor x, Tensor dts, Tensor dt_weight, Tensor dt_bias, Tensor A, Tensor B,
                        Tensor C, Tensor D, Tensor states, int64_t height, int64_t width, bool) {
  auto s = image_task<ImageBackward>(x, dts, dt_weight, dt_bias, A, B, C, D, height, width);
  const int64_t length = height * width, K = kDirections;
  s.grad_y = strided("grad_y", grad_y, s.dtype, {s.batch, length, s.channels});
  STD_TORCH_CHECK(s.grad_y.inner == 1 || s.channels <= 1, "triptych: the channels of grad_y must be contiguous");
  s.chunk_states = floats("states", states, {s.batch, K, chunks(length), s.channels, s.states});
  s.splits = splits_of(s.batch, s.channels);

  Tensor grad_x = torch::stable::new_empty(x, {s.batch, length, s.channels});
  Tensor part_dts = new_floats(x, {s.splits, s.batch, length, K, s.rank});
  Tensor part_B = new_floats(x, {s.splits, s.batch, length, K, s.states});
  Tensor part_C = new_floats(x, {s.splits, s.batch, length, K, s.states});
  Tensor part_weight = new_floats(x, {s.batch, K, s.channels, s.rank});
  Tensor part_bias = new_floats(x, {s.batch, K, s.channels});
  Tensor part_A = new_floats(x, {s.batch, K, s.channels, s.states});
  Tensor part_D = new_floats(x, {s.batch, s.channels});
  s.grad_x = output(grad_x);
  s.grad_dts = data(part_dts);
  s.grad_B = data(part_B);
  s.grad_C = data(part_C);
  s.grad_weight = data(part_weight);
  s.grad_bias = data(part_bias);
  s.grad_A = data(part_A);
  s.grad_D = data(part_D);
  run(kernels().image_backward, s);

  const Tensor total_D = add_parts(part_D, x, {s.channels}, Dtype::f32);
  Tensor grad_D = new_floats(x, {K, s.channels});
  for (int64_t i = 0; i < K * s.channels; ++i) data(grad_D)[i] = data(total_D)[i % s.channels];
  return {grad_x,
          add_parts(part_dts, x, {s.batch, length, K, s.rank}, s.dtype),
          add_parts(part_weight, x, {K, s.channels, s.rank}, Dtype::f32),
          add_parts(part_bias, x, {K, s.channels}, Dtype::f32),
          add_parts(part_A, x, {K, s.channels, s.states}, Dtype::f32),
          add_parts(part_B, x, {s.batch, length, K, s.states}, s.dtype),
          add_parts(part_C, x, {s.batch, length, K, s.states}, s.dtype),
          grad_D};
}

// ---- which instruction set ------------------------------------------------------------------------------------------

std::string cpu_isa() { return kernels().name; }

std::string set_cpu_isa(std::string name) {
  const std::string before = kernels().name;
  choose(name);
  return before;
}

}  // namespace
}  // namespace triptych::cpu

STABLE_TORCH_LIBRARY(triptych, m) {
  m.def(
      "selective_scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
      "Tensor? initial_state, bool delta_softplus) -> (Tensor y, Tensor last_state)");
  m.def(
      "selective_scan_fwd(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, "
      "Tensor? delta_bias, Tensor? initial_state, bool delta_softplus) -> (Tensor y, Tensor last_state, Tensor states)");
  m.def(
      "selective_scan_bwd(Tensor grad_y, Tensor? grad_last_state, Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, "
      "Tensor? D, Tensor? z, Tensor? delta_bias, Tensor? initial_state, Tensor states, bool delta_softplus, "
      "bool deterministic) -> (Tensor du, Tensor ddelta, Tensor dA, Tensor dB, Tensor dC, Tensor dD, Tensor dz, "
      "Tensor ddelta_bias, Tensor dinitial_state)");
  m.def(
      "ss2d(Tensor x, Tensor dts, Tensor dt_weight, Tensor dt_bias, Tensor A, Tensor B, Tensor C, Tensor D, "
      "SymInt height, SymInt width) -> Tensor y");
  m.def(
      "ss2d_fwd(Tensor x, Tensor dts, Tensor dt_weight, Tensor dt_bias, Tensor A, Tensor B, Tensor C, Tensor D, "
      "SymInt height, SymInt width) -> (Tensor y, Tensor states)");
  m.def(
      "ss2d_bwd(Tensor grad_y, Tensor x, Tensor dts, Tensor dt_weight, Tensor dt_bias, Tensor A, Tensor B, Tensor C, "
      "Tensor D, Tensor states, SymInt height, SymInt width, bool deterministic) -> (Tensor dx, Tensor ddts, "
      "Tensor ddt_weight, Tensor ddt_bias, Tensor dA, Tensor dB, Tensor dC, Tensor dD)");
  m.def("cpu_isa() -> str");
  m.def("set_cpu_isa(str name) -> str");
}

STABLE_TORCH_LIBRARY_IMPL(triptych, CPU, m) {
  using namespace triptych::cpu;
  m.impl("selective_scan", TORCH_BOX(&selective_scan));
  m.impl("selective_scan_fwd", TORCH_BOX(&selective_scan_fwd));
  m.impl("selective_scan_bwd", TORCH_BOX(&selective_scan_bwd));
  m.impl("ss2d", TORCH_BOX(&ss2d));
  m.impl("ss2d_fwd", TORCH_BOX(&ss2d_fwd));
  m.impl("ss2d_bwd", TORCH_BOX(&ss2d_bwd));
}

STABLE_TORCH_LIBRARY_IMPL(triptych, CompositeExplicitAutograd, m) {
  using namespace triptych::cpu;
  m.impl("cpu_isa", TORCH_BOX(&cpu_isa));
  m.impl("set_cpu_isa", TORCH_BOX(&set_cpu_isa));
}
