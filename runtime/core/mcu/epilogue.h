/* From integer sums to outputs: y = (acc * s) * scale + bias [+ residual], unfused (level b). */
#ifndef TATVPR_MCU_EPILOGUE_H
#define TATVPR_MCU_EPILOGUE_H

#include "../common/core.h"

/* `function` of the arguments, then whether every row has a scale of its own and whether a residual
 * is added: constants, so that neither is asked for an output. */
#define TATVPR_OF_KIND(job, function, ...)                                                        \
    ((job)->op->scale_per_row                                                                     \
         ? (job)->residual != NULL ? function(__VA_ARGS__, 1, 1) : function(__VA_ARGS__, 1, 0)    \
     : (job)->residual != NULL ? function(__VA_ARGS__, 0, 1)                                      \
                               : function(__VA_ARGS__, 0, 0))

/* Outputs n0 .. n0 + count of token `t`; sums are `step` elements apart. A macro over the type of
 * the sums, because C99 has no other way to write the loop once. */
#define TATVPR_DEFINE_EPILOGUE(NAME, TYPE)                                                        \
    static inline void NAME(const tatvpr_matmul *job, int32_t t, int32_t n0, int32_t count,       \
                            const TYPE *sums, int32_t step) {                                     \
        const float s = job->tile->s[t];                                                          \
        const float *bias = job->bias + n0;                                                       \
        const ptrdiff_t at = (ptrdiff_t)t * job->y_stride + n0;                                   \
        float *y = job->y + at;                                                                   \
        const float *residual = job->residual == NULL ? NULL : job->residual + at;                \
        const float *scales = job->scale + (job->op->scale_per_row ? n0 : 0);                     \
        const float one_scale = scales[0];                                                        \
        if (!job->op->scale_per_row && residual == NULL) {                                        \
            for (int32_t n = 0; n < count; n++, sums += step) {                                   \
                y[n] = ((float)*sums * s) * one_scale + bias[n];                                  \
            }                                                                                     \
        } else if (!job->op->scale_per_row) {                                                     \
            for (int32_t n = 0; n < count; n++, sums += step) {                                   \
                y[n] = residual[n] + (((float)*sums * s) * one_scale + bias[n]);                  \
            }                                                                                     \
        } else if (residual == NULL) {                                                            \
            for (int32_t n = 0; n < count; n++, sums += step) {                                   \
                y[n] = ((float)*sums * s) * scales[n] + bias[n];                                  \
            }                                                                                     \
        } else {                                                                                  \
            for (int32_t n = 0; n < count; n++, sums += step) {                                   \
                y[n] = residual[n] + (((float)*sums * s) * scales[n] + bias[n]);                  \
            }                                                                                     \
        }                                                                                         \
    }

#endif
