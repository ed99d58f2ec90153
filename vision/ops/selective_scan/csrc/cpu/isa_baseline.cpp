// The CPU kernels for any processor: vectors of 16 bytes, which every x86-64 has (SSE2).
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "kernels.h"

#define TRIPTYCH_WIDTH 4
#define TRIPTYCH_STATES 1
#define TRIPTYCH_STATES_BACK 1

namespace triptych::cpu::baseline {

#include "vector.h"

#include "arithmetic.h"

#include "recurrence.h"

#include "staging.h"

#include "scan.h"

#include "image.h"

extern const Kernels kernels;
const Kernels kernels{"baseline", scan_forward, scan_backward, image_forward, image_backward};

}  // namespace triptych::cpu::baseline
