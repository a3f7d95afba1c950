/* AVX2: LayerNorm, GELU and quantisation of one row. */
#include "avx2.h"

void tatvpr_avx2_layer_norm(const float *x, const float *gamma, const float *beta, float eps,
                            int32_t dim, float *y) {
    const int32_t whole = dim / 16 * 16;
    const float width = (float)dim;
    __m256 low = _mm256_setzero_ps();
    __m256 high = _mm256_setzero_ps();
    for (int32_t i = 0; i < whole; i += 16) {
        low = _mm256_add_ps(low, _mm256_loadu_ps(x + i));
        high = _mm256_add_ps(high, _mm256_loadu_ps(x + i + 8));
    }
    float partial[16];
    if (whole < dim) { /* the last, short round of the partial sums */
        _mm256_storeu_ps(partial, low);
        _mm256_storeu_ps(partial + 8, high);
        for (int32_t i = whole; i < dim; i++) {
            partial[i - whole] += x[i];
        }
        low = _mm256_loadu_ps(partial);
        high = _mm256_loadu_ps(partial + 8);
    }
    const float mean = tatvpr_tree_ps(low, high) / width;
    const __m256 means = _mm256_set1_ps(mean);
    low = _mm256_setzero_ps();
    high = _mm256_setzero_ps();
    for (int32_t i = 0; i < whole; i += 16) {
        const __m256 a = _mm256_sub_ps(_mm256_loadu_ps(x + i), means);
        const __m256 b = _mm256_sub_ps(_mm256_loadu_ps(x + i + 8), means);
        low = _mm256_add_ps(low, _mm256_mul_ps(a, a));
        high = _mm256_add_ps(high, _mm256_mul_ps(b, b));
    }
    if (whole < dim) {
        _mm256_storeu_ps(partial, low);
        _mm256_storeu_ps(partial + 8, high);
        for (int32_t i = whole; i < dim; i++) {
            const float centred = x[i] - mean;
            partial[i - whole] += centred * centred;
        }
        low = _mm256_loadu_ps(partial);
        high = _mm256_loadu_ps(partial + 8);
    }
    const float deviation = tatvpr_sqrt(tatvpr_tree_ps(low, high) / width + eps);
    const __m256 deviations = _mm256_set1_ps(deviation);
    const int32_t eights = dim / 8 * 8;
    for (int32_t i = 0; i < eights; i += 8) {
        const __m256 n =
            _mm256_div_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), means), deviations);
        const __m256 scaled = _mm256_mul_ps(n, _mm256_loadu_ps(gamma + i));
        _mm256_storeu_ps(y + i, _mm256_add_ps(scaled, _mm256_loadu_ps(beta + i)));
    }
    for (int32_t i = eights; i < dim; i++) {
        y[i] = ((x[i] - mean) / deviation) * gamma[i] + beta[i];
    }
}

static __m256 horner(__m256 x, const float *c, int count) {
    __m256 y = _mm256_set1_ps(c[0]);
    for (int i = 1; i < count; i++) {
        y = _mm256_add_ps(_mm256_mul_ps(y, x), _mm256_set1_ps(c[i]));
    }
    return y;
}

static __m256 clip(__m256 x, float low, float high) {
    /* max(x, low) is `low` where x is NaN, as tatvpr_clip has it */
    return _mm256_min_ps(_mm256_max_ps(x, _mm256_set1_ps(low)), _mm256_set1_ps(high));
}

void tatvpr_avx2_gelu(const float *x, int32_t count, float *y) {
    static const float p[7] = TATVPR_ERF_P;
    static const float q[5] = TATVPR_ERF_Q;
    const int32_t eights = count / 8 * 8;
    for (int32_t i = 0; i < eights; i += 8) {
        const __m256 v = _mm256_loadu_ps(x + i);
        const __m256 a = clip(_mm256_mul_ps(v, _mm256_set1_ps(TATVPR_SQRT_HALF)),
                              -TATVPR_ERF_CLAMP, TATVPR_ERF_CLAMP);
        const __m256 z = _mm256_mul_ps(a, a);
        const __m256 erf =
            clip(_mm256_div_ps(_mm256_mul_ps(a, horner(z, p, 7)), horner(z, q, 5)), -1.0f, 1.0f);
        const __m256 half = _mm256_mul_ps(_mm256_set1_ps(0.5f), v);
        _mm256_storeu_ps(y + i, _mm256_mul_ps(half, _mm256_add_ps(_mm256_set1_ps(1.0f), erf)));
    }
    for (int32_t i = eights; i < count; i++) {
        y[i] = tatvpr_gelu_one(x[i]);
    }
}

/* rint(x / s) without dividing: x * (1 / s) is within 1.5 units in the last place of x / s, so it
 * can round to another integer only where it lies that near to a half. There, and only there, the
 * eight are divided. |x / s| is at most 127, the error at most 127 * 1.5 * 2^-23 < NEAR_HALF. */
#define NEAR_HALF 1e-4f

static __m256i rounded(const float *x, __m256 s, __m256 inverse) {
    const __m256 v = _mm256_loadu_ps(x);
    __m256 product = _mm256_mul_ps(v, inverse);
    enum { nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }; /* clang wants a constant */
    __m256 whole = _mm256_round_ps(product, nearest);
    const __m256 sign = _mm256_set1_ps(-0.0f);
    const __m256 away = _mm256_andnot_ps(sign, _mm256_sub_ps(product, whole)); /* in 0 .. 0.5 */
    const __m256 safe = _mm256_cmp_ps(away, _mm256_set1_ps(0.5f - NEAR_HALF), _CMP_LT_OQ);
    if (_mm256_movemask_ps(safe) != 0xFF) {
        product = _mm256_div_ps(v, s);
        whole = _mm256_round_ps(product, nearest);
    }
    return _mm256_cvtps_epi32(whole);
}

float tatvpr_avx2_quantise(const float *x, int32_t k_in, int8_t *q) {
    const int32_t whole = k_in / 32 * 32;
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 m0 = _mm256_set1_ps(TATVPR_MIN_ABS_MAX);
    __m256 m1 = m0;
    for (int32_t i = 0; i < whole; i += 16) { /* max(a, m) is m where a is NaN */
        m0 = _mm256_max_ps(_mm256_andnot_ps(sign, _mm256_loadu_ps(x + i)), m0);
        m1 = _mm256_max_ps(_mm256_andnot_ps(sign, _mm256_loadu_ps(x + i + 8)), m1);
    }
    float largest = tatvpr_max_ps(_mm256_max_ps(m0, m1));
    for (int32_t i = whole; i < k_in; i++) {
        const float a = x[i] < 0.0f ? -x[i] : x[i];
        largest = a > largest ? a : largest;
    }
    const float s = largest / TATVPR_QUANT_MAX;
    const __m256 scale = _mm256_set1_ps(s);
    const __m256 inverse = _mm256_set1_ps(1.0f / s);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i least = _mm256_set1_epi8(-127);
    for (int32_t i = 0; i < whole; i += 32) {
        const __m256i ab = _mm256_packs_epi32(rounded(x + i, scale, inverse),
                                              rounded(x + i + 8, scale, inverse));
        const __m256i cd = _mm256_packs_epi32(rounded(x + i + 16, scale, inverse),
                                              rounded(x + i + 24, scale, inverse));
        __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(ab, cd), order);
        bytes = _mm256_max_epi8(bytes, least); /* -128 only comes from what is not finite */
        _mm256_storeu_si256((__m256i *)(void *)(q + i), bytes);
    }
    for (int32_t i = whole; i < k_in; i++) {
        q[i] = (int8_t)tatvpr_clip(tatvpr_rint(x[i] / s), -TATVPR_QUANT_MAX, TATVPR_QUANT_MAX);
    }
    const int32_t padded = (int32_t)tatvpr_round_up((size_t)k_in, TATVPR_ROW_ALIGN);
    for (int32_t i = k_in; i < padded; i++) {
        q[i] = 0;
    }
    return s;
}
