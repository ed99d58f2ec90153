// The four-direction scan of an image, forward and backward, of the tasks [begin, end): no copy of the image is made, a
// direction is the order in which its positions are visited. Included as vector.h is.
#pragma once

// Where the steps [first, first + steps) of direction k lie in the image: 0 along rows, 1 along columns, 2 and 3 these
// two backwards.
static void find_positions(const Image& s, int64_t k, int64_t first, int64_t steps, int64_t* positions) {
  const int64_t length = s.height * s.width, sign = k >= 2 ? -1 : 1;
  int64_t step = k >= 2 ? length - 1 - first : first;
  if (k % 2 == 0) {
    for (int64_t l = 0; l < steps; ++l, step += sign) positions[l] = step;
    return;
  }
  int64_t row = step % s.height, column = step / s.height;
  for (int64_t l = 0; l < steps; ++l) {
    positions[l] = row * s.width + column;
    row += sign;
    if (row == s.height || row < 0) {
      column += sign;
      row = row < 0 ? s.height - 1 : 0;
    }
  }
}

// What a tile of one direction shares among the channels: delta before its weights, B and C.
struct SharedTile {
  int64_t direction, first, steps;
  int64_t positions[kChunk];
  float *dts, *B, *C;  // [64, R], [64, S], [64, S]
};

template <class Type>
static void read_shared_rows(const Strided& s, int64_t batch, const SharedTile& t, int64_t count, float* out) {
  for (int64_t l = 0; l < t.steps; ++l) {
    const auto* p = at<Type>(s, batch, t.positions[l], t.direction, 0);
    if (s.inner == 1)
      widen_row<Type>(p, count, out + l * count);
    else
      for (int64_t i = 0; i < count; ++i) out[l * count + i] = get<Type>(p + i * s.inner);
  }
}

template <class Type>
static void read_shared_tile(const Image& s, int64_t batch, int64_t direction, int64_t chunk, SharedTile& t) {
  const int64_t left = s.height * s.width - chunk * kChunk;
  t.direction = direction;
  t.first = chunk * kChunk;
  t.steps = left < kChunk ? left : kChunk;
  find_positions(s, direction, t.first, t.steps, t.positions);
  read_shared_rows<Type>(s.dts, batch, t, s.rank, t.dts);
  read_shared_rows<Type>(s.B, batch, t, s.states, t.B);
  read_shared_rows<Type>(s.C, batch, t, s.states, t.C);
}

// One block of channels in one direction.
struct ImageBlock {
  int64_t first, channels;
  float *rate, *weight;  // [S, 16], [R, 16]
  alignas(64) float bias[kBlock];
  alignas(64) float skip[kBlock];  // D summed over the directions
};

static void read_block(const Image& s, int64_t direction, int64_t block, ImageBlock& b) {
  b.first = block * kBlock;
  b.channels = s.channels - b.first < kBlock ? s.channels - b.first : kBlock;
  const int64_t row = direction * s.channels + b.first;
  read_states(s.A + row * s.states, s.states, b.channels, kStepsLog2e, b.rate);
  read_states(s.dt_weight + row * s.rank, s.rank, b.channels, 1.0f, b.weight);
  read_channels(s.dt_bias + row, b.channels, b.bias);
  for (int c = 0; c < kBlock; ++c) {
    b.skip[c] = 0.0f;
    for (int64_t k = 0; c < b.channels && k < kDirections; ++k) b.skip[c] += s.D[k * s.channels + b.first + c];
  }
}

// The rows of a block at the tile's positions.
template <class Type>
static void read_rows(const Strided& s, int64_t batch, const SharedTile& t, const ImageBlock& b, Steps out) {
  for (int64_t l = 0; l < t.steps; ++l) {
    const auto* p = at<Type>(s, batch, t.positions[l], 0, b.first);
    if (b.channels == kBlock)
      for (int v = 0; v < kParts; ++v) store(&out[l][v * kWidth], load_as(Type(), p + v * kWidth));
    else
      for (int c = 0; c < kBlock; ++c) out[l][c] = c < b.channels ? get<Type>(p + c) : 0.0f;
  }
}

// The sum over directions of a block's output: in the output itself where that is float, else in memory of our own.
struct Total {
  float* rows;
  int64_t stride;
};

template <class Type>
static Total total_of(const Strided& out, int64_t batch, const ImageBlock& b, float* own) {
  if constexpr (sizeof(typename Type::type) == sizeof(float))
    if (b.channels == kBlock) return {at<Type>(out, batch, 0, 0, b.first), out.step};
  return {own, kBlock};
}

template <class Type>
static void write_total(const Strided& out, int64_t batch, int64_t length, const ImageBlock& b, Total total) {
  if (total.stride == out.step && b.channels == kBlock && sizeof(typename Type::type) == sizeof(float)) return;
  for (int64_t p = 0; p < length; ++p)
    narrow_row<Type>(total.rows + p * total.stride, b.channels, at<Type>(out, batch, p, 0, b.first));
}

// The step sizes before bias and softplus of steps [l, l + 4): the low-rank product.
TRIPTYCH_INLINE void expand_delta(const float* dts, int64_t rank, const ImageBlock& b, Floats delta[4][kParts]) {
  for (int j = 0; j < 4; ++j)
    for (int v = 0; v < kParts; ++v) delta[j][v] = load(b.bias + v * kWidth);
  for (int64_t r = 0; r < rank; ++r)
    for (int v = 0; v < kParts; ++v) {
      const Floats weight = load(b.weight + r * kBlock + v * kWidth);
      for (int j = 0; j < 4; ++j) delta[j][v] = weight * all(dts[j * rank + r]) + delta[j][v];
    }
}

template <class Type>
static void image_tile(const ImageForward& s, int64_t batch, const SharedTile& shared, const ImageBlock& b, float* h,
                       Total total, ForwardTile& tile) {
  alignas(64) Steps spare;
  const bool in_place = sizeof(typename Type::type) == sizeof(float) && b.channels == kBlock;
  if (!in_place) read_rows<Type>(s.x, batch, shared, b, spare);
  const auto* x0 = at<Type>(s.x, batch, 0, 0, b.first);
  for (int64_t l = 0; l < shared.steps; l += 4) {
    Floats delta[4][kParts];
    expand_delta(shared.dts + l * s.rank, s.rank, b, delta);
    for (int64_t j = 0; j < 4 && l + j < shared.steps; ++j)
      for (int v = 0; v < kParts; ++v) {
        const float* row = spare[l + j];
        if constexpr (sizeof(*x0) == sizeof(float))
          if (in_place) row = x0 + shared.positions[l + j] * s.x.step;
        const Floats x = load(row + v * kWidth), dt = softplus(delta[j][v]);
        store(&tile.dt[l + j][v * kWidth], dt);
        store(&tile.driven[l + j][v * kWidth], dt * x);
        const float* so_far = total.rows + shared.positions[l + j] * total.stride + v * kWidth;
        store(&tile.y[l + j][v * kWidth], shared.direction == 0 ? load(b.skip + v * kWidth) * x : load(so_far));
      }
  }
  forward_tile(tile, shared.steps, s.states, {shared.B, s.states}, {shared.C, s.states}, b.rate, h);
  for (int64_t l = 0; l < shared.steps; ++l)
    for (int v = 0; v < kParts; ++v)
      store(total.rows + shared.positions[l] * total.stride + v * kWidth, load(&tile.y[l][v * kWidth]));
}

template <class Type>
static void image_forward_as(const ImageForward& s, int64_t begin, int64_t end) {
  const int64_t length = s.height * s.width, most = (blocks(s.channels) + s.splits - 1) / s.splits;
  const bool all_in_place = sizeof(typename Type::type) == sizeof(float) && s.channels % kBlock == 0;
  const int64_t per_block = (2 * s.states + s.rank) * kBlock + (all_in_place ? 0 : length * kBlock);
  // 4 rows more than a chunk: expand_delta reads four at a time.
  Workspace work((kChunk + 4) * (s.rank + 2 * s.states + 48) + most * per_block);
  SharedTile shared;
  shared.dts = work.take((kChunk + 4) * (s.rank + 15) / 16 * 16);
  shared.B = work.take(kChunk * s.states);
  shared.C = work.take(kChunk * s.states);
  ImageBlock* block = new ImageBlock[most];
  float *h = work.take(most * s.states * kBlock), *own = nullptr;
  for (int64_t i = 0; i < most; ++i) {
    block[i].rate = work.take(s.states * kBlock);
    block[i].weight = work.take(s.rank * kBlock);
  }
  if (!all_in_place) own = work.take(most * length * kBlock);
  ForwardTile tile;

  for (int64_t task = begin; task < end; ++task) {
    const int64_t batch = task / s.splits, split = task % s.splits;
    const int64_t first = split * blocks(s.channels) / s.splits;
    const int64_t count = (split + 1) * blocks(s.channels) / s.splits - first;
    for (int64_t k = 0; k < kDirections; ++k) {
      for (int64_t i = 0; i < count; ++i) read_block(s, k, first + i, block[i]);
      memset(h, 0, sizeof(float) * count * s.states * kBlock);
      for (int64_t chunk = 0; chunk < chunks(length); ++chunk) {
        read_shared_tile<Type>(s, batch, k, chunk, shared);
        for (int64_t i = 0; i < count; ++i) {
          float* states = h + i * s.states * kBlock;
          if (s.chunk_states) {
            const int64_t row = ((batch * kDirections + k) * chunks(length) + chunk) * s.channels + block[i].first;
            write_states(states, s.states, block[i].channels, s.chunk_states + row * s.states);
          }
          const Total total = total_of<Type>(s.y, batch, block[i], own + i * length * kBlock);
          image_tile<Type>(s, batch, shared, block[i], states, total, tile);
        }
      }
    }
    for (int64_t i = 0; i < count; ++i)
      write_total<Type>(s.y, batch, length, block[i], total_of<Type>(s.y, batch, block[i], own + i * length * kBlock));
  }
  delete[] block;
}

// ---- backward -------------------------------------------------------------------------------------------------------

struct ImageBlockGradients {
  float *A, *before, *carried, *grad_A, *grad_weight;  // [S, 16] but for the last, [R, 16]
  alignas(64) float grad_bias[kBlock], grad_skip[kBlock];
};

// The gradients of what a tile's channels share: [64, S] and, with steps innermost, [R, 64].
struct SharedGradients {
  float *B, *C, *dts;
};

static void stage_image_backward(const SharedTile& shared, int64_t rank, const ImageBlock& b, const Steps x,
                                 BackwardTile& tile) {
  for (int64_t l = 0; l < shared.steps; l += 4) {
    Floats delta[4][kParts];
    expand_delta(shared.dts + l * rank, rank, b, delta);
    for (int64_t j = 0; j < 4 && l + j < shared.steps; ++j)
      for (int v = 0; v < kParts; ++v) {
        const Floats raw = delta[j][v], t = exp_minus_abs(raw), dt = positive_part(raw) + log1p(t);
        store(&tile.dt[l + j][v * kWidth], dt);
        store(&tile.slope[l + j][v * kWidth], sigmoid(raw, t));
        store(&tile.driven[l + j][v * kWidth], dt * load(&x[l + j][v * kWidth]));
        store(&tile.to_drive[l + j][v * kWidth], Floats{});
        store(&tile.to_step[l + j][v * kWidth], Floats{});
      }
  }
}

// The gradients of the low-rank product: of its weights, over steps, and of its inputs, over channels.
static void low_rank_backward(const Steps grad_delta, const SharedTile& shared, int64_t rank, const ImageBlock& b,
                              float* grad_weight, float* grad_dts) {
  alignas(64) float rows[kBlock][kChunk];
  steps_to_rows(grad_delta, (shared.steps + 3) / 4 * 4, rows[0], kChunk);
  for (int64_t r = 0; r < rank; ++r) {
    Floats sum[kParts];
    for (int v = 0; v < kParts; ++v) sum[v] = Floats{};
    for (int64_t l = 0; l < shared.steps; ++l)
      for (int v = 0; v < kParts; ++v)
        sum[v] = load(&grad_delta[l][v * kWidth]) * all(shared.dts[l * rank + r]) + sum[v];
    for (int v = 0; v < kParts; ++v) {
      float* so_far = grad_weight + r * kBlock + v * kWidth;
      store(so_far, load(so_far) + sum[v]);
    }
    for (int64_t l = 0; l < shared.steps; l += kWidth) {
      Floats reached = load(grad_dts + r * kChunk + l);
      for (int c = 0; c < kBlock; ++c) reached = load(&rows[c][l]) * all(b.weight[r * kBlock + c]) + reached;
      store(grad_dts + r * kChunk + l, reached);
    }
  }
}

template <class Type>
static void image_tile_backward(const ImageBackward& s, int64_t batch, const SharedTile& shared, const ImageBlock& b,
                                ImageBlockGradients& g, const SharedGradients& to_shared, Total total,
                                BackwardTile& tile) {
  alignas(64) Steps x;
  read_rows<Type>(s.x, batch, shared, b, x);
  read_rows<Type>(s.grad_y, batch, shared, b, tile.grad_y);
  stage_image_backward(shared, s.rank, b, x, tile);
  backward_tile<false>(tile, shared.steps, s.states, {shared.B, s.states}, {shared.C, s.states}, to_shared.B,
                       to_shared.C, s.states, {b.rate, g.A, g.before, g.carried, g.grad_A});
  const bool first = shared.direction == 0;
  for (int v = 0; v < kParts; ++v) {
    Floats grad_bias = {}, grad_skip = {};
    const Floats skip = load(b.skip + v * kWidth);
    for (int64_t l = 0; l < shared.steps; ++l) {
      const Floats drive = load(&tile.to_drive[l][v * kWidth]), value = load(&x[l][v * kWidth]);
      const Floats grad_y = load(&tile.grad_y[l][v * kWidth]);
      const Floats grad_delta =
          (value * drive + load(&tile.to_step[l][v * kWidth])) * load(&tile.slope[l][v * kWidth]);
      store(&tile.to_step[l][v * kWidth], grad_delta);
      grad_bias = grad_bias + grad_delta;
      float* so_far = total.rows + shared.positions[l] * total.stride + v * kWidth;
      const Floats before = first ? skip * grad_y : load(so_far);
      store(so_far, load(&tile.dt[l][v * kWidth]) * drive + before);
      if (first) grad_skip = grad_y * value + grad_skip;
    }
    store(g.grad_bias + v * kWidth, load(g.grad_bias + v * kWidth) + grad_bias);
    store(g.grad_skip + v * kWidth, load(g.grad_skip + v * kWidth) + grad_skip);
  }
  low_rank_backward(tile.to_step, shared, s.rank, b, g.grad_weight, to_shared.dts);
}

// A tile's shared gradients to their places in the image.
static void write_shared(const ImageBackward& s, int64_t batch, int64_t split, const SharedTile& t,
                         const SharedGradients& g) {
  const int64_t plane = (split * s.batch + batch) * s.height * s.width;
  for (int64_t l = 0; l < t.steps; ++l) {
    const int64_t row = (plane + t.positions[l]) * kDirections + t.direction;
    memcpy(s.grad_B + row * s.states, g.B + l * s.states, sizeof(float) * s.states);
    memcpy(s.grad_C + row * s.states, g.C + l * s.states, sizeof(float) * s.states);
    for (int64_t r = 0; r < s.rank; ++r) s.grad_dts[row * s.rank + r] = g.dts[r * kChunk + l];
  }
}

template <class Type>
static void image_backward_as(const ImageBackward& s, int64_t begin, int64_t end) {
  const int64_t length = s.height * s.width, most = (blocks(s.channels) + s.splits - 1) / s.splits;
  const bool all_in_place = sizeof(typename Type::type) == sizeof(float) && s.channels % kBlock == 0;
  const int64_t size = s.states * kBlock;
  const int64_t per_block = 5 * size + 2 * s.rank * kBlock + (all_in_place ? 0 : length * kBlock);
  Workspace work((kChunk + 4) * (2 * s.rank + 4 * s.states + 48) + most * per_block);
  SharedTile shared;
  shared.dts = work.take((kChunk + 4) * (s.rank + 15) / 16 * 16);
  shared.B = work.take(kChunk * s.states);
  shared.C = work.take(kChunk * s.states);
  SharedGradients to_shared{work.take(kChunk * s.states), work.take(kChunk * s.states), work.take(kChunk * s.rank)};
  ImageBlock* block = new ImageBlock[most];
  ImageBlockGradients* grads = new ImageBlockGradients[most];
  float* own = nullptr;
  for (int64_t i = 0; i < most; ++i) {
    block[i].rate = work.take(size);
    block[i].weight = work.take(s.rank * kBlock);
    for (float** part : {&grads[i].A, &grads[i].before, &grads[i].carried, &grads[i].grad_A}) *part = work.take(size);
    grads[i].grad_weight = work.take(s.rank * kBlock);
  }
  if (!all_in_place) own = work.take(most * length * kBlock);
  BackwardTile tile;

  for (int64_t task = begin; task < end; ++task) {
    const int64_t batch = task / s.splits, split = task % s.splits;
    const int64_t first = split * blocks(s.channels) / s.splits;
    const int64_t count = (split + 1) * blocks(s.channels) / s.splits - first;
    for (int64_t k = 0; k < kDirections; ++k) {
      for (int64_t i = 0; i < count; ++i) {
        read_block(s, k, first + i, block[i]);
        const int64_t row = k * s.channels + block[i].first;
        read_states(s.A + row * s.states, s.states, block[i].channels, 1.0f, grads[i].A);
        memset(grads[i].carried, 0, sizeof(float) * size);
        memset(grads[i].grad_A, 0, sizeof(float) * size);
        memset(grads[i].grad_weight, 0, sizeof(float) * s.rank * kBlock);
        memset(grads[i].grad_bias, 0, sizeof(grads[i].grad_bias));
        if (k == 0) memset(grads[i].grad_skip, 0, sizeof(grads[i].grad_skip));
      }
      for (int64_t chunk = chunks(length) - 1; chunk >= 0; --chunk) {
        read_shared_tile<Type>(s, batch, k, chunk, shared);
        memset(to_shared.B, 0, sizeof(float) * kChunk * s.states);
        memset(to_shared.C, 0, sizeof(float) * kChunk * s.states);
        memset(to_shared.dts, 0, sizeof(float) * kChunk * s.rank);
        for (int64_t i = 0; i < count; ++i) {
          const int64_t row = ((batch * kDirections + k) * chunks(length) + chunk) * s.channels + block[i].first;
          read_states(s.chunk_states + row * s.states, s.states, block[i].channels, 1.0f, grads[i].before);
          const Total total = total_of<Type>(s.grad_x, batch, block[i], own + i * length * kBlock);
          image_tile_backward<Type>(s, batch, shared, block[i], grads[i], to_shared, total, tile);
        }
        write_shared(s, batch, split, shared, to_shared);
      }
      for (int64_t i = 0; i < count; ++i) {
        const int64_t row = (batch * kDirections + k) * s.channels + block[i].first, channels = block[i].channels;
        write_states(grads[i].grad_A, s.states, channels, s.grad_A + row * s.states);
        write_states(grads[i].grad_weight, s.rank, channels, s.grad_weight + row * s.rank);
        memcpy(s.grad_bias + row, grads[i].grad_bias, sizeof(float) * channels);
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      memcpy(s.grad_D + batch * s.channels + block[i].first, grads[i].grad_skip, sizeof(float) * block[i].channels);
      const Total total = total_of<Type>(s.grad_x, batch, block[i], own + i * length * kBlock);
      write_total<Type>(s.grad_x, batch, length, block[i], total);
    }
  }
  delete[] grads;
  delete[] block;
}

static void image_forward(const ImageForward& s, int64_t begin, int64_t end) {
  switch (s.dtype) {
    case Dtype::f32: return image_forward_as<Single>(s, begin, end);
    case Dtype::f16: return image_forward_as<Half>(s, begin, end);
    case Dtype::bf16: return image_forward_as<Brain>(s, begin, end);
  }
}

static void image_backward(const ImageBackward& s, int64_t begin, int64_t end) {
  switch (s.dtype) {
    case Dtype::f32: return image_backward_as<Single>(s, begin, end);
    case Dtype::f16: return image_backward_as<Half>(s, begin, end);
    case Dtype::bf16: return image_backward_as<Brain>(s, begin, end);
  }
}
