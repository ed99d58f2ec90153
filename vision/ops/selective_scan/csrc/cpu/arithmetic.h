// Exponentials, to about 1e-7 of their value; the coefficients are minimax fits of ours (relative error, by linear
// programming). NaN stays NaN. Included as vector.h is.
#pragma once

// Exponents are counted in steps of 1 / kSteps, for as many as the permutation of a register can look up.
#if TRIPTYCH_WIDTH == 16
constexpr int kStepBits = 4;
#elif TRIPTYCH_WIDTH == 8
constexpr int kStepBits = 3;
#else
constexpr int kStepBits = 0;
#endif
constexpr float kSteps = 1 << kStepBits;
constexpr float kStepsLog2e = kSteps * 1.44269504088896340736f;

// Adding 1.5 * 2^23 leaves the nearest integer in the low bits of a float.
constexpr float kRound = 12582912.0f;

// Bits of 2^(j / kSteps) less j steps: adding the whole number of steps, shifted to the exponent, gives the power.
#if TRIPTYCH_WIDTH == 16
alignas(64) static const uint32_t kPowers[16] = {
    0x3f800000, 0x3f7daac3, 0x3f7b95c2, 0x3f79c3d3, 0x3f7837f0, 0x3f76f532, 0x3f75fed7, 0x3f75583f,
    0x3f7504f3, 0x3f7508a4, 0x3f75672a, 0x3f76248c, 0x3f7744fd, 0x3f78ccdf, 0x3f7ac0c7, 0x3f7d257d};
TRIPTYCH_INLINE Ints look_up(Ints index) {
  return bits<Ints>(_mm512_permutexvar_ps(bits<__m512i>(index), _mm512_load_ps(kPowers)));
}
#elif TRIPTYCH_WIDTH == 8
alignas(32) static const uint32_t kPowers[8] = {
    0x3f800000, 0x3f7b95c2, 0x3f7837f0, 0x3f75fed7, 0x3f7504f3, 0x3f75672a, 0x3f7744fd, 0x3f7ac0c7};
TRIPTYCH_INLINE Ints look_up(Ints index) {
  return bits<Ints>(_mm256_permutevar8x32_ps(_mm256_load_ps(reinterpret_cast<const float*>(kPowers)), bits<__m256i>(index)));
}
#endif

// 2^((n + f) / kSteps) for f in [-1/2, 1/2] and n in the low bits of `rounded`; exactly 1 for 0, so that a slow decay
// stays slow. Relative error before rounding: 1.6e-9 with 16 steps, 8.0e-11 with 8, 2.0e-9 with 1.
TRIPTYCH_INLINE Floats power(Floats f, Floats rounded) {
  const Ints steps = bits<Ints>(rounded) << (23 - kStepBits);
#if TRIPTYCH_WIDTH == 4
  Floats p = f * all(1.5353125986466385e-4f) + all(1.3398872648394545e-3f);
  p = p * f + all(9.618438244335071e-3f);
  p = p * f + all(5.5503324752227017e-2f);
  p = p * f + all(2.4022647906031105e-1f);
  p = p * f + all(6.931472028537942e-1f);
  return bits<Floats>(bits<Ints>(p * f + all(1.0f)) + steps);
#else
#if TRIPTYCH_WIDTH == 16
  Floats p = f * all(1.3550326392729402e-5f) + all(9.384151875377505e-4f);
  p = p * f + all(4.332169891663827e-2f);
#else
  Floats p = f * all(2.3480567438638338e-6f) + all(1.0841913078690768e-4f);
  p = p * f + all(3.753539223925225e-3f);
  p = p * f + all(8.664339678524748e-2f);
#endif
  return (p * f + all(1.0f)) * bits<Floats>(look_up(bits<Ints>(rounded)) + steps);
#endif
}

// 2^(x / kSteps). Clamped, it is held to [2^-126, 2^127.9]; else x / kSteps must lie there.
template <bool clamped>
TRIPTYCH_INLINE Floats exp2_steps(Floats x) {
  if (clamped) x = smaller(all(127.9f * kSteps), larger(all(-126.0f * kSteps), x));
  const Floats rounded = x + all(kRound);
  return power(x - (rounded - all(kRound)), rounded);
}
constexpr float kSafe = 120.0f * kSteps;  // |x| up to which nothing need be clamped

// e^-|x|, at least 2^-126.
TRIPTYCH_INLINE Floats exp_minus_abs(Floats x) {
  const Floats m = larger(all(-87.0f), bits<Floats>(bits<Ints>(x) | INT32_MIN));
  const Floats rounded = m * all(kStepsLog2e) + all(kRound);
  return power(m * all(kStepsLog2e) - (rounded - all(kRound)), rounded);
}

// log(1 + t) for t in [0, 1]; 3.1e-8.
TRIPTYCH_INLINE Floats log1p(Floats t) {
  Floats p = t * all(5.2327008489642165e-3f) + all(-2.950526225731053e-2f);
  p = p * t + all(7.822598535788129e-2f);
  p = p * t + all(-1.3663248245035906e-1f);
  p = p * t + all(1.9106007745512238e-1f);
  p = p * t + all(-2.4842982429214444e-1f);
  p = p * t + all(3.331909683111857e-1f);
  p = p * t + all(-4.9999493141475326e-1f);
  p = p * t + all(9.999999698796327e-1f);
  return p * t;
}

TRIPTYCH_INLINE Floats positive_part(Floats x) { return larger(all(0.0f), x); }

TRIPTYCH_INLINE Floats softplus(Floats x) { return positive_part(x) + log1p(exp_minus_abs(x)); }

// 1 / (1 + e^-x) from t = e^-|x|.
TRIPTYCH_INLINE Floats sigmoid(Floats x, Floats t) {
  const Ints negative = bits<Ints>(x) >> 31;
  const Floats top = bits<Floats>((bits<Ints>(t) & negative) | (bits<Ints>(all(1.0f)) & ~negative));
  return top / (all(1.0f) + t);
}
TRIPTYCH_INLINE Floats sigmoid(Floats x) { return sigmoid(x, exp_minus_abs(x)); }
