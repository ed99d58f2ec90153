// The CPU kernels for processors with AVX-512 (F, BW, DQ, VL).
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "kernels.h"

// After the headers above: what they define must not be compiled for this instruction set.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // of GCC's own avx512fintrin.h
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#define TRIPTYCH_F16C
#define TRIPTYCH_WIDTH 16
#define TRIPTYCH_STATES 4
#define TRIPTYCH_STATES_BACK 4

namespace triptych::cpu::avx512 {

#include "vector.h"

#include "arithmetic.h"

#include "recurrence.h"

#include "staging.h"

#include "scan.h"

#include "image.h"

extern const Kernels kernels;
const Kernels kernels{"avx512", scan_forward, scan_backward, image_forward, image_backward};

}  // namespace triptych::cpu::avx512

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // x86-64
