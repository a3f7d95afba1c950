/* AVX-512: LayerNorm, GELU and quantisation. The 16 partial sums of the rule are one register. */
#include "avx512_rows.h"

/* 16 partial sums to one, in the order of tatvpr_sum_tree: 8, 4, 2, 1. */
static inline float sum_tree(__m512 v) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 four =
        _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* Rows together, each an own chain of additions: a row alone waits for latencies, and
 * the scheduler is too small to reach the next row by itself. Zeros beyond `dim` change no partial
 * sum: these begin at +0 and never become -0. */
static inline __attribute__((always_inline)) void norm_rows(const float *x, const int rows,
                                                            const float *gamma, const float *beta,
                                                            float eps, int32_t dim, float *y) {
    const float width = (float)dim;
    __m512 sums[TATVPR_ROWS_TOGETHER], mean[TATVPR_ROWS_TOGETHER], inverse[TATVPR_ROWS_TOGETHER];
    TATVPR_EACH(r, rows) sums[r] = _mm512_setzero_ps();
    for (int32_t i = 0; i < dim; i += 16) {
        const __mmask16 there = tatvpr_first_lanes(dim - i);
        TATVPR_EACH(r, rows) {
            const __m512 v = _mm512_maskz_loadu_ps(there, x + (ptrdiff_t)r * dim + i);
            sums[r] = _mm512_add_ps(sums[r], v);
        }
    }
    TATVPR_EACH(r, rows) {
        mean[r] = _mm512_set1_ps(sum_tree(sums[r]) / width);
        sums[r] = _mm512_setzero_ps();
    }
    for (int32_t i = 0; i < dim; i += 16) {
        const __mmask16 there = tatvpr_first_lanes(dim - i);
        TATVPR_EACH(r, rows) {
            const __m512 v = _mm512_maskz_loadu_ps(there, x + (ptrdiff_t)r * dim + i);
            const __m512 centred = _mm512_maskz_sub_ps(there, v, mean[r]);
            sums[r] = _mm512_add_ps(sums[r], _mm512_mul_ps(centred, centred));
        }
    }
    TATVPR_EACH(r, rows) {
        inverse[r] = _mm512_set1_ps(1.0f / tatvpr_sqrt(sum_tree(sums[r]) / width + eps));
    }
    for (int32_t i = 0; i < dim; i += 16) {
        const __mmask16 there = tatvpr_first_lanes(dim - i);
        const __m512 g = _mm512_maskz_loadu_ps(there, gamma + i);
        const __m512 b = _mm512_maskz_loadu_ps(there, beta + i);
        TATVPR_EACH(r, rows) {
            const __m512 v = _mm512_maskz_loadu_ps(there, x + (ptrdiff_t)r * dim + i);
            const __m512 n = _mm512_mul_ps(_mm512_sub_ps(v, mean[r]), inverse[r]);
            _mm512_mask_storeu_ps(y + (ptrdiff_t)r * dim + i, there,
                                  _mm512_add_ps(_mm512_mul_ps(n, g), b));
        }
    }
}

void tatvpr_avx512_layer_norm(const float *x, const float *gamma, const float *beta, float eps,
                              int32_t dim, float *y) {
    norm_rows(x, 1, gamma, beta, eps, dim, y);
}

void tatvpr_avx512_layer_norm_rows(const float *x, const float *gamma, const float *beta,
                                   float eps, int32_t dim, float *y) {
    norm_rows(x, TATVPR_ROWS_TOGETHER, gamma, beta, eps, dim, y);
}

/* Eight registers together: chains of some 60 cycles. Both clips are one vrangeps, the smaller
 * magnitude with the first one's sign. The rule's (x / 2) * (1 + erf) is computed as
 * x * (1/2 + erf / 2), with the denominator's coefficients doubled: powers of two change no
 * rounding. The clip after the division stays, because the quotient exceeds 1 by a unit of the last
 * place for some arguments. */
static inline __attribute__((always_inline)) void gelu_128(const float *x, float *y) {
    enum { SMALLER = 2 };
    static const float p[7] = TATVPR_ERF_P;
    static const float q[5] = TATVPR_ERF_Q;
    const __m512 most = _mm512_set1_ps(TATVPR_ERF_CLAMP);
    const __m512 half = _mm512_set1_ps(0.5f);
    const __m512 root = _mm512_set1_ps(TATVPR_SQRT_HALF);
    __m512 a[8], z[8], v[8];
    TATVPR_EACH(i, 8) a[i] = _mm512_mul_ps(_mm512_loadu_ps(x + 16 * i), root);
    TATVPR_EACH(i, 8) a[i] = _mm512_range_ps(a[i], most, SMALLER);
    TATVPR_EACH(i, 8) z[i] = _mm512_mul_ps(a[i], a[i]);
    TATVPR_EACH(i, 8) v[i] = _mm512_mul_ps(z[i], _mm512_set1_ps(p[0]));
    for (int j = 1; j < 6; j++) {
        TATVPR_EACH(i, 8) v[i] = _mm512_mul_ps(_mm512_add_ps(v[i], _mm512_set1_ps(p[j])), z[i]);
        TATVPR_STEP(v, 8);
    }
    TATVPR_EACH(i, 8) a[i] = _mm512_mul_ps(a[i], _mm512_add_ps(v[i], _mm512_set1_ps(p[6])));
    TATVPR_STEP(a, 8);
    TATVPR_EACH(i, 8) v[i] = _mm512_mul_ps(z[i], _mm512_set1_ps(2.0f * q[0]));
    for (int j = 1; j < 4; j++) {
        TATVPR_EACH(i, 8) {
            v[i] = _mm512_mul_ps(_mm512_add_ps(v[i], _mm512_set1_ps(2.0f * q[j])), z[i]);
        }
        TATVPR_STEP(v, 8);
    }
    TATVPR_EACH(i, 8) {
        a[i] = _mm512_div_ps(a[i], _mm512_add_ps(v[i], _mm512_set1_ps(2.0f * q[4])));
    }
    TATVPR_EACH(i, 8) a[i] = _mm512_range_ps(a[i], half, SMALLER);
    TATVPR_EACH(i, 8) {
        const __m512 v_i = _mm512_loadu_ps(x + 16 * i);
        _mm512_storeu_ps(y + 16 * i, _mm512_mul_ps(v_i, _mm512_add_ps(half, a[i])));
    }
}

void tatvpr_avx512_gelu(const float *x, int32_t count, float *y) {
    int32_t i = 0;
    for (; i + 128 <= count; i += 128) {
        gelu_128(x + i, y + i);
    }
    if (i < count) {
        float tail[128] __attribute__((aligned(64))) = {0};
        for (int32_t j = i; j < count; j += 16) {
            const __mmask16 there = tatvpr_first_lanes(count - j);
            _mm512_store_ps(tail + j - i, _mm512_maskz_loadu_ps(there, x + j));
        }
        gelu_128(tail, tail);
        for (int32_t j = i; j < count; j += 16) {
            const __mmask16 there = tatvpr_first_lanes(count - j);
            _mm512_mask_storeu_ps(y + j, there, _mm512_load_ps(tail + j - i));
        }
    }
}

float tatvpr_avx512_quantise(const float *x, int32_t k_in, int8_t *q) {
    const float s = tatvpr_scale(tatvpr_magnitudes(x, 1, 0, k_in));
    const __m512 inverse = _mm512_set1_ps(1.0f / s);
    for (int32_t i = 0; i < k_in; i += 64) { /* the row is padded to a multiple of 64 */
        _mm512_storeu_si512(q + i, tatvpr_quantise_64(x + i, k_in - i, inverse));
    }
    return s;
}
