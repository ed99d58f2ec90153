// A small emulator of a GPU's blocks and warps on the host: the kernels' own sources, compiled by a C++ compiler with
// -DTRIPTYCH_EMU, run on it, so that they are tested where there is no GPU.
//
// Each thread of a block is a fiber that runs until it waits for others. What it checks that a GPU would not: barriers
// and shuffles that only some threads reach, or that threads reach at different places, abort; shared memory starts as
// NaN and has exactly the size that was asked for; the order in which threads run can be turned round or shuffled, so
// that a missing barrier shows; any one barrier can be dropped by its name. What it cannot show: races between two
// barriers whose outcome no order of whole runs changes, the memory model, speed.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  explicit dim3(unsigned x_, unsigned y_ = 1) : x(x_), y(y_) {}
};

struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emu {

enum class Order { forward, reverse, shuffled };

struct Settings {
  Order order = Order::forward;
  uint64_t seed = 0;
  std::string dropped;         // the barrier that does nothing
  std::set<std::string> seen;  // the barriers that were reached
  bool approximate = false;    // whether the special-function unit is as wrong as its manual allows
};
inline Settings settings;

[[noreturn]] inline void fail(const std::string& what) {
  std::fprintf(stderr, "emulator: %s\n", what.c_str());
  std::abort();
}

// ---- fibers ---------------------------------------------------------------------------------------------------------

enum class Wait { none, block, warp, done };

#ifdef __SANITIZE_ADDRESS__
constexpr size_t kStack = 512 * 1024;
#else
constexpr size_t kStack = 96 * 1024;
#endif
constexpr unsigned kMostThreads = 256, kWarp = 32;

// Functions that are left and entered in the middle: the address sanitizer must not count on their frames.
#define TRIPTYCH_SWITCH gnu::noinline, gnu::no_sanitize_address

// Where to go on: a switch takes a few instructions, where swapcontext would ask the kernel for the signal mask each
// time.
using Jump = void* [5];

[[noreturn, TRIPTYCH_SWITCH]] inline void jump(Jump& to) { __builtin_longjmp(to, 1); }

struct Fiber {
  Jump at;
  char* stack = nullptr;
  Wait wait = Wait::done;
  const char* place = "";  // where it waits
  dim3 thread{0};
  void* fake = nullptr;  // of the address sanitizer
};

struct Block {
  std::vector<Fiber> fibers{kMostThreads};
  unsigned threads = 0;
  Fiber* running = nullptr;
  Jump scheduler;
  void* scheduler_fake = nullptr;
  const void* scheduler_stack = nullptr;
  size_t scheduler_size = 0;
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
  float* shared = nullptr;
  dim3 index{0}, grid{1};
  float lanes[2][kMostThreads];      // what lanes exchange, in turn, so that a fast lane overwrites nothing
  unsigned turn[kMostThreads] = {};  // of each lane
};
inline Block block;

inline void before_switch(void** fake, const void* stack, size_t size) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(fake, stack, size);
#else
  (void)fake, (void)stack, (void)size;
#endif
}

inline void after_switch(void* fake, const void** stack, size_t* size) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake, stack, size);
#else
  (void)fake, (void)stack, (void)size;
#endif
}

[[TRIPTYCH_SWITCH]] inline void to_scheduler(Wait wait, const char* place) {
  Fiber& self = *block.running;
  self.wait = wait;
  self.place = place;
  before_switch(&self.fake, block.scheduler_stack, block.scheduler_size);
  if (__builtin_setjmp(self.at) == 0) jump(block.scheduler);
  after_switch(block.running->fake, nullptr, nullptr);
}

[[TRIPTYCH_SWITCH]] inline void fiber_main() {
  after_switch(nullptr, &block.scheduler_stack, &block.scheduler_size);
  for (;;) {  // a fiber is used again for the threads of later blocks
    block.body(block.argument);
    to_scheduler(Wait::done, "the end");
  }
}

[[noreturn, TRIPTYCH_SWITCH]] inline void start(Fiber& fiber) {
  void* stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stack == MAP_FAILED) fail("no memory for a stack");
  fiber.stack = static_cast<char*>(stack);
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = fiber.stack;
  context.uc_stack.ss_size = kStack;
  context.uc_link = nullptr;
  makecontext(&context, fiber_main, 0);
  before_switch(&block.scheduler_fake, fiber.stack, kStack);
  setcontext(&context);
  fail("a fiber did not start");
}

[[TRIPTYCH_SWITCH]] inline void resume(Fiber& fiber) {
  before_switch(&block.scheduler_fake, fiber.stack, kStack);
  jump(fiber.at);
}

[[TRIPTYCH_SWITCH]] inline void to_fiber(Fiber& fiber) {
  block.running = &fiber;
  if (__builtin_setjmp(block.scheduler) == 0) fiber.stack == nullptr ? start(fiber) : resume(fiber);
  after_switch(block.scheduler_fake, nullptr, nullptr);
}

// ---- meeting points -------------------------------------------------------------------------------------------------

// Lets threads [first, last) go on where all of them wait for each other, at one place; false where some still run.
inline bool release(unsigned first, unsigned last, Wait wait) {
  for (unsigned t = first; t < last; ++t)
    if (block.fibers[t].wait != wait) return false;
  for (unsigned t = first; t < last; ++t) {
    if (std::strcmp(block.fibers[t].place, block.fibers[first].place) != 0)
      fail(std::string("threads wait at different places: ") + block.fibers[first].place + ", " +
           block.fibers[t].place);
    block.fibers[t].wait = Wait::none;
  }
  return true;
}

inline void run_block() {
  std::vector<unsigned> order(block.threads);
  std::iota(order.begin(), order.end(), 0u);
  std::mt19937_64 random(settings.seed + block.index.x);
  for (unsigned t = 0; t < block.threads; ++t) {
    block.fibers[t].wait = Wait::none;
    block.fibers[t].thread = dim3(t, 0);
    block.turn[t] = 0;
  }
  for (;;) {
    if (settings.order == Order::reverse) std::sort(order.rbegin(), order.rend());
    if (settings.order == Order::shuffled) std::shuffle(order.begin(), order.end(), random);
    bool ran = false, done = true;
    for (unsigned t : order) {
      if (block.fibers[t].wait != Wait::none) continue;
      to_fiber(block.fibers[t]);
      ran = true;
    }
    for (unsigned warp = 0; warp < block.threads; warp += kWarp)
      ran |= release(warp, std::min(warp + kWarp, block.threads), Wait::warp);
    ran |= release(0, block.threads, Wait::block);
    for (unsigned t = 0; t < block.threads; ++t) done &= block.fibers[t].wait == Wait::done;
    if (done) return;
    if (!ran) {
      for (unsigned t = 0; t < block.threads; ++t)
        std::fprintf(stderr, "emulator: thread %u is at %s\n", t, block.fibers[t].place);
      fail("not all threads of a block reach a barrier");
    }
  }
}

inline void meet(Wait wait, const char* name) {
  settings.seen.insert(name);
  if (settings.dropped != name) to_scheduler(wait, name);
}

inline float exchange(float value, unsigned lane_mask) {
  const unsigned self = block.running->thread.x;
  float* lanes = block.lanes[block.turn[self]++ & 1];
  lanes[self] = value;
  to_scheduler(Wait::warp, "a shuffle");
  return lanes[self ^ lane_mask];
}

// ---- launches -------------------------------------------------------------------------------------------------------

template <typename Args>
void launch(void (*kernel)(Args), dim3 grid, unsigned threads, int64_t bytes, std::remove_const_t<Args> args) {
  if (threads > kMostThreads || threads % kWarp != 0) fail("a block is whole warps, 256 threads at most");
  struct Call {
    void (*kernel)(Args);
    std::remove_const_t<Args>* args;
  } call{kernel, &args};
  block.body = [](void* at) {
    Call& c = *static_cast<Call*>(at);
    c.kernel(*c.args);
  };
  block.argument = &call;
  block.threads = threads;
  block.grid = grid;
  std::vector<unsigned> order(grid.x);
  std::iota(order.begin(), order.end(), 0u);
  if (settings.order == Order::reverse) std::reverse(order.begin(), order.end());
  if (settings.order == Order::shuffled) std::shuffle(order.begin(), order.end(), std::mt19937_64(settings.seed));
  for (unsigned y = 0; y < grid.y; ++y) {
    for (unsigned x : order) {
      std::unique_ptr<char[]> shared(new char[static_cast<size_t>(bytes)]);  // exactly, for the address sanitizer
      std::memset(shared.get(), 0xff, static_cast<size_t>(bytes));
      block.shared = reinterpret_cast<float*>(shared.get());
      block.index = dim3(x, y);
      run_block();
    }
  }
}

// ---- 16-bit numbers -------------------------------------------------------------------------------------------------

inline uint32_t bits_of_float(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

inline float float_of_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

// To the nearest, ties to even.
inline uint16_t bfloat16_of_float(float x) {
  const uint32_t bits = bits_of_float(x);
  if (std::isnan(x)) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float float_of_half(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16, exponent = (half >> 10) & 31u,
                 mantissa = half & 0x3ffu;
  if (exponent == 31) return float_of_bits(sign | 0x7f800000u | mantissa << 13);
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(mantissa), -24)
                              : std::ldexp(static_cast<float>(mantissa + 1024), static_cast<int>(exponent) - 25);
  return sign != 0 ? -magnitude : magnitude;
}

inline uint16_t half_of_float(float x) {
  const uint16_t sign = static_cast<uint16_t>((bits_of_float(x) >> 16) & 0x8000u);
  const float magnitude = std::fabs(x);
  if (std::isnan(x)) return 0x7fff;
  if (magnitude >= 65520.0f) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 6.103515625e-5f)  // below the least normal number: steps of 2^-24
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(std::ldexp(magnitude, 24))));
  int exponent;
  const float fraction = std::frexp(magnitude, &exponent);                                // in [0.5, 1)
  const auto mantissa = static_cast<uint32_t>(std::nearbyint(std::ldexp(fraction, 11)));  // 1024 to 2048
  return static_cast<uint16_t>(sign + ((static_cast<uint32_t>(exponent + 13) << 10) + mantissa));
}

// ---- the special-function unit --------------------------------------------------------------------------------------

// Off by up to 2^-22, relative, in a way that looks random and is always the same.
inline float approximate(float exact) {
  if (!settings.approximate) return exact;
  const uint32_t mixed = bits_of_float(exact) * 2654435761u;
  return exact * (1.0f + 0x1p-22f * (static_cast<float>(mixed >> 8) * 0x1p-23f - 1.0f));
}

// Subnormal numbers are flushed to zero.
inline float exp2_approximate(float x) {
  const float exact = std::exp2(x);
  return exact < 0x1p-126f ? 0.0f : approximate(exact);
}

inline float divide_approximate(float a, float b) { return approximate(a / b); }

}  // namespace emu

#define threadIdx (emu::block.running->thread)
#define blockIdx (emu::block.index)
#define gridDim (emu::block.grid)

#define TRIPTYCH_BARRIER(name) emu::meet(emu::Wait::block, #name)
#define TRIPTYCH_WARP_BARRIER(name) emu::meet(emu::Wait::warp, #name)
#define TRIPTYCH_DYN_SMEM(name) float* name = emu::block.shared
#define TRIPTYCH_LAUNCH(kernel, blocks, threads, bytes, stream, args) \
  ((void)(stream), emu::launch(kernel, blocks, static_cast<unsigned>(threads), bytes, args))

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline float __shfl_xor_sync(unsigned, float value, int lane_mask) {
  return emu::exchange(value, static_cast<unsigned>(lane_mask));
}
inline float atomicAdd(float* to, float value) {
  const float before = *to;
  *to += value;
  return before;
}
