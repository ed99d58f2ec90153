// The operators of the namespace `triptych` on CUDA, on LibTorch's stable ABI. Their schemas are in ../library.cpp.
//
// Shapes, types and devices are checked with friendly words in Python; what is checked here keeps memory safe when an
// operator is called directly.
#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <initializer_list>
#include <optional>
#include <tuple>

#include "entry.h"

namespace triptych::cuda {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Optional = std::optional<Tensor>;

constexpr int64_t kMostStates = 256;
constexpr int64_t kLongest = int64_t{1} << 27;  // positions of a sequence: their products with a step stay exact

// ---- the device -----------------------------------------------------------------------------------------------------

void check(cudaError_t error, const char* what) {
  STD_TORCH_CHECK(error == cudaSuccess, "triptych: ", what, ": ", cudaGetErrorString(error));
}

// The stream that torch works on. The function lives in the CUDA half of LibTorch, which a CPU-only torch does not have
// and which Python loads without making its symbols global: it is looked for when a CUDA tensor arrives.
Stream current_stream(int32_t device) {
  using Function = AOTITorchError (*)(int32_t, void**);
  static const Function function = [] {
    constexpr const char* kName = "aoti_torch_get_current_cuda_stream";
    void* found = dlsym(RTLD_DEFAULT, kName);
    if (found == nullptr) {
      void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
      if (library != nullptr) found = dlsym(library, kName);
    }
    return reinterpret_cast<Function>(found);
  }();
  STD_TORCH_CHECK(function != nullptr, "triptych: this torch has no CUDA library to ask for its stream");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(function(device, &stream));
  return static_cast<Stream>(stream);
}

// Works on the device of a tensor, whatever the current one is, and on torch's stream there.
class Here {
 public:
  explicit Here(const Tensor& tensor) : index_(tensor.get_device_index()), guard_(index_) {
    // torch has switched the driver's context; this library's own CUDA runtime has to have followed
    int current = -1;
    check(cudaGetDevice(&current), "the current device");
    if (current != index_) check(cudaSetDevice(index_), "the tensor's device");
    device_.processors = attribute(cudaDevAttrMultiProcessorCount);
    device_.shared_per_block = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
    device_.shared_per_processor = attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  }
  const Device& device() const { return device_; }
  Stream stream() const { return current_stream(index_); }

 private:
  int attribute(cudaDeviceAttr which) const {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, which, index_), "an attribute of the device");
    return value;
  }
  int32_t index_;
  torch::stable::accelerator::DeviceGuard guard_;
  Device device_;
};

// ---- tensors --------------------------------------------------------------------------------------------------------

void check_shape(const char* name, const Tensor& t, const Tensor& first, std::initializer_list<int64_t> shape) {
  bool fits = t.is_cuda() && t.get_device_index() == first.get_device_index();
  fits = fits && t.dim() == static_cast<int64_t>(shape.size());
  int64_t axis = 0;
  for (int64_t size : shape) fits = fits && t.size(axis++) == size;
  STD_TORCH_CHECK(fits, "triptych: ", name,
                  " is not a tensor of the first one's GPU and of the shape that goes with the others");
}

int32_t narrow(const char* name, int64_t value) {
  STD_TORCH_CHECK(value >= INT32_MIN && value <= INT32_MAX, "triptych: ", name, " is too large for the CUDA kernels");
  return static_cast<int32_t>(value);
}

// Strides in bytes. A stride along an axis of one element is never used and may be anything.
Strided view(const char* name, const Tensor& t) {
  const int64_t bytes = static_cast<int64_t>(t.element_size()), last = t.dim() - 1;
  const auto stride = [&](int64_t axis) { return t.size(axis) > 1 ? narrow(name, t.stride(axis) * bytes) : 0; };
  Strided s;
  s.data = static_cast<char*>(const_cast<void*>(t.const_data_ptr()));  // kernels never write through an input's
  s.batch = t.stride(0) * bytes;
  s.step = stride(1);
  s.inner = stride(last);
  s.outer = last == 3 ? stride(2) : 0;
  s.by_rows = last == 2 && s.step == bytes && s.inner != bytes;
  return s;
}

Strided input(const char* name, const Tensor& t, const Tensor& first, std::initializer_list<int64_t> shape) {
  check_shape(name, t, first, shape);
  STD_TORCH_CHECK(t.scalar_type() == first.scalar_type(), "triptych: ", name,
                  " must have the dtype of the first input");
  return view(name, t);
}

const float* floats(const char* name, const Tensor& t, const Tensor& first, std::initializer_list<int64_t> shape) {
  check_shape(name, t, first, shape);
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float && t.is_contiguous(), "triptych: ", name,
                  " must be contiguous float32");
  return static_cast<const float*>(t.const_data_ptr());
}

const float* floats(const char* name, const Optional& t, const Tensor& first, std::initializer_list<int64_t> shape) {
  return t ? floats(name, *t, first, shape) : nullptr;
}

Tensor new_floats(const Tensor& like, std::initializer_list<int64_t> shape) {
  return torch::stable::new_empty(like, shape, ScalarType::Float);
}

float* data(const Tensor& t) { return t.numel() > 0 ? static_cast<float*>(t.mutable_data_ptr()) : nullptr; }

// ---- calls ----------------------------------------------------------------------------------------------------------

void run(const ForwardCall& call, ScalarType type, float* workspace, Stream stream) {
  switch (type) {
    case ScalarType::Float: return forward<float>(call, workspace, stream);
    case ScalarType::Half: return forward<Half>(call, workspace, stream);
    default: return forward<BFloat16>(call, workspace, stream);
  }
}

void run(const BackwardCall& call, ScalarType type, float* workspace, Stream stream) {
  switch (type) {
    case ScalarType::Float: return backward<float>(call, workspace, stream);
    case ScalarType::Half: return backward<Half>(call, workspace, stream);
    default: return backward<BFloat16>(call, workspace, stream);
  }
}

// With scratch memory from torch, which keeps it for other work of this stream afterwards.
template <typename Call>
void run(Call& call, const Tensor& like) {
  const Here here(like);
  const ScalarType type = like.scalar_type();
  call.device = here.device();
  call.io_float = type == ScalarType::Float;
  const Tensor workspace = new_floats(like, {workspace_of(call)});
  run(call, type, data(workspace), here.stream());
}

void check_problem(const Problem& q, const Tensor& first) {
  const ScalarType type = first.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Half || type == ScalarType::BFloat16,
                  "triptych: expected float32, float16 or bfloat16");
  STD_TORCH_CHECK(q.shape.states >= 1 && q.shape.states <= kMostStates, "triptych: the CUDA kernels take 1 to ",
                  kMostStates, " states, not ", q.shape.states);
  STD_TORCH_CHECK(q.shape.length <= kLongest, "triptych: the CUDA kernels take sequences of at most ", kLongest,
                  " steps");
}

bool is_empty(const Problem& q) { return plane_of(q.shape) == 0; }

void set_zero(std::initializer_list<Tensor> tensors) {
  for (Tensor t : tensors) torch::stable::zero_(t);
}

// ---- selective scan -------------------------------------------------------------------------------------------------

struct ScanInputs {
  const Tensor &u, &delta, &A, &B, &C;
  const Optional &D, &z, &delta_bias, &initial_state;
  bool softplus;
};

Problem scan_problem(const ScanInputs& in) {
  const Tensor& u = in.u;
  STD_TORCH_CHECK(u.is_cuda() && u.dim() == 3 && in.A.dim() == 2 && in.B.dim() == 4,
                  "triptych: expected u [N, L, D], A [D, S] and B [N, L, G, S] on a GPU");
  const int64_t batch = u.size(0), length = u.size(1), channels = u.size(2), states = in.A.size(1),
                groups = in.B.size(2);
  STD_TORCH_CHECK(groups > 0 && channels % groups == 0, "triptych: the groups of B must divide the channels of u");
  Problem q;
  q.shape = {narrow("the batch", batch),
             narrow("the length", length),
             narrow("the channels", channels),
             narrow("the states", states),
             narrow("the groups", groups),
             1,
             0,
             0,
             0};
  check_problem(q, u);
  q.u = input("u", u, u, {batch, length, channels});
  q.delta = input("delta", in.delta, u, {batch, length, channels});
  if (in.z) q.z = input("z", *in.z, u, {batch, length, channels});
  q.shared[0] = input("B", in.B, u, {batch, length, groups, states});
  q.shared[1] = input("C", in.C, u, {batch, length, groups, states});
  q.A = floats("A", in.A, u, {channels, states});
  q.D = floats("D", in.D, u, {channels});
  q.bias = floats("delta_bias", in.delta_bias, u, {channels});
  q.initial = floats("initial_state", in.initial_state, u, {batch, channels, states});
  q.softplus = in.softplus;
  return q;
}

std::tuple<Tensor, Tensor, Tensor> scan_forward(const ScanInputs& in, bool keep_states) {
  ForwardCall call;
  call.problem = scan_problem(in);
  const Shape& s = call.problem.shape;
  Tensor y = torch::stable::empty_like(in.u);
  Tensor last = new_floats(in.u, {s.batch, s.channels, s.states});
  Tensor states = new_floats(in.u, {keep_states ? s.batch : 0, chunks_of(s), s.channels, s.states});
  if (is_empty(call.problem)) {  // without steps the last state is the first
    if (in.initial_state)
      torch::stable::copy_(last, *in.initial_state);
    else
      torch::stable::zero_(last);
    return {y, last, states};
  }
  call.y = view("y", y);
  call.last_state = data(last);
  call.chunk_states = data(states);
  run(call, in.u);
  return {y, last, states};
}

std::tuple<Tensor, Tensor> selective_scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Optional D, Optional z,
                                          Optional delta_bias, Optional initial_state, bool delta_softplus) {
  auto [y, last, states] = scan_forward({u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus}, false);
  return {y, last};
}

std::tuple<Tensor, Tensor, Tensor> selective_scan_fwd(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Optional D,
                                                      Optional z, Optional delta_bias, Optional initial_state,
                                                      bool delta_softplus) {
  return scan_forward({u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus}, true);
}

using ScanGradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

ScanGradients selective_scan_bwd(Tensor grad_y, Optional grad_last_state, Tensor u, Tensor delta, Tensor A, Tensor B,
                                 Tensor C, Optional D, Optional z, Optional delta_bias, Optional initial_state,
                                 Tensor states, bool delta_softplus, bool deterministic) {
  BackwardCall call;
  call.problem = scan_problem({u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus});
  const Shape& s = call.problem.shape;
  call.grad_y = input("grad_y", grad_y, u, {s.batch, s.length, s.channels});
  call.grad_last = floats("grad_last_state", grad_last_state, u, {s.batch, s.channels, s.states});
  call.chunk_states = floats("states", states, u, {s.batch, chunks_of(s), s.channels, s.states});
  call.deterministic = deterministic;

  const auto none = [&u] { return new_floats(u, {0}); };  // each of its own: no two results may share memory
  Tensor du = torch::stable::empty_like(u), ddelta = torch::stable::empty_like(delta);
  Tensor dz = z ? torch::stable::empty_like(*z) : torch::stable::new_empty(u, {0});
  Tensor dA = new_floats(u, {s.channels, s.states});
  Tensor dB = torch::stable::new_empty(B, {s.batch, s.length, s.groups, s.states});
  Tensor dC = torch::stable::new_empty(C, {s.batch, s.length, s.groups, s.states});
  Tensor dD = D ? new_floats(u, {s.channels}) : none();
  Tensor dbias = delta_bias ? new_floats(u, {s.channels}) : none();
  Tensor dinitial = initial_state ? new_floats(u, {s.batch, s.channels, s.states}) : none();
  if (is_empty(call.problem)) {
    set_zero({du, ddelta, dA, dB, dC, dD, dz, dbias, dinitial});
    if (initial_state && grad_last_state) torch::stable::copy_(dinitial, *grad_last_state);
    return {du, ddelta, dA, dB, dC, dD, dz, dbias, dinitial};
  }
  call.du = view("the gradient of u", du);
  call.ddelta = view("the gradient of delta", ddelta);
  if (z) call.dz = view("the gradient of z", dz);
  call.dA = data(dA);
  call.dB = data(dB);
  call.dC = data(dC);
  call.dD = data(dD);
  call.dbias = data(dbias);
  call.dinitial = data(dinitial);
  run(call, u);
  return {du, ddelta, dA, dB, dC, dD, dz, dbias, dinitial};
}

// ---- four-direction scan of an image --------------------------------------------------------------------------------

struct ImageInputs {
  const Tensor &x, &dts, &dt_weight, &dt_bias, &A, &B, &C, &D;
  int64_t height, width;
};

Problem image_problem(const ImageInputs& in) {
  const Tensor& x = in.x;
  STD_TORCH_CHECK(x.is_cuda() && x.dim() == 3 && in.dts.dim() == 4 && in.A.dim() == 3,
                  "triptych: expected x [N, H W, D], dts [N, H W, K, R] and A [K, D, S] on a GPU");
  const int64_t batch = x.size(0), length = x.size(1), channels = x.size(2), states = in.A.size(2),
                rank = in.dts.size(3);
  constexpr int64_t K = kDirections;
  STD_TORCH_CHECK(in.height >= 0 && in.width >= 0 && (in.width == 0 || in.height <= kLongest / in.width) &&
                      length == in.height * in.width,
                  "triptych: x must have height x width positions");
  Problem q;
  q.shape = {narrow("the batch", batch),
             narrow("the length", length),
             narrow("the channels", channels),
             narrow("the states", states),
             1,
             kDirections,
             narrow("the height", in.height),
             narrow("the width", in.width),
             narrow("the rank", rank)};
  check_problem(q, x);
  q.u = input("x", x, x, {batch, length, channels});
  q.shared[0] = input("B", in.B, x, {batch, length, K, states});
  q.shared[1] = input("C", in.C, x, {batch, length, K, states});
  q.shared[2] = input("dts", in.dts, x, {batch, length, K, rank});
  q.dt_weight = floats("dt_weight", in.dt_weight, x, {K, channels, rank});
  q.bias = floats("dt_bias", in.dt_bias, x, {K, channels});
  q.A = floats("A", in.A, x, {K, channels, states});
  q.D = floats("D", in.D, x, {K, channels});
  q.softplus = true;
  return q;
}

std::tuple<Tensor, Tensor> image_forward(const ImageInputs& in, bool keep_states) {
  ForwardCall call;
  call.problem = image_problem(in);
  const Shape& s = call.problem.shape;
  Tensor y = torch::stable::new_empty(in.x, {s.batch, s.length, s.channels});
  Tensor states = new_floats(in.x, {keep_states ? s.batch : 0, kDirections, chunks_of(s), s.channels, s.states});
  if (is_empty(call.problem)) return {y, states};
  call.y = view("y", y);
  call.chunk_states = data(states);
  run(call, in.x);
  return {y, states};
}

Tensor ss2d(Tensor x, Tensor dts, Tensor dt_weight, Tensor dt_bias, Tensor A, Tensor B, Tensor C, Tensor D,
            int64_t height, int64_t width) {
  return std::get<0>(image_forward({x, dts, dt_weight, dt_bias, A, B, C, D, height, width}, false));
}

std::tuple<Tensor, Tensor> ss2d_fwd(Tensor x, Tensor dts, Tensor dt_weight, Tensor dt_bias, Tensor A, Tensor B,
                                    Tensor C, Tensor D, int64_t height, int64_t width) {
  return image_forward({x, dts, dt_weight, dt_bias, A, B, C, D, height, width}, true);
}

using ImageGradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

ImageGradients ss2d_bwd(Tensor grad_y, Tensor x, Tensor dts, Tensor dt_weight, Tensor dt_bias, Tensor A, Tensor B,
                        Tensor C, Tensor D, Tensor states, int64_t height, int64_t width, bool deterministic) {
  BackwardCall call;
  call.problem = image_problem({x, dts, dt_weight, dt_bias, A, B, C, D, height, width});
  const Shape& s = call.problem.shape;
  constexpr int64_t K = kDirections;
  call.grad_y = input("grad_y", grad_y, x, {s.batch, s.length, s.channels});
  call.chunk_states = floats("states", states, x, {s.batch, K, chunks_of(s), s.channels, s.states});
  call.deterministic = deterministic;

  Tensor dx = torch::stable::new_empty(x, {s.batch, s.length, s.channels});
  Tensor ddts = torch::stable::new_empty(dts, {s.batch, s.length, K, s.rank});
  Tensor dweight = new_floats(x, {K, s.channels, s.rank});
  Tensor dbias = new_floats(x, {K, s.channels});
  Tensor dA = new_floats(x, {K, s.channels, s.states});
  Tensor dB = torch::stable::new_empty(B, {s.batch, s.length, K, s.states});
  Tensor dC = torch::stable::new_empty(C, {s.batch, s.length, K, s.states});
  Tensor dD = new_floats(x, {K, s.channels});
  if (is_empty(call.problem)) {
    set_zero({dx, ddts, dweight, dbias, dA, dB, dC, dD});
    return {dx, ddts, dweight, dbias, dA, dB, dC, dD};
  }
  call.du = view("the gradient of x", dx);
  call.ddts = data(ddts);
  call.dweight = data(dweight);
  call.dbias = data(dbias);
  call.dA = data(dA);
  call.dB = data(dB);
  call.dC = data(dC);
  call.dD = data(dD);
  run(call, x);
  return {dx, ddts, dweight, dbias, dA, dB, dC, dD};
}

}  // namespace
}  // namespace triptych::cuda

STABLE_TORCH_LIBRARY_IMPL(triptych, CUDA, m) {
  using namespace triptych::cuda;
  m.impl("selective_scan", TORCH_BOX(&selective_scan));
  m.impl("selective_scan_fwd", TORCH_BOX(&selective_scan_fwd));
  m.impl("selective_scan_bwd", TORCH_BOX(&selective_scan_bwd));
  m.impl("ss2d", TORCH_BOX(&ss2d));
  m.impl("ss2d_fwd", TORCH_BOX(&ss2d_fwd));
  m.impl("ss2d_bwd", TORCH_BOX(&ss2d_bwd));
}
