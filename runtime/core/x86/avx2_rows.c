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
    const float inverse = 1.0f / tatvpr_sqrt(tatvpr_tree_ps(low, high) / width + eps);
    const __m256 inverses = _mm256_set1_ps(inverse);
    const int32_t eights = dim / 8 * 8;
    for (int32_t i = 0; i < eights; i += 8) {
        const __m256 n = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), means), inverses);
        const __m256 scaled = _mm256_mul_ps(n, _mm256_loadu_ps(gamma + i));
        _mm256_storeu_ps(y + i, _mm256_add_ps(scaled, _mm256_loadu_ps(beta + i)));
    }
    for (int32_t i = eights; i < dim; i++) {
        y[i] = ((x[i] - mean) * inverse) * gamma[i] + beta[i];
    }
}

/* max(x, low) is `low` where x is NaN, as tatvpr_clip has it. */
static inline void clip(__m256 *x /* [8] */, float low, float high) {
    TATVPR_EIGHT(i) x[i] = _mm256_max_ps(x[i], _mm256_set1_ps(low));
    TATVPR_EIGHT(i) x[i] = _mm256_min_ps(x[i], _mm256_set1_ps(high));
}

static inline void horner(const __m256 *x /* [8] */, const float *c, int count, __m256 *y) {
    TATVPR_EIGHT(i) y[i] = _mm256_mul_ps(_mm256_set1_ps(c[0]), x[i]);
    for (int j = 1; j < count - 1; j++) {
        TATVPR_EIGHT(i) y[i] = _mm256_mul_ps(_mm256_add_ps(y[i], _mm256_set1_ps(c[j])), x[i]);
        TATVPR_TOGETHER(y);
    }
    TATVPR_EIGHT(i) y[i] = _mm256_add_ps(y[i], _mm256_set1_ps(c[count - 1]));
}

static inline void gelu_64(const float *x, float *y) {
    static const float p[7] = TATVPR_ERF_P;
    static const float q[5] = TATVPR_ERF_Q;
    __m256 a[8], z[8], above[8], below[8];
    TATVPR_EIGHT(i) {
        a[i] = _mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(TATVPR_SQRT_HALF));
    }
    clip(a, -TATVPR_ERF_CLAMP, TATVPR_ERF_CLAMP);
    TATVPR_EIGHT(i) z[i] = _mm256_mul_ps(a[i], a[i]);
    horner(z, p, 7, above);
    TATVPR_EIGHT(i) a[i] = _mm256_mul_ps(a[i], above[i]);
    TATVPR_TOGETHER(a);
    horner(z, q, 5, below);
    TATVPR_EIGHT(i) a[i] = _mm256_div_ps(a[i], below[i]);
    clip(a, -1.0f, 1.0f);
    TATVPR_TOGETHER(a);
    TATVPR_EIGHT(i) {
        const __m256 half = _mm256_mul_ps(_mm256_set1_ps(0.5f), _mm256_loadu_ps(x + 8 * i));
        a[i] = _mm256_add_ps(_mm256_set1_ps(1.0f), a[i]);
        _mm256_storeu_ps(y + 8 * i, _mm256_mul_ps(half, a[i]));
    }
}

void tatvpr_avx2_gelu(const float *x, int32_t count, float *y) {
    const int32_t whole = count / 64 * 64;
    for (int32_t i = 0; i < whole; i += 64) {
        gelu_64(x + i, y + i);
    }
    if (whole < count) {
        float tail[64] = {0};
        for (int32_t i = whole; i < count; i++) {
            tail[i - whole] = x[i];
        }
        gelu_64(tail, tail);
        for (int32_t i = whole; i < count; i++) {
            y[i] = tail[i - whole];
        }
    }
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
    tatvpr_quantise_with(x, k_in, tatvpr_q_stride(k_in), 1.0f / s, q);
    return s;
}
