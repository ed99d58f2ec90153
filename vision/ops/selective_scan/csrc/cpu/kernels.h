// What the operators of library.cpp hand to a CPU kernel: plain pointers, sizes and strides, no torch types, so that
// the kernels can be compiled once for each instruction set.
//
// Letters: N batch, L length, D channels, S states, G groups of B and C, K = 4 directions, R rank of delta.
#pragma once

#include <cstdint>

namespace triptych::cpu {

constexpr int64_t kChunk = 64;      // steps between two saved states
constexpr int64_t kDirections = 4;  // of an image scan

enum class Dtype { f32, f16, bf16 };

// A tensor with its strides in elements; data is null where an optional tensor is absent.
struct Strided {
  void* data = nullptr;
  int64_t batch = 0;  // stride of the batch
  int64_t step = 0;   // stride of the position in the sequence
  int64_t outer = 0;  // stride of the group or direction, where there is one
  int64_t inner = 0;  // stride of the channel, state or rank
  explicit operator bool() const { return data != nullptr; }
};

// h_l = exp(dt_l A) h_{l-1} + dt_l u_l B_l;  y_l = (sum_s C_l h_l + D u_l) silu(z_l);  dt = softplus(delta + bias).
struct Scan {
  Dtype dtype;
  int64_t batch, length, channels, states, groups;
  bool softplus;
  Strided u, delta, z;         // [N, L, D]
  Strided B, C;                // [N, L, G, S]
  const float* A;              // [D, S]
  const float* D = nullptr;    // [D]
  const float* bias = nullptr; // [D]
  const float* initial = nullptr;  // [N, D, S]
};

struct ScanForward : Scan {
  Strided y;                       // [N, L, D]
  float* last_state = nullptr;     // [N, D, S]
  float* chunk_states = nullptr;   // [N, ceil(L / 64), D, S], the state before each chunk; null when not wanted
};

// Sums over the batch or over channels are written as parts, one a batch element or a split of the channels, which the
// caller adds in a fixed order: the result does not depend on the number of threads.
struct ScanBackward : Scan {
  Strided grad_y;                         // [N, L, D]
  const float* grad_last_state = nullptr; // [N, D, S]
  const float* chunk_states = nullptr;    // [N, ceil(L / 64), D, S]
  Strided grad_u, grad_delta, grad_z;     // [N, L, D]
  int64_t splits = 1;                     // of the channels of a group
  float* grad_B = nullptr;                // [splits, N, L, G, S]
  float* grad_C = nullptr;                // [splits, N, L, G, S]
  float* grad_A = nullptr;                // [N, D, S]
  float* grad_D = nullptr;                // [N, D]
  float* grad_bias = nullptr;             // [N, D]
  float* grad_initial = nullptr;          // [N, D, S]
};

// Four scans of an image, each with dt = softplus(W_k r + b_k), their outputs summed in place.
struct Image {
  Dtype dtype;
  int64_t batch, height, width, channels, states, rank;
  int64_t splits = 1;     // of the blocks of channels
  Strided x;              // [N, H W, D]
  Strided dts;            // [N, H W, K, R]
  Strided B, C;           // [N, H W, K, S]
  const float* dt_weight; // [K, D, R]
  const float* dt_bias;   // [K, D]
  const float* A;         // [K, D, S]
  const float* D;         // [K, D]
};

struct ImageForward : Image {
  Strided y;                      // [N, H W, D]
  float* chunk_states = nullptr;  // [N, K, ceil(H W / 64), D, S], in scan order; null when not wanted
};

struct ImageBackward : Image {
  Strided grad_y;                // [N, H W, D]
  const float* chunk_states;     // [N, K, ceil(H W / 64), D, S]
  Strided grad_x;                // [N, H W, D]
  float* grad_dts = nullptr;     // [splits, N, H W, K, R]
  float* grad_B = nullptr;       // [splits, N, H W, K, S]
  float* grad_C = nullptr;       // [splits, N, H W, K, S]
  float* grad_weight = nullptr;  // [N, K, D, R]
  float* grad_bias = nullptr;    // [N, K, D]
  float* grad_A = nullptr;       // [N, K, D, S]
  float* grad_D = nullptr;       // [N, D], the same for every direction
};

// The kernels of one instruction set. Each works on the tasks [begin, end); tasks are independent of each other.
struct Kernels {
  const char* name;
  void (*scan_forward)(const ScanForward&, int64_t begin, int64_t end);
  void (*scan_backward)(const ScanBackward&, int64_t begin, int64_t end);
  void (*image_forward)(const ImageForward&, int64_t begin, int64_t end);
  void (*image_backward)(const ImageBackward&, int64_t begin, int64_t end);
};

constexpr int64_t kBlock = 16;  // channels that are worked on together
inline int64_t blocks(int64_t channels) { return (channels + kBlock - 1) / kBlock; }
inline int64_t chunks(int64_t length) { return (length + kChunk - 1) / kChunk; }

// Tasks: a block of channels of a group; backward and for images a split of the blocks.
inline int64_t tasks(const ScanForward& s) { return s.batch * s.groups * blocks(s.channels / s.groups); }
inline int64_t tasks(const ScanBackward& s) { return s.batch * s.groups * s.splits; }
inline int64_t tasks(const ImageForward& s) { return s.batch * s.splits; }
inline int64_t tasks(const ImageBackward& s) { return s.batch * s.splits; }

}  // namespace triptych::cpu
