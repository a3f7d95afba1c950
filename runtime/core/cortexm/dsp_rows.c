/* Float steps on one row on Cortex-M4 and M7: the operations of common/portable_rows.c in the
 * same order, arranged for the registers of a scalar FPU.
 */
#include "../common/core.h"
#include "../common/floats.h"

#if defined(__ARM_FEATURE_DSP) && !defined(__ARM_FEATURE_MVE)

#include "cortexm.h"
#include "dsp_simd.h"

float tatvpr_dsp_quantise(const float *x, int32_t k_in, int8_t *q) {
    float largest = TATVPR_MIN_ABS_MAX;
#pragma GCC unroll 8
    for (int32_t i = 0; i < k_in; i++) {
        largest = tatvpr_greater_abs(largest, x[i]);
    }
    const float s = largest / TATVPR_QUANT_MAX;
    /* |x / s| is at most 127 and a rounding: it cannot leave -127..127 */
#pragma GCC unroll 8
    for (int32_t i = 0; i < k_in; i++) {
        q[i] = (int8_t)tatvpr_round_to_int(x[i] / s);
    }
    const int32_t padded = (int32_t)tatvpr_round_up((size_t)k_in, TATVPR_ROW_ALIGN);
    for (int32_t i = k_in; i < padded; i++) {
        q[i] = 0;
    }
    return s;
}

#define LANES TATVPR_PARTIAL_SUMS

/* Sum of (x - shift)^power, power 1 or 2, as spec/floats.py sum32 adds it up. */
static inline __attribute__((always_inline)) float row_sum(const float *x, int32_t dim,
                                                           float shift, int squared) {
    float lanes[LANES];
#pragma GCC unroll 16
    for (int32_t i = 0; i < LANES; i++) {
        lanes[i] = 0.0f;
    }
    int32_t first = 0;
    for (; first + LANES <= dim; first += LANES) {
#pragma GCC unroll 16
        for (int32_t i = 0; i < LANES; i++) {
            const float centred = squared ? x[first + i] - shift : x[first + i];
            lanes[i] += squared ? centred * centred : centred;
        }
    }
    float partial[LANES]; /* a copy, so that the lanes above live in registers */
#pragma GCC unroll 16
    for (int32_t i = 0; i < LANES; i++) {
        partial[i] = lanes[i];
    }
    for (int32_t i = 0; first + i < dim; i++) {
        const float centred = squared ? x[first + i] - shift : x[first + i];
        partial[i] += squared ? centred * centred : centred;
    }
    return tatvpr_sum_tree(partial);
}

void tatvpr_dsp_layer_norm(const float *x, const float *gamma, const float *beta, float eps,
                           int32_t dim, float *y) {
    const float width = (float)dim;
    const float mean = row_sum(x, dim, 0.0f, 0) / width;
    const float variance = row_sum(x, dim, mean, 1) / width;
    const float deviation = tatvpr_sqrt(variance + eps);
#pragma GCC unroll 4
    for (int32_t i = 0; i < dim; i++) {
        y[i] = ((x[i] - mean) / deviation) * gamma[i] + beta[i];
    }
}

void tatvpr_dsp_gelu(const float *x, int32_t count, float *y) {
    static const float above_of[7] = TATVPR_ERF_P;
    static const float below_of[5] = TATVPR_ERF_Q;
    const float p0 = above_of[0], p1 = above_of[1], p2 = above_of[2], p3 = above_of[3];
    const float p4 = above_of[4], p5 = above_of[5], p6 = above_of[6];
    const float q0 = below_of[0], q1 = below_of[1], q2 = below_of[2], q3 = below_of[3];
    const float q4 = below_of[4];
    for (int32_t i = 0; i < count; i++) {
        const float half = 0.5f * x[i];
        float e = tatvpr_at_most(x[i] * TATVPR_SQRT_HALF, TATVPR_ERF_CLAMP);
        e = tatvpr_at_least(e, -TATVPR_ERF_CLAMP);
        const float z = e * e;
        const float above = (((((p0 * z + p1) * z + p2) * z + p3) * z + p4) * z + p5) * z + p6;
        const float below = (((q0 * z + q1) * z + q2) * z + q3) * z + q4;
        const float erf = tatvpr_at_least(tatvpr_at_most((e * above) / below, 1.0f), -1.0f);
        y[i] = half * (1.0f + erf);
    }
}

#endif
