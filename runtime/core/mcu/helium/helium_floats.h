/* Four floats at a time on Cortex-M55: what its instruction set lacks or C cannot say.
 *
 * Each lane is rounded as in common/floats.h; nothing is fused. Vector arithmetic flushes
 * subnormals, and level b allows none.
 */
#ifndef TATVPR_HELIUM_FLOATS_H
#define TATVPR_HELIUM_FLOATS_H

#include <arm_mve.h>

#include "../../common/core.h"
#include "../../common/floats.h"

/* a / b in every lane: the scalar divider on the lanes' own registers. */
static inline float32x4_t tatvpr_divide4(float32x4_t a, float32x4_t b) {
    register float32x4_t x __asm("q0") = a;
    register float32x4_t y __asm("q1") = b;
    __asm("vdiv.f32 s0, s0, s4\n\tvdiv.f32 s1, s1, s5\n\t"
          "vdiv.f32 s2, s2, s6\n\tvdiv.f32 s3, s3, s7"
          : "+w"(x)
          : "w"(y));
    return x;
}

static inline float32x4_t tatvpr_divide4_by(float32x4_t a, float b) {
    register float32x4_t x __asm("q0") = a;
    register float y __asm("s4") = b;
    __asm("vdiv.f32 s0, s0, s4\n\tvdiv.f32 s1, s1, s4\n\t"
          "vdiv.f32 s2, s2, s4\n\tvdiv.f32 s3, s3, s4"
          : "+w"(x)
          : "t"(y));
    return x;
}

/* Greatest |x| of `count` floats, at least `largest`. */
static inline float tatvpr_abs_max4(const float *x, int32_t count, float largest) {
    int32_t i = 0;
    for (; i + 4 <= count; i += 4) {
        largest = vmaxnmavq_f32(largest, vldrwq_f32(x + i));
    }
    for (; i < count; i++) {
        const float a = __builtin_fabsf(x[i]);
        largest = a > largest ? a : largest;
    }
    return largest;
}

/* to[i] = x[i] * inverse, to the nearest, ties to even; at most 127 and two roundings. */
static inline void tatvpr_quantise4(const float *x, int32_t count, float inverse, int8_t *to) {
    int32_t i = 0;
    for (; i + 4 <= count; i += 4) {
        vstrbq_s32(to + i, vcvtnq_s32_f32(vmulq_n_f32(vldrwq_f32(x + i), inverse)));
    }
    for (; i < count; i++) {
        to[i] = tatvpr_quantise_one(x[i], inverse);
    }
}

/* tatvpr_exp() of arguments that are not positive. */
static inline float32x4_t tatvpr_exp4(float32x4_t x) {
    static const float c[6] = TATVPR_EXP_POLY;
    const float32x4_t clipped = vmaxnmq_f32(x, vdupq_n_f32(TATVPR_EXP_LOWEST));
    const float32x4_t n = vrndnq_f32(vmulq_n_f32(clipped, TATVPR_LOG2_E));
    const float32x4_t r = vsubq_f32(vsubq_f32(clipped, vmulq_n_f32(n, TATVPR_LN2_HIGH)),
                                    vmulq_n_f32(n, TATVPR_LN2_LOW));
    float32x4_t y = vdupq_n_f32(c[0]);
    for (int32_t i = 1; i < 6; i++) {
        y = vaddq_n_f32(vmulq_f32(y, r), c[i]);
    }
    y = vaddq_n_f32(vaddq_f32(vmulq_f32(y, vmulq_f32(r, r)), r), 1.0f);
    const int32x4_t bits = vshlq_n_s32(vaddq_n_s32(vcvtnq_s32_f32(n), 127), 23);
    y = vmulq_f32(y, vreinterpretq_f32_s32(bits));
    return vpselq_f32(vdupq_n_f32(0.0f), y, vcmpltq_n_f32(x, TATVPR_EXP_LOWEST));
}

#endif
