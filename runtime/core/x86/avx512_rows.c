/* AVX-512: GELU and quantisation. */
#include "avx512_rows.h"

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
            _mm512_store_ps(tail + (j - i), _mm512_maskz_loadu_ps(there, x + j));
        }
        gelu_128(tail, tail);
        for (int32_t j = i; j < count; j += 16) {
            const __mmask16 there = tatvpr_first_lanes(count - j);
            _mm512_mask_storeu_ps(y + j, there, _mm512_load_ps(tail + (j - i)));
        }
    }
}

float tatvpr_avx512_quantise(const float *x, int32_t k_in, int8_t *q) {
    const float s = tatvpr_scale(tatvpr_magnitudes(x, 1, 0, k_in));
    tatvpr_quantise_row(x, k_in, _mm512_set1_ps(1.0f / s), q);
    return s;
}
