// Runs the kernels' launchers over the emulator on the cases of a file and writes what comes out.
//
//   driver CASES RESULTS [BARRIER]
//
// BARRIER does nothing then; the names of the barriers that were reached go to the standard output.
//
// The format of both files, all little-endian: an int64 count of cases; a case is a kind, an int64 count of options
// (name, int64), an int64 count of tensors. A string is an int64 length and its bytes. A tensor is a name, a dtype (f,
// h, b), an int64 count of axes, sizes, strides in elements, and its values, compact.
#include <fstream>
#include <iostream>
#include <map>
#include <stdexcept>

#include "launch.cuh"

namespace {

using namespace triptych::cuda;

struct Tensor {
  char dtype = 'f';
  std::vector<int64_t> sizes, strides;
  std::shared_ptr<char> memory;

  int64_t width() const { return dtype == 'f' ? 4 : 2; }
  int64_t count() const { return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<int64_t>()); }
  float* floats() const { return reinterpret_cast<float*>(memory.get()); }
};

// Memory for a tensor, full of NaN. One that spans gigabytes by its strides takes only the pages that are touched.
Tensor allocate(char dtype, std::vector<int64_t> sizes, std::vector<int64_t> strides = {}) {
  Tensor t{dtype, std::move(sizes), std::move(strides), nullptr};
  if (t.strides.empty()) {
    t.strides.assign(t.sizes.size(), 1);
    for (size_t i = t.sizes.size(); i-- > 1;) t.strides[i - 1] = t.strides[i] * t.sizes[i];
  }
  int64_t extent = 1;
  for (size_t i = 0; i < t.sizes.size(); ++i) extent += (t.sizes[i] - 1) * t.strides[i];
  const auto bytes = static_cast<size_t>(t.count() == 0 ? 1 : extent * t.width());
  if (bytes > (size_t{1} << 28)) {
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) throw std::runtime_error("no memory for a tensor");
    t.memory = std::shared_ptr<char>(static_cast<char*>(at), [bytes](char* p) { munmap(p, bytes); });
  } else {
    t.memory = std::shared_ptr<char>(new char[bytes], std::default_delete<char[]>());
    std::memset(t.memory.get(), 0xff, bytes);
  }
  return t;
}

Tensor like(const Tensor& t) { return allocate(t.dtype, t.sizes, t.strides); }

template <typename Visit>
void each(const Tensor& t, Visit visit) {
  std::vector<int64_t> at(t.sizes.size(), 0);
  for (int64_t i = 0, count = t.count(); i < count; ++i) {
    int64_t offset = 0;
    for (size_t axis = 0; axis < at.size(); ++axis) offset += at[axis] * t.strides[axis];
    visit(t.memory.get() + offset * t.width());
    for (size_t axis = at.size(); axis-- > 0;) {
      if (++at[axis] < t.sizes[axis]) break;
      at[axis] = 0;
    }
  }
}

// ---- files ----------------------------------------------------------------------------------------------------------

struct Case {
  std::string kind;
  std::map<std::string, int64_t> options;
  std::map<std::string, Tensor> tensors;

  int64_t option(const std::string& name, int64_t otherwise) const {
    const auto found = options.find(name);
    return found == options.end() ? otherwise : found->second;
  }
  const Tensor* find(const std::string& name) const {
    const auto found = tensors.find(name);
    return found == tensors.end() ? nullptr : &found->second;
  }
  const Tensor& at(const std::string& name) const { return tensors.at(name); }
};

int64_t read_int(std::istream& in) {
  int64_t value = 0;
  in.read(reinterpret_cast<char*>(&value), 8);
  if (!in) throw std::runtime_error("the file of cases ends early");
  return value;
}

std::string read_string(std::istream& in) {
  std::string text(static_cast<size_t>(read_int(in)), ' ');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  return text;
}

Tensor read_tensor(std::istream& in) {
  const char dtype = read_string(in)[0];
  std::vector<int64_t> sizes(static_cast<size_t>(read_int(in)));
  std::vector<int64_t> strides(sizes.size());
  for (int64_t& size : sizes) size = read_int(in);
  for (int64_t& stride : strides) stride = read_int(in);
  Tensor t = allocate(dtype, sizes, strides);
  each(t, [&](char* at) { in.read(at, t.width()); });
  return t;
}

Case read_case(std::istream& in) {
  Case c;
  c.kind = read_string(in);
  for (int64_t i = read_int(in); i > 0; --i) {
    const std::string name = read_string(in);
    c.options[name] = read_int(in);
  }
  for (int64_t i = read_int(in); i > 0; --i) {
    const std::string name = read_string(in);
    c.tensors.emplace(name, read_tensor(in));
  }
  return c;
}

void write_int(std::ostream& out, int64_t value) { out.write(reinterpret_cast<const char*>(&value), 8); }

void write_string(std::ostream& out, const std::string& text) {
  write_int(out, static_cast<int64_t>(text.size()));
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
}

void write_results(std::ostream& out, const std::map<std::string, Tensor>& results) {
  write_int(out, static_cast<int64_t>(results.size()));
  for (const auto& [name, t] : results) {
    write_string(out, name);
    write_string(out, std::string(1, t.dtype));
    write_int(out, static_cast<int64_t>(t.sizes.size()));
    for (int64_t size : t.sizes) write_int(out, size);
    each(t, [&](const char* at) { out.write(at, t.width()); });
  }
}

// ---- the problem ----------------------------------------------------------------------------------------------------

Strided strided(const Tensor* t) {
  if (t == nullptr) return {};
  Strided s;
  const size_t last = t->sizes.size() - 1;
  const auto bytes = [&](size_t axis) { return static_cast<int32_t>(t->strides[axis] * t->width()); };
  s.data = t->memory.get();
  s.batch = t->strides[0] * t->width();
  s.step = bytes(1);
  s.inner = bytes(last);
  s.outer = last == 3 ? bytes(2) : 0;
  s.by_rows = last == 2 && t->strides[1] == 1 && t->strides[last] != 1;
  return s;
}

const float* floats(const Tensor* t) { return t == nullptr ? nullptr : t->floats(); }

int32_t narrow(int64_t value) { return static_cast<int32_t>(value); }

struct Names {
  const char *u, *delta, *A, *D, *bias;
};
const Names kScan{"u", "delta", "A", "D", "delta_bias"}, kImage{"x", "dts", "A", "D", "dt_bias"};

Problem problem_of(const Case& c) {
  const bool image = c.kind == "ss2d";
  const Names& names = image ? kImage : kScan;
  const Tensor &u = c.at(names.u), &B = c.at("B"), &A = c.at("A");
  Problem q;
  q.shape = {narrow(u.sizes[0]),
             narrow(u.sizes[1]),
             narrow(u.sizes[2]),
             narrow(A.sizes.back()),
             narrow(B.sizes[2]),
             1,
             0,
             0,
             0};
  q.u = strided(&u);
  q.shared[0] = strided(&B);
  q.shared[1] = strided(&c.at("C"));
  q.A = A.floats();
  q.D = floats(c.find(names.D));
  q.bias = floats(c.find(names.bias));
  if (image) {
    q.shape.groups = 1;
    q.shape.directions = narrow(B.sizes[2]);
    q.shape.height = narrow(c.option("height", 0));
    q.shape.width = narrow(c.option("width", 0));
    q.shape.rank = narrow(c.at("dts").sizes[3]);
    q.shared[2] = strided(&c.at("dts"));
    q.dt_weight = c.at("dt_weight").floats();
    q.softplus = true;
  } else {
    q.delta = strided(&c.at("delta"));
    q.z = strided(c.find("z"));
    q.initial = floats(c.find("initial_state"));
    q.softplus = c.option("softplus", 0) != 0;
  }
  return q;
}

template <typename Call>
void choose(const Case& c, Call& call) {
  call.io_float = c.at(c.kind == "ss2d" ? "x" : "u").dtype == 'f';
  call.device.processors = narrow(c.option("processors", 1));
  call.device.shared_per_block = c.option("shared_per_block", 99 * 1024);
  call.choice.threads = narrow(c.option("threads", 0));
  call.choice.segments = narrow(c.option("segments", 1));
  call.choice.separate_planes = c.option("separate_planes", 1 << 20);
}

// Scratch memory, and NaN in it, so that nothing relies on what it held.
std::vector<float> scratch(int64_t count) { return std::vector<float>(static_cast<size_t>(count), std::nanf("")); }

using Results = std::map<std::string, Tensor>;

template <typename IO>
void run_forward_case(const Case& c, Results& results) {
  ForwardCall call;
  call.problem = problem_of(c);
  choose(c, call);
  const Shape& s = call.problem.shape;
  const Tensor y = results["y"] = like(c.at(c.kind == "ss2d" ? "x" : "u"));
  call.y = strided(&y);
  const int64_t chunks = chunks_of(s);
  if (c.kind == "ss2d") {
    results["states"] = allocate('f', {s.batch, s.directions, chunks, s.channels, s.states});
  } else {
    results["last_state"] = allocate('f', {s.batch, s.channels, s.states});
    results["states"] = allocate('f', {s.batch, chunks, s.channels, s.states});
    call.last_state = results["last_state"].floats();
  }
  if (c.option("keep_states", 1) != 0) call.chunk_states = results["states"].floats();
  std::vector<float> memory = scratch(workspace_of(call));
  forward<IO>(call, memory.data(), 0);
}

template <typename IO>
void run_backward_case(const Case& c, Results& results) {
  BackwardCall call;
  call.problem = problem_of(c);
  choose(c, call);
  call.deterministic = c.option("deterministic", 0) != 0;
  const bool image = c.kind == "ss2d";
  const auto result = [&](const char* name, const Tensor* shape) -> float* {
    if (shape == nullptr) return nullptr;
    return (results[name] = allocate(shape->dtype, shape->sizes)).floats();
  };
  const auto view = [&](const char* name, const Tensor* shape) -> Strided {
    if (shape == nullptr) return {};
    return strided(&(results[name] = like(*shape)));
  };
  call.grad_y = strided(&c.at("grad_y"));
  call.grad_last = floats(c.find("grad_last_state"));
  call.chunk_states = results["states"].floats();
  call.du = view(image ? "dx" : "du", &c.at(image ? "x" : "u"));
  if (!image) {
    call.ddelta = view("ddelta", &c.at("delta"));
    call.dz = view("dz", c.find("z"));
  }
  call.dB = result("dB", &c.at("B"));
  call.dC = result("dC", &c.at("C"));
  call.dA = result("dA", &c.at("A"));
  call.dD = result("dD", c.find("D"));
  call.dbias = result(image ? "ddt_bias" : "ddelta_bias", c.find(image ? "dt_bias" : "delta_bias"));
  if (image) {
    call.ddts = result("ddts", &c.at("dts"));
    call.dweight = result("ddt_weight", &c.at("dt_weight"));
  } else {
    call.dinitial = result("dinitial_state", c.find("initial_state"));
  }
  std::vector<float> memory = scratch(workspace_of(call));
  backward<IO>(call, memory.data(), 0);
}

template <typename IO>
Results run_case(const Case& c) {
  Results results;
  run_forward_case<IO>(c, results);
  if (c.find("grad_y") != nullptr) run_backward_case<IO>(c, results);
  return results;
}

Results run_any(const Case& c) {
  emu::settings.order = static_cast<emu::Order>(c.option("order", 0));
  emu::settings.seed = static_cast<uint64_t>(c.option("seed", 1));
  emu::settings.approximate = c.option("approximate", 0) != 0;
  switch (c.at(c.kind == "ss2d" ? "x" : "u").dtype) {
    case 'f': return run_case<float>(c);
#ifndef TRIPTYCH_EMU_ONLY_FLOAT
    case 'h': return run_case<Half>(c);
    case 'b': return run_case<BFloat16>(c);
#endif
    default: throw std::runtime_error("a dtype that this driver was not compiled for");
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  try {
    std::ifstream in(argv[1], std::ios::binary);
    std::ofstream out(argv[2], std::ios::binary);
    if (argc > 3) emu::settings.dropped = argv[3];
    for (int64_t i = read_int(in); i > 0; --i) write_results(out, run_any(read_case(in)));
    for (const std::string& name : emu::settings.seen) std::cout << name << "\n";
  } catch (const std::exception& error) {
    std::cerr << "driver: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
