// Which instruction set the CPU kernels run on: the widest that the processor has, unless told otherwise.
#pragma once

#include <string>

#include "kernels.h"

namespace triptych::cpu {

// The kernels in use. The first call chooses: TRIPTYCH_CPU_ISA where it is set, else the widest set there is.
const Kernels& kernels();

// Chooses by name: "auto", "baseline", "avx2" or "avx512". Throws where the processor or the build lacks it.
void choose(const std::string& name);

}  // namespace triptych::cpu
