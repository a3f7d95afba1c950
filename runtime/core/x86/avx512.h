/* What the AVX-512 VNNI kernels share. They need F, BW, VL, DQ, VNNI, VBMI, VBMI2,
 * VPOPCNTDQ and BMI2 (Ice Lake, Zen 4 and later).
 *
 * Prepared weights: blocks of 256 outputs, then at most one of 128, then at most one of 64. Inside
 * a block of 64 L outputs (L = 4, 2, 1), rows by input channel: 16 L bytes with four 2-bit codes
 * w + 1 each. Rows are padded to a multiple of 4, missing outputs are code 1.
 *
 * Output n of a block is field f of byte 16 l + 4 i + d, where n / (4 L) = 4 i + f,
 * n % (4 L) = 4 l + d. Interleaving four rows' bytes by lanes then gives registers i = 0..3 of four
 * channels an output, in each of which field f is 4 L neighbouring outputs.
 *
 * TATVPR_SIMDE (tests on machines without these instructions) spells them in plain C, by a header
 * of the tests' own.
 */
#ifndef TATVPR_AVX512_H
#define TATVPR_AVX512_H

#include "../common/core.h"

#if defined(TATVPR_SIMDE)
#include "avx512_plain.h"
#else
#include <immintrin.h>
#endif

typedef struct tatvpr_block_kind {
    int32_t lanes;  /* L */
    int32_t count;  /* blocks of this kind: all of L = 4 come first, then L = 2, then L = 1 */
} tatvpr_block_kind;

static inline int32_t tatvpr_avx512_rows(int32_t k_in) { return (k_in + 3) / 4 * 4; }

static inline void tatvpr_avx512_blocks(int32_t n_out, tatvpr_block_kind kinds[3]) {
    const int32_t left = n_out % 256;
    kinds[0].lanes = 4;
    kinds[1].lanes = 2;
    kinds[2].lanes = 1;
    kinds[0].count = n_out / 256 + (left > 192);
    kinds[1].count = left <= 192 && left > 64;
    kinds[2].count = (left > 0 && left <= 64) || (left > 128 && left <= 192);
}

TATVPR_KERNELS_OF(avx512);

/* acc += four products of u8 codes and s8 activations a lane. Assembly where it can be, because
 * compilers spill accumulators around the intrinsic. Accumulators are variables with names: GCC
 * keeps an array in memory once assembly touches its elements. */
#if defined(TATVPR_SIMDE)
#define TATVPR_DP512(acc, u, s) acc = _mm512_dpbusd_epi32(acc, u, s)
#else
#define TATVPR_DP512(acc, u, s) __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u), "v"(s))
#endif

/* M(0) to M(n - 1): for such variables. */
#define EACH_1(M) M(0)
#define EACH_2(M) EACH_1(M) M(1)
#define EACH_3(M) EACH_2(M) M(2)
#define EACH_4(M) EACH_3(M) M(3)
#define EACH_5(M) EACH_4(M) M(4)
#define EACH_6(M) EACH_5(M) M(5)

/* The first `count` lanes of 16: all from 16 on, none up to 0. */
static inline __mmask16 tatvpr_first_lanes(int32_t count) {
    return (__mmask16)(count >= 16 ? 0xFFFF : count <= 0 ? 0 : (1 << count) - 1);
}

/* The same of 64 bytes. */
static inline __mmask64 tatvpr_first_bytes(int32_t count) {
    return count >= 64 ? ~(__mmask64)0 : count <= 0 ? 0 : ((__mmask64)1 << count) - 1u;
}

static inline int32_t tatvpr_four_bytes(const void *p) {
    int32_t v;
    __builtin_memcpy(&v, p, sizeof(v));
    return v;
}

#endif
