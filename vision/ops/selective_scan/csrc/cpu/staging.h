// Tiles in and out of memory: any strides, 16-bit numbers widened, blocks of fewer than 16 channels filled with zeros.
// Included as vector.h is.
#pragma once

// Where a tile begins, and how much of it there is.
struct Window {
  int64_t batch, first_step, steps, first_channel, channels;
};

template <class Type>
TRIPTYCH_INLINE typename Type::type* at(const Strided& s, int64_t batch, int64_t step, int64_t outer, int64_t inner) {
  return static_cast<typename Type::type*>(s.data) + batch * s.batch + step * s.step + outer * s.outer + inner * s.inner;
}

// One number at a time, for what is too irregular for vectors.
template <class Type>
TRIPTYCH_INLINE float get(const typename Type::type* p) {
  if constexpr (sizeof(*p) == sizeof(float)) {
    return *p;
  } else {
    uint16_t row[kWidth] = {*p};
    return load_as(Type(), row)[0];
  }
}
template <class Type>
TRIPTYCH_INLINE void put(typename Type::type* p, float x) {
  if constexpr (sizeof(*p) == sizeof(float)) {
    *p = x;
  } else {
    uint16_t row[kWidth];
    store_as(Type(), row, all(x));
    *p = row[0];
  }
}

// A row of at most 64 numbers from memory to floats, and back.
template <class Type>
TRIPTYCH_INLINE void widen_row(const typename Type::type* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) store(to + i, load_as(Type(), from + i));
  for (; i < count; ++i) to[i] = get<Type>(from + i);
}
template <class Type>
TRIPTYCH_INLINE void narrow_row(const float* from, int64_t count, typename Type::type* to) {
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) store_as(Type(), to + i, load(from + i));
  for (; i < count; ++i) put<Type>(to + i, from[i]);
}

// Rows at such a stride share two sets of the first-level cache or fewer, and drive each other out of it unless whole
// lines are moved at once.
TRIPTYCH_INLINE bool collides(int64_t stride) { return stride % 512 == 0; }

// 16 rows of `steps` floats, a multiple of 4, to `steps` rows of 16, and back.
static void rows_to_steps(const float* rows, int64_t stride, int64_t steps, Steps out) {
  alignas(64) float square[kBlock][kBlock];
  for (int64_t l0 = 0; l0 < steps; l0 += kBlock) {
    const int64_t width = steps - l0 < kBlock ? steps - l0 : kBlock;
    const bool whole = width == kBlock && collides(stride);
    if (whole)
      for (int c = 0; c < kBlock; ++c)
        for (int v = 0; v < kParts; ++v) store(&square[c][v * kWidth], load(rows + c * stride + l0 + v * kWidth));
    const float* from = whole ? square[0] : rows + l0;
    const int64_t step = whole ? kBlock : stride;
    for (int c = 0; c < kBlock; c += kWidth)
      for (int64_t l = 0; l < width; l += 4) {
        Floats r[4];
        for (int i = 0; i < 4; ++i) r[i] = load_lanes(from + (c + i) * step + l, 4 * step);
        transpose(r);
        for (int i = 0; i < 4; ++i) store(&out[l0 + l + i][c], r[i]);
      }
  }
}
static void steps_to_rows(const Steps in, int64_t steps, float* rows, int64_t stride) {
  alignas(64) float square[kBlock][kBlock];
  for (int64_t l0 = 0; l0 < steps; l0 += kBlock) {
    const int64_t width = steps - l0 < kBlock ? steps - l0 : kBlock;
    const bool whole = width == kBlock && collides(stride);
    float* to = whole ? square[0] : rows + l0;
    const int64_t step = whole ? kBlock : stride;
    for (int c = 0; c < kBlock; c += kWidth)
      for (int64_t l = 0; l < width; l += 4) {
        Floats r[4];
        for (int i = 0; i < 4; ++i) r[i] = load(&in[l0 + l + i][c]);
        transpose(r);
        for (int i = 0; i < 4; ++i) store_lanes(to + (c + i) * step + l, 4 * step, r[i]);
      }
    if (whole)
      for (int c = 0; c < kBlock; ++c)
        for (int v = 0; v < kParts; ++v) store(rows + c * stride + l0 + v * kWidth, load(&square[c][v * kWidth]));
  }
}

// The tile of a [N, L, D] tensor as steps of 16 floats, read in place where it lies so already.
template <class Type>
static Shared read_tile(const Strided& s, const Window& w, Steps spare) {
  const auto* p = at<Type>(s, w.batch, w.first_step, 0, w.first_channel);
  if (s.inner == 1) {
    if (w.channels == kBlock) {
      if constexpr (sizeof(*p) == sizeof(float)) return {p, s.step};
      for (int64_t l = 0; l < w.steps; ++l)
        for (int v = 0; v < kParts; ++v)
          store(&spare[l][v * kWidth], load_as(Type(), p + l * s.step + v * kWidth));
      return {spare[0], kBlock};
    }
  } else if (s.step == 1) {
    if constexpr (sizeof(*p) == sizeof(float))
      if (w.channels == kBlock && w.steps % 4 == 0) {
        rows_to_steps(p, s.inner, w.steps, spare);
        return {spare[0], kBlock};
      }
    alignas(64) float rows[kBlock][kChunk] = {};
    for (int64_t c = 0; c < w.channels; ++c) widen_row<Type>(p + c * s.inner, w.steps, rows[c]);
    rows_to_steps(rows[0], kChunk, (w.steps + 3) / 4 * 4, spare);
    return {spare[0], kBlock};
  }
  for (int64_t l = 0; l < w.steps; ++l)
    for (int c = 0; c < kBlock; ++c)
      spare[l][c] = c < w.channels ? get<Type>(p + l * s.step + c * s.inner) : 0.0f;
  return {spare[0], kBlock};
}

template <class Type>
static void write_tile(const Strided& s, const Window& w, const Steps in) {
  auto* p = at<Type>(s, w.batch, w.first_step, 0, w.first_channel);
  if (s.inner == 1) {
    if (w.channels == kBlock) {
      for (int64_t l = 0; l < w.steps; ++l)
        for (int v = 0; v < kParts; ++v) store_as(Type(), p + l * s.step + v * kWidth, load(&in[l][v * kWidth]));
      return;
    }
  } else if (s.step == 1) {
    if constexpr (sizeof(*p) == sizeof(float))
      if (w.channels == kBlock && w.steps % 4 == 0) return steps_to_rows(in, w.steps, p, s.inner);
    alignas(64) float rows[kBlock][kChunk];
    steps_to_rows(in, (w.steps + 3) / 4 * 4, rows[0], kChunk);
    for (int64_t c = 0; c < w.channels; ++c) narrow_row<Type>(rows[c], w.steps, p + c * s.inner);
    return;
  }
  for (int64_t l = 0; l < w.steps; ++l)
    for (int c = 0; c < w.channels; ++c) put<Type>(p + l * s.step + c * s.inner, in[l][c]);
}

// B or C of a group and a tile, read in place where it can be; `spare` holds 64 * states floats.
template <class Type>
static Shared read_shared(const Strided& s, int64_t batch, int64_t first_step, int64_t steps, int64_t group,
                          int64_t states, float* spare) {
  const auto* p = at<Type>(s, batch, first_step, group, 0);
  if constexpr (sizeof(*p) == sizeof(float))
    if (s.inner == 1 || states == 1) return {p, s.step};
  for (int64_t l = 0; l < steps; ++l) {
    if (s.inner == 1)
      widen_row<Type>(p + l * s.step, states, spare + l * states);
    else
      for (int64_t n = 0; n < states; ++n) spare[l * states + n] = get<Type>(p + l * s.step + n * s.inner);
  }
  return {spare, states};
}

// [D, S] rows of a block to [S, 16], the missing channels zero, times a factor; and back.
static void read_states(const float* from, int64_t states, int64_t channels, float factor, float* to) {
  for (int64_t n = 0; n < states; ++n)
    for (int c = 0; c < kBlock; ++c) to[n * kBlock + c] = c < channels ? from[c * states + n] * factor : 0.0f;
}
static void write_states(const float* from, int64_t states, int64_t channels, float* to) {
  for (int c = 0; c < channels; ++c)
    for (int64_t n = 0; n < states; ++n) to[c * states + n] = from[n * kBlock + c];
}

// A value for each channel of a block: [D] to 16 floats.
static void read_channels(const float* from, int64_t channels, float* to) {
  for (int c = 0; c < kBlock; ++c) to[c] = from != nullptr && c < channels ? from[c] : 0.0f;
}

// Arrays of floats at 64-byte boundaries, freed together.
class Workspace {
 public:
  explicit Workspace(int64_t floats) {
    if (posix_memalign(&memory_, 64, static_cast<size_t>(floats) * sizeof(float)) != 0) __builtin_trap();
    next_ = static_cast<float*>(memory_);
  }
  ~Workspace() { free(memory_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  float* take(int64_t floats) {  // a multiple of 16
    float* taken = next_;
    next_ += floats;
    return taken;
  }

 private:
  void* memory_ = nullptr;
  float* next_ = nullptr;
};
