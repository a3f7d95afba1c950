/* AVX-512: LayerNorm, alone or with the quantisation that follows it. The 16 partial sums of the rule
 * are one register.
 *
 * Four rows go together, each an own chain of additions: a row alone waits for latencies, and the
 * scheduler is too small to reach the next row by itself. What is kept of a row are variables with
 * names: GCC stores an array's elements in every step. Zeros beyond `dim` change no partial sum:
 * these begin at +0 and never become -0. */
#include "avx512_rows.h"

/* 16 partial sums to one, in the order of tatvpr_sum_tree: 8, 4, 2, 1. */
static inline float sum_tree(__m512 v) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 four =
        _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* `STEP` for every 16 columns `i`, of which the lanes `there` exist; its own loop where all do. */
#define COLUMNS(STEP)                                                 \
    {                                                                 \
        int32_t i = 0;                                                \
        for (; i + 16 <= dim; i += 16) {                              \
            const __mmask16 there = 0xFFFF;                           \
            STEP                                                      \
        }                                                             \
        if (i < dim) {                                                \
            const __mmask16 there = tatvpr_first_lanes(dim - i);      \
            STEP                                                      \
        }                                                             \
    }

#define BEGIN(r)                                    \
    const float *x##r = x + (ptrdiff_t)(r) * dim;   \
    float *y##r = y + (ptrdiff_t)(r) * dim;         \
    __m512 sum##r = _mm512_setzero_ps(), most##r = least;

#define ADD(r) sum##r = _mm512_add_ps(sum##r, _mm512_maskz_loadu_ps(there, x##r + i));

#define MEAN(r)                                                      \
    const __m512 mean##r = _mm512_set1_ps(sum_tree(sum##r) / width); \
    sum##r = _mm512_setzero_ps();

#define ADD_SQUARE(r)                                                                       \
    {                                                                                       \
        const __m512 v = _mm512_maskz_loadu_ps(there, x##r + i);                            \
        const __m512 centred = _mm512_maskz_sub_ps(there, v, mean##r);                      \
        sum##r = _mm512_add_ps(sum##r, _mm512_mul_ps(centred, centred));                    \
    }

#define INVERSE(r)               \
    const __m512 inverse##r =    \
        _mm512_set1_ps(1.0f / tatvpr_sqrt(sum_tree(sum##r) / width + eps));

#define WRITE(r)                                                                            \
    {                                                                                       \
        const __m512 v = _mm512_maskz_loadu_ps(there, x##r + i);                            \
        const __m512 n = _mm512_mul_ps(_mm512_sub_ps(v, mean##r), inverse##r);              \
        const __m512 written = _mm512_add_ps(_mm512_mul_ps(n, g), b);                       \
        _mm512_mask_storeu_ps(y##r + i, there, written);                                    \
        LARGEST(r)                                                                          \
    }

#define NORM(EACH)                                                          \
    const float width = (float)dim;                                         \
    const __m512 least = _mm512_set1_ps(TATVPR_MIN_ABS_MAX);                \
    EACH(BEGIN)                                                             \
    COLUMNS(EACH(ADD))                                                      \
    EACH(MEAN)                                                              \
    COLUMNS(EACH(ADD_SQUARE))                                               \
    EACH(INVERSE)                                                           \
    COLUMNS(const __m512 g = _mm512_maskz_loadu_ps(there, gamma + i);       \
            const __m512 b = _mm512_maskz_loadu_ps(there, beta + i);        \
            EACH(WRITE))

#define LARGEST(r)
void tatvpr_avx512_layer_norm(const float *x, const float *gamma, const float *beta, float eps,
                              int32_t dim, float *y) {
    NORM(EACH_1)
    (void)most0;
}
#undef LARGEST

/* Beyond `dim`, what is written is beta - mean * ... of zeros: gamma and beta are 0 there, and the
 * product of something finite with them is 0. What is not finite gives way in the maximum. */
#define LARGEST(r) most##r = tatvpr_larger(most##r, written);
void tatvpr_avx512_norm_quantise(const float *x, const float *gamma, const float *beta, float eps,
                                 int32_t dim, float *y, int8_t *q, int32_t q_stride, float *s) {
    NORM(EACH_4)
    float inverse[4];
    const __m128 scales = tatvpr_four_scales(most0, most1, most2, most3);
    _mm_storeu_ps(s, scales);
    _mm_storeu_ps(inverse, _mm_div_ps(_mm_set1_ps(1.0f), scales));
    for (int32_t r = 0; r < 4; r++, y += dim, q += q_stride) {
        tatvpr_quantise_row(y, dim, _mm512_set1_ps(inverse[r]), q);
    }
}
