/* AVX-512: 127 exp(x), rounded, for x <= 0: the softmax of attention. */
#ifndef TATVPR_AVX512_EXP_H
#define TATVPR_AVX512_EXP_H

#include "avx512_rows.h"

/* tatvpr_exp(x) * 127, rounded, operation by operation as floats.h has it. 2^n joins by an addition
 * to the exponent: the result is a normal number, so that this is exact. */
static inline __m512i tatvpr_exact_exp_127(__m512 x) {
    static const float c[6] = TATVPR_EXP_POLY;
    const __m512 magic = _mm512_set1_ps(TATVPR_RINT_MAGIC);
    x = _mm512_max_ps(x, _mm512_set1_ps(TATVPR_EXP_LOWEST));
    const __m512 shifted = _mm512_add_ps(_mm512_mul_ps(x, _mm512_set1_ps(TATVPR_LOG2_E)), magic);
    const __m512 n = _mm512_sub_ps(shifted, magic);
    x = _mm512_sub_ps(x, _mm512_mul_ps(n, _mm512_set1_ps(TATVPR_LN2_HIGH)));
    x = _mm512_sub_ps(x, _mm512_mul_ps(n, _mm512_set1_ps(TATVPR_LN2_LOW)));
    __m512 y = _mm512_set1_ps(c[0]);
    for (int i = 1; i < 6; i++) {
        y = _mm512_add_ps(_mm512_mul_ps(y, x), _mm512_set1_ps(c[i]));
    }
    y = _mm512_add_ps(_mm512_add_ps(_mm512_mul_ps(y, _mm512_mul_ps(x, x)), x),
                      _mm512_set1_ps(1.0f));
    const __m512i e = _mm512_add_epi32(_mm512_castps_si512(y),
                                       _mm512_slli_epi32(_mm512_castps_si512(shifted), 23));
    return _mm512_cvtps_epi32(
        _mm512_mul_ps(_mm512_castsi512_ps(e), _mm512_set1_ps(TATVPR_QUANT_MAX)));
}

enum { TATVPR_EXP_CLOSE = 10 }; /* 65536ths: more than the error of the short way */

/* The short way: 65536 * 127 exp(x) and a half as integers, for four registers of x from -20 to 0
 * (more of them leave none to the constants). Byte 2 of a lane is 127 exp(x), rounded, unless
 * *nearest, the smallest distance to a half so far, is below 2 * TATVPR_EXP_CLOSE; then only the
 * exact order of operations tells.
 *
 * x = n ln 2 / 16 + r. 127 * 2^((n mod 16) / 16) comes from a table of 16 (vpermd looks at the low
 * four bits of n alone), whose bits are made so that adding n << 19 leaves the exponent n / 16:
 * nothing is masked. e^r is a polynomial of degree 2, error 4.3e-7; fused multiply-adds are allowed,
 * because only rounding to one of 128 integers remains of it. Fixed point, because the distance to
 * a half is then found by integer operations, which any of four ports takes. */
static inline __attribute__((always_inline)) void tatvpr_exp_127(const __m512 *x, __m512i *e,
                                                                 __m512i *nearest) {
    static const uint32_t powers[16] __attribute__((aligned(64))) = {
        0x4AFE0000U, 0x4AFC9F6EU, 0x4AFA7E96U, 0x4AF8A04CU, 0x4AF70780U, 0x4AF5B748U,
        0x4AF4B2D9U, 0x4AF3FD8EU, 0x4AF39AE9U, 0x4AF38E92U, 0x4AF3DC5CU, 0x4AF48843U,
        0x4AF59673U, 0x4AF70B45U, 0x4AF8EB45U, 0x4AFB3B32U};
    const __m512i table = _mm512_load_si512(powers);
    const __m512 c0 = _mm512_set1_ps(1.0f), c1 = _mm512_set1_ps(1.0000587701797485f);
    const __m512 c2 = _mm512_set1_ps(0.49998530745506287f);
    const __m512 sixteenths = _mm512_set1_ps(16.0f * TATVPR_LOG2_E);
    const __m512 magic = _mm512_set1_ps(TATVPR_RINT_MAGIC);
    const __m512 step = _mm512_set1_ps(0.043321698904037476f); /* ln 2 / 16 */
    const __m512i half = _mm512_set1_epi32(32768 + TATVPR_EXP_CLOSE);
    const __m512i high = _mm512_set1_epi32((int32_t)0xFFFF0000u);
    __m512 r[4], y[4], shifted[4];
    TATVPR_EACH(i, 4) shifted[i] = _mm512_fmadd_ps(x[i], sixteenths, magic); /* low bits: n */
    TATVPR_STEP(shifted, 4);
    TATVPR_EACH(i, 4) {
        r[i] = _mm512_fnmadd_ps(_mm512_sub_ps(shifted[i], magic), step, x[i]);
        const __m512i at = _mm512_castps_si512(shifted[i]);
        e[i] = _mm512_add_epi32(_mm512_permutexvar_epi32(at, table), _mm512_slli_epi32(at, 19));
    }
    TATVPR_STEP(r, 4);
    TATVPR_STEP(e, 4);
    TATVPR_EACH(i, 4) y[i] = _mm512_fmadd_ps(r[i], c2, c1);
    TATVPR_STEP(y, 4);
    TATVPR_EACH(i, 4) y[i] = _mm512_fmadd_ps(y[i], r[i], c0);
    TATVPR_STEP(y, 4);
    TATVPR_EACH(i, 4) y[i] = _mm512_mul_ps(y[i], _mm512_castsi512_ps(e[i]));
    TATVPR_STEP(y, 4);
    TATVPR_EACH(i, 4) {
        e[i] = _mm512_add_epi32(_mm512_cvtps_epi32(y[i]), half);
        *nearest = _mm512_min_epu32(*nearest, _mm512_or_si512(e[i], high));
    }
}

/* Whether all lanes so far lie far enough from a half. */
static inline int tatvpr_exp_clear(__m512i nearest) {
    const __m512i least = _mm512_set1_epi32((int32_t)(0xFFFF0000u + 2 * TATVPR_EXP_CLOSE));
    return _mm512_cmplt_epu32_mask(nearest, least) == 0;
}

/* Byte 2 of every lane of four registers, in order. */
static inline __m512i tatvpr_third_bytes(__m512i a, __m512i b, __m512i c, __m512i d) {
    static const uint8_t third[64] __attribute__((aligned(64))) = {
        2,  6,  10, 14, 18, 22, 26, 30, 34, 38,  42,  46,  50,  54,  58,  62,
        66, 70, 74, 78, 82, 86, 90, 94, 98, 102, 106, 110, 114, 118, 122, 126,
        2,  6,  10, 14, 18, 22, 26, 30, 34, 38,  42,  46,  50,  54,  58,  62,
        66, 70, 74, 78, 82, 86, 90, 94, 98, 102, 106, 110, 114, 118, 122, 126};
    const __m512i order = _mm512_load_si512(third);
    return _mm512_mask_mov_epi64(_mm512_permutex2var_epi8(a, order, b), 0xF0,
                                 _mm512_permutex2var_epi8(c, order, d));
}

#endif
