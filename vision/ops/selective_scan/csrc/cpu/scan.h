// The selective scan, forward and backward, of the tasks [begin, end). Included as vector.h is.
#pragma once

// What a block of channels brings to every tile.
struct BlockConstants {
  alignas(64) float bias[kBlock], skip[kBlock];
};

// dt = softplus(delta + bias); driven = dt u; y = D u.
static void stage_forward(ForwardTile& t, int64_t steps, Shared u, Shared delta, const BlockConstants& k, bool soft) {
  for (int64_t l = 0; l < steps; ++l, u.at += u.step, delta.at += delta.step)
    for (int v = 0; v < kParts; ++v) {
      const Floats x = load(u.at + v * kWidth), raw = load(delta.at + v * kWidth) + load(k.bias + v * kWidth);
      const Floats dt = soft ? softplus(raw) : raw;
      store(&t.dt[l][v * kWidth], dt);
      store(&t.driven[l][v * kWidth], dt * x);
      store(&t.y[l][v * kWidth], load(k.skip + v * kWidth) * x);
    }
}

static void gate_forward(ForwardTile& t, int64_t steps, Shared z) {
  for (int64_t l = 0; l < steps; ++l, z.at += z.step)
    for (int v = 0; v < kParts; ++v) {
      const Floats gate = load(z.at + v * kWidth);
      store(&t.y[l][v * kWidth], load(&t.y[l][v * kWidth]) * gate * sigmoid(gate));
    }
}

template <class Type>
static void scan_forward_as(const ScanForward& s, int64_t begin, int64_t end) {
  const int64_t per_group = s.channels / s.groups, in_group = blocks(per_group), states = s.states;
  Workspace work(states * (2 * kBlock + 2 * kChunk));
  float *h = work.take(states * kBlock), *rate = work.take(states * kBlock);
  float *spare_B = work.take(states * kChunk), *spare_C = work.take(states * kChunk);
  ForwardTile tile;
  BlockConstants constants;
  alignas(64) Steps spare_u, spare_delta;

  for (int64_t task = begin; task < end; ++task) {
    const int64_t batch = task / (s.groups * in_group), group = task / in_group % s.groups, block = task % in_group;
    const int64_t first = group * per_group + block * kBlock;
    const int64_t rest = per_group - block * kBlock, channels = rest < kBlock ? rest : kBlock;
    const int64_t row = batch * s.channels + first;
    read_states(s.A + first * states, states, channels, kStepsLog2e, rate);
    read_channels(s.bias ? s.bias + first : nullptr, channels, constants.bias);
    read_channels(s.D ? s.D + first : nullptr, channels, constants.skip);
    if (s.initial)
      read_states(s.initial + row * states, states, channels, 1.0f, h);
    else
      memset(h, 0, sizeof(float) * states * kBlock);

    for (int64_t l = 0; l < s.length; l += kChunk) {
      const int64_t steps = s.length - l < kChunk ? s.length - l : kChunk;
      const Window window{batch, l, steps, first, channels};
      if (s.chunk_states) {
        const int64_t chunk = batch * chunks(s.length) + l / kChunk;
        write_states(h, states, channels, s.chunk_states + (chunk * s.channels + first) * states);
      }
      const Shared u = read_tile<Type>(s.u, window, spare_u), delta = read_tile<Type>(s.delta, window, spare_delta);
      stage_forward(tile, steps, u, delta, constants, s.softplus);
      forward_tile(tile, steps, states, read_shared<Type>(s.B, batch, l, steps, group, states, spare_B),
                   read_shared<Type>(s.C, batch, l, steps, group, states, spare_C), rate, h);
      if (s.z) gate_forward(tile, steps, read_tile<Type>(s.z, window, spare_u));
      write_tile<Type>(s.y, window, tile.y);
    }
    write_states(h, states, channels, s.last_state + row * states);
  }
}

// Sums over the steps of a block's channels.
struct BlockGradients {
  alignas(64) float bias[kBlock], skip[kBlock];
};

// As stage_forward; the gradient of the gate's output becomes that of its input, and y is D u where there is a gate.
static void stage_backward(BackwardTile& t, int64_t steps, Shared u, Shared delta, Shared grad_y, Shared z,
                           const BlockConstants& k, bool soft) {
  for (int64_t l = 0; l < steps; ++l)
    for (int v = 0; v < kParts; ++v) {
      const Floats x = load(u.at + l * u.step + v * kWidth);
      const Floats raw = load(delta.at + l * delta.step + v * kWidth) + load(k.bias + v * kWidth);
      Floats dt = raw, slope = all(1.0f);
      if (soft) {
        const Floats e = exp_minus_abs(raw);
        dt = positive_part(raw) + log1p(e);
        slope = sigmoid(raw, e);
      }
      store(&t.dt[l][v * kWidth], dt);
      store(&t.slope[l][v * kWidth], slope);
      store(&t.driven[l][v * kWidth], dt * x);
      Floats grad = load(grad_y.at + l * grad_y.step + v * kWidth);
      if (z.at != nullptr) {
        const Floats gate = load(z.at + l * z.step + v * kWidth);
        grad = grad * gate * sigmoid(gate);
        store(&t.y[l][v * kWidth], load(k.skip + v * kWidth) * x);
      }
      store(&t.grad_y[l][v * kWidth], grad);
      store(&t.to_drive[l][v * kWidth], Floats{});
      store(&t.to_step[l][v * kWidth], Floats{});
    }
}

// From what backward_tile found to the gradients of u and delta, which replace to_drive and to_step.
static void finish_backward(BackwardTile& t, int64_t steps, Shared u, const BlockConstants& k, BlockGradients& sum) {
  for (int v = 0; v < kParts; ++v) {
    const Floats skip = load(k.skip + v * kWidth);
    Floats grad_skip = {}, grad_bias = {};
    for (int64_t l = 0; l < steps; ++l) {
      const Floats x = load(u.at + l * u.step + v * kWidth), drive = load(&t.to_drive[l][v * kWidth]);
      const Floats grad_y = load(&t.grad_y[l][v * kWidth]);
      const Floats grad_dt = (x * drive + load(&t.to_step[l][v * kWidth])) * load(&t.slope[l][v * kWidth]);
      store(&t.to_drive[l][v * kWidth], load(&t.dt[l][v * kWidth]) * drive + skip * grad_y);
      store(&t.to_step[l][v * kWidth], grad_dt);
      grad_skip = grad_y * x + grad_skip;
      grad_bias = grad_bias + grad_dt;
    }
    store(sum.skip + v * kWidth, load(sum.skip + v * kWidth) + grad_skip);
    store(sum.bias + v * kWidth, load(sum.bias + v * kWidth) + grad_bias);
  }
}

// The gradient of z, in place of y: grad_y y silu'(z).
static void gate_backward(BackwardTile& t, int64_t steps, Shared grad_y, Shared z) {
  for (int64_t l = 0; l < steps; ++l)
    for (int v = 0; v < kParts; ++v) {
      const Floats gate = load(z.at + l * z.step + v * kWidth), open = sigmoid(gate);
      const Floats slope = open * (all(1.0f) + gate * (all(1.0f) - open));
      store(&t.y[l][v * kWidth], load(grad_y.at + l * grad_y.step + v * kWidth) * load(&t.y[l][v * kWidth]) * slope);
    }
}

template <class Type>
static void scan_backward_as(const ScanBackward& s, int64_t begin, int64_t end) {
  const int64_t per_group = s.channels / s.groups, in_group = blocks(per_group), states = s.states;
  Workspace work(states * (5 * kBlock + 2 * kChunk));
  float *rate = work.take(states * kBlock), *A = work.take(states * kBlock), *before = work.take(states * kBlock);
  float *carried = work.take(states * kBlock), *grad_A = work.take(states * kBlock);
  float *spare_B = work.take(states * kChunk), *spare_C = work.take(states * kChunk);
  BackwardTile tile;
  BlockConstants constants;
  BlockGradients sum;
  alignas(64) Steps spare_u, spare_delta, spare_grad, spare_z;

  for (int64_t task = begin; task < end; ++task) {
    const int64_t batch = task / (s.groups * s.splits), group = task / s.splits % s.groups, split = task % s.splits;
    const int64_t step = s.groups * states, part = ((split * s.batch + batch) * s.length * s.groups + group) * states;
    float *grad_B = s.grad_B + part, *grad_C = s.grad_C + part;
    for (int64_t l = 0; l < s.length; ++l) {
      memset(grad_B + l * step, 0, sizeof(float) * states);
      memset(grad_C + l * step, 0, sizeof(float) * states);
    }
    for (int64_t block = split * in_group / s.splits; block < (split + 1) * in_group / s.splits; ++block) {
      const int64_t first = group * per_group + block * kBlock;
      const int64_t rest = per_group - block * kBlock, channels = rest < kBlock ? rest : kBlock;
      const int64_t row = batch * s.channels + first;
      read_states(s.A + first * states, states, channels, kStepsLog2e, rate);
      read_states(s.A + first * states, states, channels, 1.0f, A);
      read_channels(s.bias ? s.bias + first : nullptr, channels, constants.bias);
      read_channels(s.D ? s.D + first : nullptr, channels, constants.skip);
      memset(&sum, 0, sizeof(sum));
      memset(grad_A, 0, sizeof(float) * states * kBlock);
      if (s.grad_last_state)
        read_states(s.grad_last_state + row * states, states, channels, 1.0f, carried);
      else
        memset(carried, 0, sizeof(float) * states * kBlock);

      for (int64_t chunk = chunks(s.length) - 1; chunk >= 0; --chunk) {
        const int64_t l = chunk * kChunk, steps = s.length - l < kChunk ? s.length - l : kChunk;
        const Window window{batch, l, steps, first, channels};
        const int64_t saved = (batch * chunks(s.length) + chunk) * s.channels + first;
        read_states(s.chunk_states + saved * states, states, channels, 1.0f, before);
        const Shared u = read_tile<Type>(s.u, window, spare_u), delta = read_tile<Type>(s.delta, window, spare_delta);
        const Shared grad_y = read_tile<Type>(s.grad_y, window, spare_grad);
        const Shared z = s.z ? read_tile<Type>(s.z, window, spare_z) : Shared{nullptr, 0};
        const Shared B = read_shared<Type>(s.B, batch, l, steps, group, states, spare_B);
        const Shared C = read_shared<Type>(s.C, batch, l, steps, group, states, spare_C);
        stage_backward(tile, steps, u, delta, grad_y, z, constants, s.softplus);
        const auto run = s.z ? backward_tile<true> : backward_tile<false>;
        run(tile, steps, states, B, C, grad_B + l * step, grad_C + l * step, step, {rate, A, before, carried, grad_A});
        if (s.z) {
          gate_backward(tile, steps, grad_y, z);
          write_tile<Type>(s.grad_z, window, tile.y);
        }
        finish_backward(tile, steps, u, constants, sum);
        write_tile<Type>(s.grad_u, window, tile.to_drive);
        write_tile<Type>(s.grad_delta, window, tile.to_step);
      }
      write_states(grad_A, states, channels, s.grad_A + row * states);
      if (s.grad_initial) write_states(carried, states, channels, s.grad_initial + row * states);
      if (s.grad_D) memcpy(s.grad_D + row, sum.skip, sizeof(float) * channels);
      if (s.grad_bias) memcpy(s.grad_bias + row, sum.bias, sizeof(float) * channels);
    }
  }
}

static void scan_forward(const ScanForward& s, int64_t begin, int64_t end) {
  switch (s.dtype) {
    case Dtype::f32: return scan_forward_as<Single>(s, begin, end);
    case Dtype::f16: return scan_forward_as<Half>(s, begin, end);
    case Dtype::bf16: return scan_forward_as<Brain>(s, begin, end);
  }
}

static void scan_backward(const ScanBackward& s, int64_t begin, int64_t end) {
  switch (s.dtype) {
    case Dtype::f32: return scan_backward_as<Single>(s, begin, end);
    case Dtype::f16: return scan_backward_as<Half>(s, begin, end);
    case Dtype::bf16: return scan_backward_as<Brain>(s, begin, end);
  }
}
