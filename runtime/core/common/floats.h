/* Float functions spelled out, so that every CPU computes the same bits: the lines of
 * tatvpr_edge/spec/floats.py in C. Compile with -ffp-contract=off and never with -ffast-math.
 *
 * Constants of exp and log: S. L. Moshier, Cephes Mathematical Library (single precision).
 * Constants of erf: the rational approximation x * P(x^2) / Q(x^2) that Eigen and XLA use.
 */
#ifndef TATVPR_FLOATS_H
#define TATVPR_FLOATS_H

#include <stdint.h>

#define TATVPR_MIN_ABS_MAX 1e-5f
#define TATVPR_QUANT_MAX 127.0f

#define TATVPR_EXP_LOWEST (-87.0f) /* below: zero. exp(-87) is above FLT_MIN */
#define TATVPR_EXP_HIGHEST 88.0f
#define TATVPR_LOG2_E 1.44269504f
#define TATVPR_LN2_HIGH 0.693359375f
#define TATVPR_LN2_LOW (-2.12194440e-4f)
#define TATVPR_EXP_POLY \
    {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f, \
     4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}
#define TATVPR_SQRT_HALF 0.70710678f
#define TATVPR_ERF_CLAMP 4.0f
#define TATVPR_ERF_P \
    {-2.72614225801306e-10f, 2.77068142495902e-08f, -2.10102402082508e-06f, \
     -5.69250639462346e-05f, -7.34990630326855e-04f, -2.95459980854025e-03f, \
     -1.60960333262415e-02f}
#define TATVPR_ERF_Q \
    {-1.45660718464996e-05f, -2.13374055278905e-04f, -1.68282697438203e-03f, \
     -7.37332916720468e-03f, -1.42647390514189e-02f}

/* 1.5 * 2^23: adding and subtracting it rounds |x| < 2^22 to the nearest integer, ties to even. */
#define TATVPR_RINT_MAGIC 12582912.0f

/* With TATVPR_PERMUTED (test builds only) reductions take another order: how far a descriptor
 * moves when they do is what golden[k].min_cosine is made from. */
#define TATVPR_PARTIAL_SUMS 16

static inline float tatvpr_rint(float x) { return (x + TATVPR_RINT_MAGIC) - TATVPR_RINT_MAGIC; }

/* min(max(x, low), high); NaN becomes `low`, so that a cast to an integer is always defined. */
static inline float tatvpr_clip(float x, float low, float high) {
    if (!(x > low)) {
        return low;
    }
    return x < high ? x : high;
}

static inline uint32_t tatvpr_float_bits(float x) {
    union { float f; uint32_t u; } v;
    v.f = x;
    return v.u;
}

static inline float tatvpr_bits_float(uint32_t u) {
    union { float f; uint32_t u; } v;
    v.u = u;
    return v.f;
}

/* Whether x > 0 is a power of two: dividing by it is multiplying by 1 / x, to the bit. */
static inline int tatvpr_is_power_of_two(float x) {
    return (tatvpr_float_bits(x) & 0x007FFFFFu) == 0;
}

/* One element of a row of scale s as an integer in -127..127; `inverse` is 1 / s, one division a
 * row. */
static inline int8_t tatvpr_quantise_one(float x, float inverse) {
    return (int8_t)tatvpr_clip(tatvpr_rint(x * inverse), -TATVPR_QUANT_MAX, TATVPR_QUANT_MAX);
}

#if (defined(__riscv) && !defined(__riscv_flen)) || (defined(__arm__) && !defined(__ARM_FP))
/* Square root without a floating-point unit or a C library: the root's 24 bits and one more, digit
 * by digit; what remains says how to round (a tie cannot happen). Correctly rounded for normal x. */
static inline float tatvpr_sqrt(float x) {
    const uint32_t bits = tatvpr_float_bits(x);
    if (!(x > 0.0f) || bits >= 0x7F800000u) {
        return x < 0.0f ? tatvpr_bits_float(0x7FC00000u) : x;
    }
    const int32_t exponent = (int32_t)(bits >> 23) - 127;
    uint32_t rest = ((bits & 0x7FFFFFu) | 0x800000u) << (1 + (exponent & 1));
    uint32_t root = 0;
    uint32_t doubled = 0;
    for (uint32_t digit = 1u << 24; digit != 0; digit >>= 1) {
        const uint32_t trial = doubled + digit;
        if (trial <= rest) {
            rest -= trial;
            doubled = trial + digit;
            root += digit;
        }
        rest <<= 1;
    }
    root += root & (rest != 0);
    return tatvpr_bits_float((root >> 1) + (uint32_t)((exponent >> 1) + 126) * 0x800000u);
}
#else
static inline float tatvpr_sqrt(float x) { return __builtin_sqrtf(x); }
#endif

static inline float tatvpr_exp(float x) {
    static const float c[6] = TATVPR_EXP_POLY;
    const float clipped = tatvpr_clip(x, TATVPR_EXP_LOWEST, TATVPR_EXP_HIGHEST);
    const float n = tatvpr_rint(clipped * TATVPR_LOG2_E);
    const float r = (clipped - n * TATVPR_LN2_HIGH) - n * TATVPR_LN2_LOW;
    float y = c[0];
    for (int i = 1; i < 6; i++) {
        y = y * r + c[i];
    }
    y = (y * (r * r) + r) + 1.0f;
    if (x < TATVPR_EXP_LOWEST) {
        return 0.0f;
    }
    return y * tatvpr_bits_float((uint32_t)((int32_t)n + 127) << 23);
}

/* Natural logarithm of a normal positive number. */
static inline float tatvpr_log(float x) {
    static const float c[9] = {7.0376836292e-2f, -1.1514610310e-1f, 1.1676998740e-1f,
                               -1.2420140846e-1f, 1.4249322787e-1f, -1.6668057665e-1f,
                               2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f};
    const uint32_t bits = tatvpr_float_bits(x);
    int32_t exponent = (int32_t)((bits >> 23) & 255u) - 126;
    float m = tatvpr_bits_float((bits & 0x007FFFFFu) | 0x3F000000u); /* [0.5, 1) */
    if (m < TATVPR_SQRT_HALF) {
        exponent -= 1;
        m = (m + m) - 1.0f;
    } else {
        m = m - 1.0f;
    }
    const float e = (float)exponent;
    const float z = m * m;
    float y = c[0];
    for (int i = 1; i < 9; i++) {
        y = y * m + c[i];
    }
    y = (y * m) * z;
    y = y + e * TATVPR_LN2_LOW;
    y = y - 0.5f * z;
    return (m + y) + e * TATVPR_LN2_HIGH;
}

static inline float tatvpr_erf(float x) {
    static const float p[7] = TATVPR_ERF_P;
    static const float q[5] = TATVPR_ERF_Q;
    x = tatvpr_clip(x, -TATVPR_ERF_CLAMP, TATVPR_ERF_CLAMP);
    const float z = x * x;
    float above = p[0];
    float below = q[0];
    for (int i = 1; i < 7; i++) {
        above = above * z + p[i];
    }
    for (int i = 1; i < 5; i++) {
        below = below * z + q[i];
    }
    return tatvpr_clip((x * above) / below, -1.0f, 1.0f);
}

static inline float tatvpr_gelu_one(float x) {
    return (0.5f * x) * (1.0f + tatvpr_erf(x * TATVPR_SQRT_HALF));
}

/* The 16 partial sums to one, in the fixed order of spec/floats.py sum32. */
static inline float tatvpr_sum_tree(float *partial /* [16], overwritten */) {
#if defined(TATVPR_PERMUTED)
    for (int i = 1; i < TATVPR_PARTIAL_SUMS; i++) { /* another order, on purpose */
        partial[0] = partial[0] + partial[TATVPR_PARTIAL_SUMS - i];
    }
    return partial[0];
#else
    for (int width = TATVPR_PARTIAL_SUMS / 2; width > 0; width /= 2) {
        for (int i = 0; i < width; i++) {
            partial[i] = partial[i] + partial[width + i];
        }
    }
    return partial[0];
#endif
}

/* Partial sum that element `i` is added to. */
static inline int32_t tatvpr_partial_of(int32_t i) {
#if defined(TATVPR_PERMUTED)
    return (i / 7) % TATVPR_PARTIAL_SUMS;
#else
    return i % TATVPR_PARTIAL_SUMS;
#endif
}

#endif
