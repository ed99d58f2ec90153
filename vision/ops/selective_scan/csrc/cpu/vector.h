// Vectors of TRIPTYCH_WIDTH floats: what the compilers' vector types cannot say by themselves.
//
// Included once by each isa_*.cpp, inside the namespace and under the target of its instruction set; the arithmetic
// operators are those of the GCC and Clang vector extension.
#pragma once

constexpr int kWidth = TRIPTYCH_WIDTH;

typedef float Floats __attribute__((vector_size(4 * TRIPTYCH_WIDTH)));
typedef int32_t Ints __attribute__((vector_size(4 * TRIPTYCH_WIDTH)));
typedef uint16_t Shorts __attribute__((vector_size(2 * TRIPTYCH_WIDTH)));

#define TRIPTYCH_INLINE static inline __attribute__((always_inline))

template <class To, class From>
TRIPTYCH_INLINE To bits(From x) {
  static_assert(sizeof(To) == sizeof(From), "a reinterpretation keeps the size");
  To y;
  __builtin_memcpy(&y, &x, sizeof(y));
  return y;
}

TRIPTYCH_INLINE Floats load(const float* p) {
  Floats v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
TRIPTYCH_INLINE void store(float* p, Floats v) { __builtin_memcpy(p, &v, sizeof(v)); }

#if TRIPTYCH_WIDTH == 16 && defined(__x86_64__)

TRIPTYCH_INLINE Floats all(float x) { return _mm512_set1_ps(x); }
// The second where the two compare equal or either is NaN, as the instruction does.
TRIPTYCH_INLINE Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }
TRIPTYCH_INLINE Floats smaller(Floats a, Floats b) { return _mm512_min_ps(a, b); }
TRIPTYCH_INLINE Floats low_pairs(Floats a, Floats b) { return _mm512_unpacklo_ps(a, b); }
TRIPTYCH_INLINE Floats high_pairs(Floats a, Floats b) { return _mm512_unpackhi_ps(a, b); }
TRIPTYCH_INLINE Floats low_halves(Floats a, Floats b) { return _mm512_shuffle_ps(a, b, 0x44); }
TRIPTYCH_INLINE Floats high_halves(Floats a, Floats b) { return _mm512_shuffle_ps(a, b, 0xee); }
TRIPTYCH_INLINE Floats load_lanes(const float* p, int64_t stride) {
  const __m256 low = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + stride), 1);
  p += 2 * stride;
  const __m256 high = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + stride), 1);
  return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
}
TRIPTYCH_INLINE void store_lanes(float* p, int64_t stride, Floats v) {
  _mm_storeu_ps(p, _mm512_castps512_ps128(v));
  _mm_storeu_ps(p + stride, _mm512_extractf32x4_ps(v, 1));
  _mm_storeu_ps(p + 2 * stride, _mm512_extractf32x4_ps(v, 2));
  _mm_storeu_ps(p + 3 * stride, _mm512_extractf32x4_ps(v, 3));
}
typedef float Lane __attribute__((vector_size(16)));
TRIPTYCH_INLINE Lane sum_lanes(Floats v) {
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

#elif TRIPTYCH_WIDTH == 8 && defined(__x86_64__)

TRIPTYCH_INLINE Floats all(float x) { return _mm256_set1_ps(x); }
TRIPTYCH_INLINE Floats larger(Floats a, Floats b) { return _mm256_max_ps(a, b); }
TRIPTYCH_INLINE Floats smaller(Floats a, Floats b) { return _mm256_min_ps(a, b); }
TRIPTYCH_INLINE Floats low_pairs(Floats a, Floats b) { return _mm256_unpacklo_ps(a, b); }
TRIPTYCH_INLINE Floats high_pairs(Floats a, Floats b) { return _mm256_unpackhi_ps(a, b); }
TRIPTYCH_INLINE Floats low_halves(Floats a, Floats b) { return _mm256_shuffle_ps(a, b, 0x44); }
TRIPTYCH_INLINE Floats high_halves(Floats a, Floats b) { return _mm256_shuffle_ps(a, b, 0xee); }
TRIPTYCH_INLINE Floats load_lanes(const float* p, int64_t stride) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + stride), 1);
}
TRIPTYCH_INLINE void store_lanes(float* p, int64_t stride, Floats v) {
  _mm_storeu_ps(p, _mm256_castps256_ps128(v));
  _mm_storeu_ps(p + stride, _mm256_extractf128_ps(v, 1));
}
typedef float Lane __attribute__((vector_size(16)));
TRIPTYCH_INLINE Lane sum_lanes(Floats v) {
  return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
}

#elif TRIPTYCH_WIDTH == 4

TRIPTYCH_INLINE Floats all(float x) { return Floats{x, x, x, x}; }
#if defined(__SSE2__)
TRIPTYCH_INLINE Floats larger(Floats a, Floats b) { return _mm_max_ps(a, b); }
TRIPTYCH_INLINE Floats smaller(Floats a, Floats b) { return _mm_min_ps(a, b); }
TRIPTYCH_INLINE Floats low_pairs(Floats a, Floats b) { return _mm_unpacklo_ps(a, b); }
TRIPTYCH_INLINE Floats high_pairs(Floats a, Floats b) { return _mm_unpackhi_ps(a, b); }
TRIPTYCH_INLINE Floats low_halves(Floats a, Floats b) { return _mm_movelh_ps(a, b); }
TRIPTYCH_INLINE Floats high_halves(Floats a, Floats b) { return _mm_movehl_ps(b, a); }
#else  // any processor
TRIPTYCH_INLINE Floats select(Ints take, Floats a, Floats b) {
  return bits<Floats>((bits<Ints>(a) & take) | (bits<Ints>(b) & ~take));
}
TRIPTYCH_INLINE Floats larger(Floats a, Floats b) { return select(bits<Ints>(a > b), a, b); }
TRIPTYCH_INLINE Floats smaller(Floats a, Floats b) { return select(bits<Ints>(a < b), a, b); }
TRIPTYCH_INLINE Floats low_pairs(Floats a, Floats b) { return Floats{a[0], b[0], a[1], b[1]}; }
TRIPTYCH_INLINE Floats high_pairs(Floats a, Floats b) { return Floats{a[2], b[2], a[3], b[3]}; }
TRIPTYCH_INLINE Floats low_halves(Floats a, Floats b) { return Floats{a[0], a[1], b[0], b[1]}; }
TRIPTYCH_INLINE Floats high_halves(Floats a, Floats b) { return Floats{a[2], a[3], b[2], b[3]}; }
#endif
TRIPTYCH_INLINE Floats load_lanes(const float* p, int64_t) { return load(p); }
TRIPTYCH_INLINE void store_lanes(float* p, int64_t, Floats v) { store(p, v); }
typedef Floats Lane;
TRIPTYCH_INLINE Lane sum_lanes(Floats v) { return v; }

#endif

TRIPTYCH_INLINE Floats magnitude(Floats x) { return bits<Floats>(bits<Ints>(x) & INT32_MAX); }

// Each lane of four floats is a column of four 4x4 matrices side by side; transposes each.
TRIPTYCH_INLINE void transpose(Floats r[4]) {
  const Floats a = low_pairs(r[0], r[1]), b = high_pairs(r[0], r[1]);
  const Floats c = low_pairs(r[2], r[3]), d = high_pairs(r[2], r[3]);
  r[0] = low_halves(a, c);
  r[1] = high_halves(a, c);
  r[2] = low_halves(b, d);
  r[3] = high_halves(b, d);
}

// The sums of four vectors.
TRIPTYCH_INLINE Lane sums(Floats a, Floats b, Floats c, Floats d) {
  const Floats ab = low_pairs(a, b) + high_pairs(a, b), cd = low_pairs(c, d) + high_pairs(c, d);
  return sum_lanes(low_halves(ab, cd) + high_halves(ab, cd));
}
// The sums of two vectors; the other two numbers mean nothing.
TRIPTYCH_INLINE Lane sums(Floats a, Floats b) {
  const Lane ab = sum_lanes(low_pairs(a, b) + high_pairs(a, b));
  return Lane{ab[0] + ab[2], ab[1] + ab[3], 0.0f, 0.0f};
}

// ---- 16-bit numbers -------------------------------------------------------------------------------------------------

struct Single {
  using type = float;
};
struct Half {
  using type = uint16_t;
};
struct Brain {  // bfloat16
  using type = uint16_t;
};

TRIPTYCH_INLINE Floats load_as(Single, const float* p) { return load(p); }
TRIPTYCH_INLINE void store_as(Single, float* p, Floats v) { store(p, v); }

TRIPTYCH_INLINE Ints widen(const uint16_t* p) {
  Shorts v;
  __builtin_memcpy(&v, p, sizeof(v));
  return __builtin_convertvector(v, Ints);
}
TRIPTYCH_INLINE void narrow(uint16_t* p, Ints v) {
  const Shorts s = __builtin_convertvector(v, Shorts);
  __builtin_memcpy(p, &s, sizeof(s));
}

TRIPTYCH_INLINE Floats load_as(Brain, const uint16_t* p) { return bits<Floats>(widen(p) << 16); }
TRIPTYCH_INLINE void store_as(Brain, uint16_t* p, Floats v) {
  const Ints w = bits<Ints>(v), unordered = bits<Ints>(v != v);
  const Ints rounded = ((w + 0x7fff + ((w >> 16) & 1)) >> 16) & 0xffff;  // to the nearest, ties to even
  narrow(p, (rounded & ~unordered) | (0x7fc0 & unordered));
}

#if defined(TRIPTYCH_F16C) && TRIPTYCH_WIDTH == 16
TRIPTYCH_INLINE Floats load_as(Half, const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
TRIPTYCH_INLINE void store_as(Half, uint16_t* p, Floats v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, 0));
}
#elif defined(TRIPTYCH_F16C)
TRIPTYCH_INLINE Floats load_as(Half, const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
TRIPTYCH_INLINE void store_as(Half, uint16_t* p, Floats v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, 0));
}
#else
TRIPTYCH_INLINE Floats load_as(Half, const uint16_t* p) {
  const Ints h = widen(p), magnitude = (h & 0x7fff) << 13;
  const Ints special = bits<Ints>((h & 0x7c00) == 0x7c00) & 0x7f800000;  // infinity and NaN
  const Floats scaled = bits<Floats>(magnitude) * all(0x1p112f);         // the exponents' biases differ by 112
  return bits<Floats>(bits<Ints>(scaled) | special | ((h & 0x8000) << 16));
}
TRIPTYCH_INLINE void store_as(Half, uint16_t* p, Floats v) {
  const Ints w = bits<Ints>(v), magnitude = w & 0x7fffffff;
  const Ints normal = (magnitude + 0xfff + ((magnitude >> 13) & 1) - (112 << 23)) >> 13;  // ties to even
  // Adding 1/2 shifts a subnormal's bits to the end of the mantissa, rounded by the addition.
  const Ints small = bits<Ints>(bits<Floats>(magnitude) + all(0.5f)) - 0x3f000000;
  const Ints is_small = bits<Ints>(magnitude < 0x38800000), is_large = bits<Ints>(magnitude >= 0x477ff000);
  const Ints special = 0x7c00 | (bits<Ints>(magnitude > 0x7f800000) & 0x200);
  const Ints finite = (small & is_small) | (normal & ~is_small);
  narrow(p, (special & is_large) | (finite & ~is_large) | ((w >> 16) & 0x8000));
}
#endif
