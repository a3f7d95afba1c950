/* Quantisation where floats go one by one: Cortex-M4 and M7, RV32. */
#ifndef TATVPR_MCU_QUANTISE_H
#define TATVPR_MCU_QUANTISE_H

#include "../common/core.h"
#include "../common/floats.h"

#if defined(TATVPR_MCU_DSP)
#include "dsp/dsp_simd.h"
#else
#include "tables/tables_floats.h"
#endif

static inline float tatvpr_abs_max(const float *x, int32_t rows, int32_t stride, int32_t columns) {
    float largest = TATVPR_MIN_ABS_MAX;
    for (int32_t t = 0; t < rows; t++, x += stride) {
#pragma GCC unroll 8
        for (int32_t i = 0; i < columns; i++) {
            largest = tatvpr_greater_abs(largest, x[i]);
        }
    }
    return largest;
}

/* tatvpr_kernels.quantise */
static inline float tatvpr_quantise_row(const float *x, int32_t k_in, int8_t *q) {
    const float s = tatvpr_abs_max(x, 1, 0, k_in) / TATVPR_QUANT_MAX;
    const float inverse = 1.0f / s;
    /* |x * inverse| is at most 127 and two roundings: it cannot leave -127..127 */
#pragma GCC unroll 8
    for (int32_t i = 0; i < k_in; i++) {
        q[i] = (int8_t)tatvpr_round_to_int(x[i] * inverse);
    }
    tatvpr_pad_row(q, k_in);
    return s;
}

#endif
