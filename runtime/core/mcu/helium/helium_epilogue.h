/* From integer sums to outputs, four at a time: y = (acc * s) * scale + bias [+ residual].
 *
 * Vector arithmetic of Helium rounds as scalar arithmetic does but flushes subnormals; level b
 * allows none.
 */
#ifndef TATVPR_HELIUM_EPILOGUE_H
#define TATVPR_HELIUM_EPILOGUE_H

#include <arm_mve.h>

#include "../epilogue.h"

/* What is constant at the call is resolved by inlining. Whole vectors without predicates, which
 * cost four instructions each; what is left over is done one by one. Sums of the tokens lie
 * `step` elements apart. */
static inline __attribute__((always_inline)) void
tatvpr_helium_write(const tatvpr_matmul *job, int32_t t, int32_t tokens, int32_t n0, int32_t count,
                    const int32_t *sums32, const int16_t *sums16, int32_t step, int per_row,
                    int add) {
    const float *scales = job->tile->s + t;
    const float *row_scale = job->scale + (per_row ? n0 : 0);
    const float one_scale = row_scale[0];
    const ptrdiff_t at = (ptrdiff_t)t * job->y_stride + n0;
    const float *from = add ? job->residual + at : NULL;
    float *to = job->y + at;
    for (; tokens > 0; tokens--, from += add ? job->y_stride : 0, to += job->y_stride) {
        const float s = *scales++;
        const float *bias = job->bias + n0;
        const float *scale = row_scale;
        const float *residual = from;
        const int32_t *wide = sums32;
        const int16_t *narrow = sums16;
        float *y = to;
#pragma GCC unroll 1 /* or GCC peels it into tests */
        for (int32_t v = count >> 2; v > 0; v--) {
            const int32x4_t acc = sums32 != NULL ? vldrwq_s32(wide) : vldrhq_s32(narrow);
            float32x4_t z = vmulq_n_f32(vcvtq_f32_s32(acc), s);
            z = per_row ? vmulq_f32(z, vldrwq_f32(scale)) : vmulq_n_f32(z, one_scale);
            z = vaddq_f32(z, vldrwq_f32(bias));
            vstrwq_f32(y, add ? vaddq_f32(vldrwq_f32(residual), z) : z);
            if (sums32 != NULL) {
                wide += 4;
            } else {
                narrow += 4;
            }
            bias += 4;
            scale += per_row ? 4 : 0;
            residual += add ? 4 : 0;
            y += 4;
        }
        for (int32_t n = 0; n < (count & 3); n++) {
            const float acc = (float)(sums32 != NULL ? wide[n] : narrow[n]);
            const float z = (acc * s) * (per_row ? scale[n] : one_scale) + bias[n];
            y[n] = add ? residual[n] + z : z;
        }
        sums32 = sums32 != NULL ? sums32 + step : NULL;
        sums16 = sums16 != NULL ? sums16 + step : NULL;
    }
}

/* Outputs n0 .. n0 + count of `tokens` tokens from t. */
static inline void tatvpr_helium_outputs_32(const tatvpr_matmul *job, int32_t t, int32_t tokens,
                                            int32_t n0, int32_t count, const int32_t *sums32,
                                            int32_t step) {
    TATVPR_OF_KIND(job, tatvpr_helium_write, job, t, tokens, n0, count, sums32, NULL, step);
}

/* One token, sums of 16 bits. */
static inline void tatvpr_helium_outputs_16(const tatvpr_matmul *job, int32_t t, int32_t n0,
                                            int32_t count, const int16_t *sums16) {
    TATVPR_OF_KIND(job, tatvpr_helium_write, job, t, 1, n0, count, NULL, sums16, 0);
}

#endif
