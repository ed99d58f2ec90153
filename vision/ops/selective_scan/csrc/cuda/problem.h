// What the launchers hand to the kernels: plain pointers, sizes and strides.
//
// Letters: B batch, L length, D channels, N states, G groups of B and C, K directions, R rank of delta.
#pragma once

#include <cstdint>

namespace triptych::cuda {

constexpr int kChunk = 64;                      // steps between two saved states
constexpr int kTile = 8;                        // steps that a thread holds in registers
constexpr int kStates = 16;                     // most states that one launch carries; more go in windows of so many
constexpr int kMaxThreads = 128;                // of a block: one channel each
constexpr int kPitch = kChunk + 4;              // of a staged row: 16-byte aligned, and rows start in different banks
constexpr int kExchangePitch = kTile + 1;       // odd: a column touches every bank once
constexpr int kExchange = 32 * kExchangePitch;  // floats of shared memory in which a warp exchanges layouts
constexpr int kPairs = 2 * kTile;               // of a state in a tile: the gradients of B and C at each step
constexpr int kDirections = 4;

// What a kernel is compiled for: a sequence whose channels are adjacent in memory; one of which some tensor has its
// positions adjacent instead, (B, D, L); the directions of an image.
enum class Form { channels, rows, image };

// A tensor [B, L, D] or [B, L, G, N] with its strides in bytes: positions and channels are multiplied in 64 bits.
struct Strided {
  char* data = nullptr;
  int64_t batch = 0;
  int32_t step = 0;      // from one position to the next
  int32_t inner = 0;     // from one channel, state or rank to the next
  int32_t outer = 0;     // from one group or direction to the next, where there is one
  bool by_rows = false;  // the positions of a channel are adjacent in memory, its channels are not
};

struct Shape {
  int32_t batch, length, channels, states;
  int32_t groups;      // of B and C; 1 for an image, whose directions have their own
  int32_t directions;  // 1, or the K of an image
  int32_t height, width, rank;
};

// How the blocks of a launch lie over a problem; blockIdx.x = ((batch, direction), segment), block of channels.
struct Grid {
  int32_t threads;           // of a block
  int32_t blocks_per_group;  // of channels
  int32_t segments;          // of the sequence
  int32_t chunks_per_segment;
  int32_t first_direction, directions;  // of this launch
};

// Where a kernel puts values [B, L, D]. Sums over directions, and over windows of states, pass through an fp32 plane
// that launches of a stream add to in turn: no atomics, the same order every time.
struct Sink {
  Strided out;
  float* plane = nullptr;     // [B, L, D], contiguous
  int64_t per_direction = 0;  // elements from one direction's plane to the next; 0 where they share one
  bool add = false;           // what the plane holds
  bool finish = true;         // write out, not the plane
};

// Where a kernel puts its share of a sum that several blocks contribute to: by atomics into one plane, or each into a
// plane of its own, which are added in a fixed order afterwards.
struct Share {
  float* data = nullptr;
  int64_t plane = 0;
  bool atomic = false;
  bool add = false;  // to what an earlier launch of the same block left
};

struct Problem {
  Shape shape;
  Strided u, delta, z;
  Strided shared[3];  // what the channels of a group share: B, C and, of an image, the low-rank step sizes
  const float *A = nullptr, *D = nullptr, *bias = nullptr, *initial = nullptr, *dt_weight = nullptr;
  bool softplus = false;
};

// What segments tell each other: the state that a segment alone leads to, and the sum of its step sizes, whose product
// with A is the logarithm of its decay.
struct Segments {
  float* state = nullptr;  // [B, K, segments, D, states]
  float* steps = nullptr;  // [B, K, segments, D]
  int32_t states = 0;      // room for those of the largest launch
};

struct ForwardArgs {
  Problem problem;
  Grid grid;
  Sink y;
  float *last_state = nullptr, *chunk_states = nullptr;
  Segments segments;
  int32_t first_state = 0, states = 0;  // of this launch
  bool only_ends = false;               // of segments: their end states, from zero
};

struct BackwardArgs {
  Problem problem;
  Grid grid;
  Strided grad_y;
  const float *grad_last = nullptr, *chunk_states = nullptr;
  Sink du, ddelta, dz;
  Share dB, dC, ddts, dA, dD, dbias, dweight;
  float* dinitial = nullptr;
  Segments segments;
  int32_t first_state = 0, states = 0;  // of this launch
  bool first_launch = true;             // what does not depend on a state is added once
};

// A sum of fp32 planes, written as float or as the kernels' I/O type.
struct PlaneSum {
  const float* source;
  void* target;
  int64_t size, plane;
  int32_t planes;
  bool to_float;
};
constexpr int kMaxSums = 8;
struct PlaneSums {
  PlaneSum sums[kMaxSums];
  int32_t count = 0;
};

}  // namespace triptych::cuda
