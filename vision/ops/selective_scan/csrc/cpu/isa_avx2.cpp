// The CPU kernels for processors with AVX2, FMA and F16C.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "kernels.h"

// After the headers above: what they define must not be compiled for this instruction set.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

#define TRIPTYCH_F16C
#define TRIPTYCH_WIDTH 8
#define TRIPTYCH_STATES 2
#define TRIPTYCH_STATES_BACK 2

namespace triptych::cpu::avx2 {

#include "vector.h"

#include "arithmetic.h"

#include "recurrence.h"

#include "staging.h"

#include "scan.h"

#include "image.h"

extern const Kernels kernels;
const Kernels kernels{"avx2", scan_forward, scan_backward, image_forward, image_backward};

}  // namespace triptych::cpu::avx2

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // x86-64
