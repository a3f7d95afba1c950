/* Rounding on cores with a floating-point unit and without. */
#ifndef TATVPR_TABLES_FLOATS_H
#define TATVPR_TABLES_FLOATS_H

#include "../../common/floats.h"

/* Nearest integer, ties to even, of |x| <= 127 and a little: what is not finite becomes any number
 * within -127..127. */
static inline int8_t tatvpr_round_to_int(float x) {
#if defined(__riscv_flen)
    int32_t n;
    __asm("fcvt.w.s %0, %1, rne" : "=r"(n) : "f"(x));
    return (int8_t)n;
#else
    return (int8_t)tatvpr_clip(tatvpr_rint(x), -TATVPR_QUANT_MAX, TATVPR_QUANT_MAX);
#endif
}

/* The greater of `largest` > 0 and |x|. */
static inline float tatvpr_greater_abs(float largest, float x) {
#if defined(__riscv_flen)
    float y;
    __asm("fmax.s %0, %1, %2" : "=f"(y) : "f"(largest), "f"(__builtin_fabsf(x)));
    return y;
#else
    const float a = x < 0.0f ? -x : x;
    return a > largest ? a : largest;
#endif
}

#endif
