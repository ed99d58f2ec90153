// The recurrence over one tile: up to 64 steps of a block of 16 channels, with a few states held in registers.
// Included as vector.h is.
#pragma once

constexpr int kParts = kBlock / kWidth;  // vectors that hold the channels of a block

// Channels are innermost everywhere. 64-byte lines hold a step each.
typedef float Steps[kChunk][kBlock];

// B or C (or their gradients) of a tile: `step` floats from one position to the next, states side by side.
struct Shared {
  const float* at;
  int64_t step;
};

// What a tile's forward pass reads and writes.
struct ForwardTile {
  alignas(64) Steps dt;      // step size
  alignas(64) Steps driven;  // dt * u
  alignas(64) Steps y;       // in: what is added to the output, D * u; out: the output
};

// `count` states: h = e^(dt A) h + driven B; y += C h. `rate` is A kSteps log2(e), [states, 16].
template <int count, bool clamped>
TRIPTYCH_INLINE void run_states(ForwardTile& t, int64_t steps, Shared B, Shared C, const float* rate, float* h) {
  Floats state[count][kParts], slope[count][kParts];
  for (int n = 0; n < count; ++n)
    for (int v = 0; v < kParts; ++v) {
      state[n][v] = load(h + n * kBlock + v * kWidth);
      slope[n][v] = load(rate + n * kBlock + v * kWidth);
    }
  for (int64_t l = 0; l < steps; ++l, B.at += B.step, C.at += C.step) {
    Floats dt[kParts], driven[kParts], y[kParts];
    for (int v = 0; v < kParts; ++v) {
      dt[v] = load(&t.dt[l][v * kWidth]);
      driven[v] = load(&t.driven[l][v * kWidth]);
      y[v] = load(&t.y[l][v * kWidth]);
    }
    for (int n = 0; n < count; ++n) {
      const Floats b = all(B.at[n]), c = all(C.at[n]);
      for (int v = 0; v < kParts; ++v) {
        state[n][v] = exp2_steps<clamped>(dt[v] * slope[n][v]) * state[n][v] + driven[v] * b;
        y[v] = state[n][v] * c + y[v];
      }
    }
    for (int v = 0; v < kParts; ++v) store(&t.y[l][v * kWidth], y[v]);
  }
  for (int n = 0; n < count; ++n)
    for (int v = 0; v < kParts; ++v) store(h + n * kBlock + v * kWidth, state[n][v]);
}

// Whether no exponent of a tile leaves what a float holds, as is nearly always so.
static bool within_range(const Steps dt, int64_t steps, int64_t states, const float* rate) {
  Ints outside = {};
  Floats largest[kParts] = {};
  for (int64_t l = 0; l < steps; ++l)
    for (int v = 0; v < kParts; ++v) largest[v] = larger(largest[v], magnitude(load(&dt[l][v * kWidth])));
  for (int64_t n = 0; n < states; ++n)
    for (int v = 0; v < kParts; ++v)
      outside |= bits<Ints>(largest[v] * magnitude(load(rate + n * kBlock + v * kWidth)) > all(kSafe));
  int32_t any = 0;
  for (int i = 0; i < kWidth; ++i) any |= outside[i];
  return any == 0;
}

template <bool clamped>
static void run_all_states(ForwardTile& t, int64_t steps, int64_t states, Shared B, Shared C, const float* rate,
                           float* h) {
  constexpr int together = TRIPTYCH_STATES;
  int64_t n = 0;
  for (; n + together <= states; n += together)
    run_states<together, clamped>(t, steps, {B.at + n, B.step}, {C.at + n, C.step}, rate + n * kBlock, h + n * kBlock);
  for (; n < states; ++n)
    run_states<1, clamped>(t, steps, {B.at + n, B.step}, {C.at + n, C.step}, rate + n * kBlock, h + n * kBlock);
}

static void forward_tile(ForwardTile& t, int64_t steps, int64_t states, Shared B, Shared C, const float* rate,
                         float* h) {
  if (states > 2 && within_range(t.dt, steps, states, rate))  // with one state the check costs what it saves
    run_all_states<false>(t, steps, states, B, C, rate, h);
  else
    run_all_states<true>(t, steps, states, B, C, rate, h);
}

// What a tile's backward pass reads and writes; g is the gradient of a state.
struct BackwardTile {
  alignas(64) Steps dt, driven;
  alignas(64) Steps slope;     // of dt over delta
  alignas(64) Steps grad_y;    // of the output before the gate
  alignas(64) Steps to_drive;  // out: sum_n g B, the gradient of driven
  alignas(64) Steps to_step;   // out: sum_n A g a h, the part of dt's gradient that comes through the decay
  alignas(64) Steps y;         // out, when wanted: sum_n C h
};

// Of one channel block, [states, 16] each.
struct BackwardStates {
  const float* rate;    // A kSteps log2(e)
  const float* A;
  const float* before;  // the states before the tile
  float* carried;       // in: the gradient that reaches the last state from later; out: that reaches the ones before
  float* grad_A;        // added to
};

template <int count, bool want_y, bool clamped>
TRIPTYCH_INLINE void run_states_back(BackwardTile& t, int64_t steps, Shared B, Shared C, float* grad_B, float* grad_C,
                                     int64_t grad_step, BackwardStates s) {
  alignas(64) float decays[kChunk][count][kBlock], decayed[kChunk][count][kBlock];  // a, and a h
  {
    Floats state[count][kParts], slope[count][kParts];
    for (int n = 0; n < count; ++n)
      for (int v = 0; v < kParts; ++v) {
        state[n][v] = load(s.before + n * kBlock + v * kWidth);
        slope[n][v] = load(s.rate + n * kBlock + v * kWidth);
      }
    const float* b = B.at;
    for (int64_t l = 0; l < steps; ++l, b += B.step)
      for (int n = 0; n < count; ++n)
        for (int v = 0; v < kParts; ++v) {
          const Floats decay = exp2_steps<clamped>(load(&t.dt[l][v * kWidth]) * slope[n][v]);
          const Floats rest = decay * state[n][v];
          store(&decays[l][n][v * kWidth], decay);
          store(&decayed[l][n][v * kWidth], rest);
          state[n][v] = load(&t.driven[l][v * kWidth]) * all(b[n]) + rest;
        }
  }
  Floats carried[count][kParts], grad_A[count][kParts];
  for (int n = 0; n < count; ++n)
    for (int v = 0; v < kParts; ++v) {
      carried[n][v] = load(s.carried + n * kBlock + v * kWidth);
      grad_A[n][v] = Floats{};  // of this tile alone: a sum of sums rounds less than one long sum
    }
  for (int64_t l = steps - 1; l >= 0; --l) {
    const float *b = B.at + l * B.step, *c = C.at + l * C.step;
    Floats to_B[count], to_C[count];
    for (int v = 0; v < kParts; ++v) {
      const Floats dt = load(&t.dt[l][v * kWidth]), driven = load(&t.driven[l][v * kWidth]);
      const Floats grad_y = load(&t.grad_y[l][v * kWidth]);
      Floats drive = load(&t.to_drive[l][v * kWidth]), step = load(&t.to_step[l][v * kWidth]);
      Floats y = want_y ? load(&t.y[l][v * kWidth]) : Floats{};
      for (int n = 0; n < count; ++n) {
        const Floats rest = load(&decayed[l][n][v * kWidth]), decay = load(&decays[l][n][v * kWidth]);
        const Floats state = driven * all(b[n]) + rest;
        const Floats g = grad_y * all(c[n]) + carried[n][v];
        to_C[n] = v == 0 ? grad_y * state : grad_y * state + to_C[n];
        to_B[n] = v == 0 ? g * driven : g * driven + to_B[n];
        drive = g * all(b[n]) + drive;
        if (want_y) y = state * all(c[n]) + y;
        const Floats through = g * rest;
        step = through * load(s.A + n * kBlock + v * kWidth) + step;
        grad_A[n][v] = through * dt + grad_A[n][v];
        carried[n][v] = decay * g;
      }
      store(&t.to_drive[l][v * kWidth], drive);
      store(&t.to_step[l][v * kWidth], step);
      if (want_y) store(&t.y[l][v * kWidth], y);
    }
    float *to_b = grad_B + l * grad_step, *to_c = grad_C + l * grad_step;
    if constexpr (count == 1) {
      const Lane sum = sums(to_B[0], to_C[0]);
      to_b[0] += sum[0];
      to_c[0] += sum[1];
    } else {
      for (int n = 0; n < count; n += 2) {
        const Lane sum = sums(to_B[n], to_B[n + 1], to_C[n], to_C[n + 1]);
        to_b[n] += sum[0];
        to_b[n + 1] += sum[1];
        to_c[n] += sum[2];
        to_c[n + 1] += sum[3];
      }
    }
  }
  for (int n = 0; n < count; ++n)
    for (int v = 0; v < kParts; ++v) {
      store(s.carried + n * kBlock + v * kWidth, carried[n][v]);
      store(s.grad_A + n * kBlock + v * kWidth, load(s.grad_A + n * kBlock + v * kWidth) + grad_A[n][v]);
    }
}

TRIPTYCH_INLINE BackwardStates from_state(BackwardStates s, int64_t n) {
  const int64_t at = n * kBlock;
  return {s.rate + at, s.A + at, s.before + at, s.carried + at, s.grad_A + at};
}

template <bool want_y, bool clamped>
static void run_all_states_back(BackwardTile& t, int64_t steps, int64_t states, Shared B, Shared C, float* grad_B,
                                float* grad_C, int64_t grad_step, BackwardStates s) {
  constexpr int together = TRIPTYCH_STATES_BACK;
  int64_t n = 0;
  for (; n + together <= states; n += together)
    run_states_back<together, want_y, clamped>(t, steps, {B.at + n, B.step}, {C.at + n, C.step}, grad_B + n, grad_C + n,
                                               grad_step, from_state(s, n));
  for (; n < states; ++n)
    run_states_back<1, want_y, clamped>(t, steps, {B.at + n, B.step}, {C.at + n, C.step}, grad_B + n, grad_C + n,
                                        grad_step, from_state(s, n));
}

// grad_B and grad_C are added to; to_drive, to_step and y begin as the caller left them.
template <bool want_y>
static void backward_tile(BackwardTile& t, int64_t steps, int64_t states, Shared B, Shared C, float* grad_B,
                          float* grad_C, int64_t grad_step, BackwardStates s) {
  if (states > 2 && within_range(t.dt, steps, states, s.rate))
    run_all_states_back<want_y, false>(t, steps, states, B, C, grad_B, grad_C, grad_step, s);
  else
    run_all_states_back<want_y, true>(t, steps, states, B, C, grad_B, grad_C, grad_step, s);
}
