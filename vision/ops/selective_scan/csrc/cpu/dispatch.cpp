#include "dispatch.h"

#include <torch/headeronly/util/Exception.h>

#include <atomic>
#include <cstdlib>

namespace triptych::cpu {

namespace baseline {
extern const Kernels kernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
#endif

namespace {

struct Choice {
  const Kernels* kernels;
  bool runs_here;
};

// Widest first.
const Choice* choices(int* count) {
#if defined(__x86_64__)
  // f16c has no name of its own in older compilers; every processor with AVX2 has it.
  static const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  static const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  static const Choice all[] = {{&avx512::kernels, has_avx512}, {&avx2::kernels, has_avx2}, {&baseline::kernels, true}};
#else
  static const Choice all[] = {{&baseline::kernels, true}};
#endif
  *count = sizeof(all) / sizeof(all[0]);
  return all;
}

const Kernels* find(const std::string& name) {
  int count = 0;
  const Choice* all = choices(&count);
  for (int i = 0; i < count; ++i) {
    if (name == "auto" && all[i].runs_here) return all[i].kernels;
    if (name != all[i].kernels->name) continue;
    STD_TORCH_CHECK(all[i].runs_here, "triptych: this processor has no ", name, "; use TRIPTYCH_CPU_ISA=auto");
    return all[i].kernels;
  }
  STD_TORCH_CHECK(false, "triptych: no CPU kernels for '", name, "'; there are auto, baseline, avx2 and avx512");
}

std::atomic<const Kernels*> chosen{nullptr};

}  // namespace

const Kernels& kernels() {
  const Kernels* current = chosen.load(std::memory_order_acquire);
  if (current == nullptr) {
    const char* asked = std::getenv("TRIPTYCH_CPU_ISA");
    current = find(asked != nullptr && *asked != '\0' ? asked : "auto");
    chosen.store(current, std::memory_order_release);
  }
  return *current;
}

void choose(const std::string& name) { chosen.store(find(name), std::memory_order_release); }

}  // namespace triptych::cpu
