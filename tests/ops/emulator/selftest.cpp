// What the emulator itself promises, for the test that holds it to that: selftest NAME.
#include "simt.h"

#include <iostream>

namespace {

struct Args {
  float* out;
};

// Lane i of a warp gets what lane i ^ 5 has; through shared memory, across warps, what thread 63 - i has.
void exchanges(const Args args) {
  TRIPTYCH_DYN_SMEM(shared);
  const auto thread = threadIdx.x;
  const float mine = static_cast<float>(thread);
  shared[thread] = __shfl_xor_sync(0xffffffffu, mine, 5);
  TRIPTYCH_BARRIER(written);
  args.out[thread] = shared[63 - thread];
}

void some_wait(const Args) {
  if (threadIdx.x < 40) TRIPTYCH_BARRIER(reached_by_some);
}

void two_places(const Args) {
  if (threadIdx.x < 40)
    TRIPTYCH_BARRIER(here);
  else
    TRIPTYCH_BARRIER(there);
}

void some_shuffle(const Args args) {
  if (threadIdx.x != 3) args.out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}

void beyond_shared(const Args) {
  TRIPTYCH_DYN_SMEM(shared);
  shared[64 + threadIdx.x] = 0.0f;
}

void unwritten_shared(const Args args) {
  TRIPTYCH_DYN_SMEM(shared);
  args.out[threadIdx.x] = shared[threadIdx.x];
}

// Every half as a float, then the halves of floats read from the standard input.
void halves() {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float x = emu::float_of_half(static_cast<uint16_t>(bits));
    std::cout.write(reinterpret_cast<const char*>(&x), 4);
  }
  float x;
  while (std::cin.read(reinterpret_cast<char*>(&x), 4)) {
    const uint16_t both[2] = {emu::half_of_float(x), emu::bfloat16_of_float(x)};
    std::cout.write(reinterpret_cast<const char*>(both), 4);
  }
}

}  // namespace

int main(int, char** argv) {
  const std::string name = argv[1];
  if (name == "halves") return halves(), 0;
  float out[64] = {};
  for (const emu::Order order : {emu::Order::forward, emu::Order::reverse, emu::Order::shuffled}) {
    emu::settings.order = order;
    void (*kernel)(const Args) = name == "exchanges"       ? exchanges
                                 : name == "some_wait"     ? some_wait
                                 : name == "two_places"    ? two_places
                                 : name == "some_shuffle"  ? some_shuffle
                                 : name == "beyond_shared" ? beyond_shared
                                                           : unwritten_shared;
    TRIPTYCH_LAUNCH(kernel, dim3(1), 64, 256, 0, Args{out});
    for (float x : out) std::cout << x << " ";
  }
  return 0;
}
