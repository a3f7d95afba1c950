/* Four bytes or two halfwords in a word: the instructions of Cortex-M4 and M7 by name. */
#ifndef TATVPR_DSP_SIMD_H
#define TATVPR_DSP_SIMD_H

#include <stdint.h>

/* |x| of four int8, each above -128 */
static inline uint32_t tatvpr_abs4(uint32_t x) {
    uint32_t y;
    __asm("ssub8 %0, %1, %2\n\tsel %0, %0, %2" : "=&r"(y) : "r"(0), "r"(x) : "cc");
    return y;
}

/* The bytes of `x` where the byte of `m` is at least that of `limit` (unsigned), else 0. */
static inline uint32_t tatvpr_where_at_least(uint32_t m, uint32_t limit, uint32_t x) {
    uint32_t y;
    __asm("usub8 %0, %1, %2\n\tsel %0, %3, %4"
          : "=&r"(y)
          : "r"(m), "r"(limit), "r"(x), "r"(0)
          : "cc");
    return y;
}

/* The bytes of `x` where the byte of `m` is less than that of `limit` (unsigned), else 0. */
static inline uint32_t tatvpr_where_less(uint32_t m, uint32_t limit, uint32_t x) {
    uint32_t y;
    __asm("usub8 %0, %1, %2\n\tsel %0, %4, %3"
          : "=&r"(y)
          : "r"(m), "r"(limit), "r"(x), "r"(0)
          : "cc");
    return y;
}

/* sum + the four unsigned bytes of x */
static inline uint32_t tatvpr_add_bytes(uint32_t sum, uint32_t x) {
    uint32_t y;
    __asm("usada8 %0, %1, %2, %3" : "=r"(y) : "r"(x), "r"(0), "r"(sum));
    return y;
}

/* int8 0 and 2, or 1 and 3, of a word as two int16 */
static inline uint32_t tatvpr_widen_even(uint32_t x) {
    uint32_t y;
    __asm("sxtb16 %0, %1" : "=r"(y) : "r"(x));
    return y;
}
static inline uint32_t tatvpr_widen_odd(uint32_t x) {
    uint32_t y;
    __asm("sxtb16 %0, %1, ror #8" : "=r"(y) : "r"(x));
    return y;
}

static inline uint32_t tatvpr_low_halves(uint32_t low, uint32_t high) {
    uint32_t y;
    __asm("pkhbt %0, %1, %2, lsl #16" : "=r"(y) : "r"(low), "r"(high));
    return y;
}
static inline uint32_t tatvpr_high_halves(uint32_t low, uint32_t high) {
    uint32_t y;
    __asm("pkhtb %0, %1, %2, asr #16" : "=r"(y) : "r"(high), "r"(low));
    return y;
}

/* Nearest integer, ties to even (the FPU's rounding mode as reset leaves it). */
static inline int32_t tatvpr_round_to_int(float x) {
    float bits;
    __asm("vcvtr.s32.f32 %0, %1" : "=t"(bits) : "t"(x));
    int32_t n;
    __asm("vmov %0, %1" : "=r"(n) : "t"(bits));
    return n;
}

/* FPv5 has maximum and minimum. No macro of the compiler says so, but no Cortex-M4 has double
 * precision, and a Cortex-M7 can be compiled for with it (-mfpu=fpv5-d16). */
#if (__ARM_FP & 8) != 0
#define TATVPR_FPV5 1
#endif

/* max and min as tatvpr_clip() has them: a NaN in `x` gives the bound */
static inline float tatvpr_at_least(float x, float low) {
#if defined(TATVPR_FPV5)
    float y;
    __asm("vmaxnm.f32 %0, %1, %2" : "=t"(y) : "t"(x), "t"(low));
    return y;
#else
    return x > low ? x : low;
#endif
}
static inline float tatvpr_at_most(float x, float high) {
#if defined(TATVPR_FPV5)
    float y;
    __asm("vminnm.f32 %0, %1, %2" : "=t"(y) : "t"(x), "t"(high));
    return y;
#else
    return x < high ? x : high;
#endif
}

/* The greater of `largest` >= 0 and |x|. */
static inline float tatvpr_greater_abs(float largest, float x) {
#if defined(TATVPR_FPV5)
    float y;
    __asm("vmaxnm.f32 %0, %1, %2" : "=t"(y) : "t"(largest), "t"(__builtin_fabsf(x)));
    return y;
#else
    const float a = __builtin_fabsf(x);
    return a > largest ? a : largest;
#endif
}

#endif
