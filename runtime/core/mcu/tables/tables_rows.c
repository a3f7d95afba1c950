/* Float steps on one row: the operations of common/portable_rows.c in the same order, with the
 * partial sums of LayerNorm in registers.
 */
#include "../../common/core.h"

#if defined(TATVPR_MCU_TABLES)

#include "../mcu.h"
#include "../quantise.h"

float tatvpr_tables_quantise(const float *x, int32_t k_in, int8_t *q) {
    return tatvpr_quantise_row(x, k_in, q);
}

#define LANES TATVPR_PARTIAL_SUMS

/* 16 partial sums of x - shift, or of its square, to one. */
static inline float sum_row(const float *x, int32_t dim, float shift, int square) {
    float partial[LANES] = {0};
    int32_t i = 0;
    for (; i + LANES <= dim; i += LANES) {
#pragma GCC unroll 16
        for (int32_t j = 0; j < LANES; j++) {
            const float centred = x[i + j] - shift;
            partial[j] += square ? centred * centred : x[i + j];
        }
    }
    for (int32_t j = 0; i + j < dim; j++) {
        const float centred = x[i + j] - shift;
        partial[j] += square ? centred * centred : x[i + j];
    }
    return tatvpr_sum_tree(partial);
}

void tatvpr_tables_layer_norm(const float *x, const float *gamma, const float *beta, float eps,
                              int32_t dim, float *y) {
    const float width = (float)dim;
    const float mean = sum_row(x, dim, 0.0f, 0) / width;
    const float variance = sum_row(x, dim, mean, 1) / width;
    const float inverse = 1.0f / tatvpr_sqrt(variance + eps);
#pragma GCC unroll 4
    for (int32_t i = 0; i < dim; i++) {
        y[i] = ((x[i] - mean) * inverse) * gamma[i] + beta[i];
    }
}

#endif
