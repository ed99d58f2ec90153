// Exponentials, to about 1e-7 of their value; the coefficients are minimax fits of ours (relative error, by linear
// programming). NaN stays NaN. Included as vector.h is.
#pragma once

constexpr float kLog2e = 1.44269504088896340736f;

// 2^f for f in [-1/2, 1/2], exactly 1 at 0, so that a slow decay stays slow; 2.0e-9 before rounding.
TRIPTYCH_INLINE Floats exp2_fraction(Floats f) {
  Floats p = f * all(1.5353125986466385e-4f) + all(1.3398872648394545e-3f);
  p = p * f + all(9.618438244335071e-3f);
  p = p * f + all(5.5503324752227017e-2f);
  p = p * f + all(2.4022647906031105e-1f);
  p = p * f + all(6.931472028537942e-1f);
  return p * f + all(1.0f);
}

// Adding 1.5 * 2^23 leaves the nearest integer in the low bits of a float, from where a shift takes it to the exponent.
constexpr float kRound = 12582912.0f;

TRIPTYCH_INLINE Floats scale(Floats p, Floats rounded) {
  return bits<Floats>(bits<Ints>(p) + (bits<Ints>(rounded) << 23));
}

// 2^x, held to [2^-126, 2^127.9].
TRIPTYCH_INLINE Floats exp2(Floats x) {
  x = smaller(all(127.9f), larger(all(-126.0f), x));
  const Floats rounded = x + all(kRound);
  return scale(exp2_fraction(x - (rounded - all(kRound))), rounded);
}

// e^-|x|, at least 2^-126.
TRIPTYCH_INLINE Floats exp_minus_abs(Floats x) {
  const Floats m = larger(all(-87.0f), bits<Floats>(bits<Ints>(x) | INT32_MIN));
  const Floats rounded = m * all(kLog2e) + all(kRound);
  return scale(exp2_fraction(m * all(kLog2e) - (rounded - all(kRound))), rounded);
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
