/* AVX-512: pieces of quantisation that rows and attention share. */
#ifndef TATVPR_AVX512_ROWS_H
#define TATVPR_AVX512_ROWS_H

#include "../common/floats.h"
#include "avx512.h"

/* Long chains of dependent operations go step by step for several registers together: one chain
 * after the other would wait for latencies, because a CPU's scheduler holds only a few of them. */
#define TATVPR_EACH(i, n) for (int i = 0; i < (n); i++)

/* Nothing moves across, of four or eight registers: compilers otherwise sort the steps back. */
#if defined(TATVPR_SIMDE)
#define TATVPR_STEP(v, n) (void)(v)
#else
#define TATVPR_STEP(v, n)                                                                    \
    do {                                                                                     \
        __asm__("" : "+v"((v)[0]), "+v"((v)[1]), "+v"((v)[2]), "+v"((v)[3]));                \
        if ((n) > 4) {                                                                       \
            __asm__("" : "+v"((v)[4]), "+v"((v)[5]), "+v"((v)[6]), "+v"((v)[7]));            \
        }                                                                                    \
    } while (0)
#endif

/* Four registers of 16 integers to 64 bytes in order, saturated. */
static inline __m512i tatvpr_pack_64(__m512i a, __m512i b, __m512i c, __m512i d) {
    const __m512i order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    const __m512i bytes =
        _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
    return _mm512_permutexvar_epi32(order, bytes);
}

/* clip(rint(x * inverse), -127, 127) of `count` floats, zeros up to 64. Conversion rounds to even
 * by itself; -128 only comes from what is not finite. */
static inline __attribute__((always_inline)) __m512i tatvpr_quantise_64(const float *x, int32_t count, __m512 inverse) {
    __m512 v[4];
    if (count >= 64) {
        TATVPR_EACH(i, 4) v[i] = _mm512_loadu_ps(x + 16 * i);
    } else {
        TATVPR_EACH(i, 4) {
            v[i] = _mm512_maskz_loadu_ps(tatvpr_first_lanes(count - 16 * i), x + 16 * i);
        }
    }
    __m512i n[4];
    TATVPR_EACH(i, 4) n[i] = _mm512_cvtps_epi32(_mm512_mul_ps(v[i], inverse));
    return _mm512_max_epi8(tatvpr_pack_64(n[0], n[1], n[2], n[3]), _mm512_set1_epi8(-127));
}

/* A row, with zeros up to its padding: a multiple of 64. */
static inline void tatvpr_quantise_row(const float *x, int32_t k_in, __m512 inverse, int8_t *q) {
    int32_t i = 0;
    for (; i + 64 <= k_in; i += 64) {
        _mm512_storeu_si512(q + i, tatvpr_quantise_64(x + i, 64, inverse));
    }
    if (i < k_in) {
        _mm512_storeu_si512(q + i, tatvpr_quantise_64(x + i, k_in - i, inverse));
    }
}

/* The larger magnitude of each lane, without a sign; what is not a number gives way. */
static inline __m512 tatvpr_larger(__m512 a, __m512 b) {
    enum { MAGNITUDE = 3, POSITIVE = 2 << 2 };
    return _mm512_range_ps(a, b, MAGNITUDE | POSITIVE);
}

/* Lane by lane, the largest magnitudes of `rows` rows, at least TATVPR_MIN_ABS_MAX. */
static inline __m512 tatvpr_magnitudes(const float *x, int32_t rows, int32_t stride,
                                       int32_t columns) {
    const __m512 least = _mm512_set1_ps(TATVPR_MIN_ABS_MAX);
    __m512 most[4] = {least, least, least, least};
    for (int32_t t = 0; t < rows; t++, x += stride) {
        int32_t i = 0;
        for (; i + 64 <= columns; i += 64) {
            TATVPR_EACH(j, 4) most[j] = tatvpr_larger(most[j], _mm512_loadu_ps(x + i + 16 * j));
        }
        for (; i < columns; i += 16) {
            const __mmask16 there = tatvpr_first_lanes(columns - i);
            most[0] = tatvpr_larger(most[0], _mm512_maskz_loadu_ps(there, x + i));
        }
    }
    return tatvpr_larger(tatvpr_larger(most[0], most[1]), tatvpr_larger(most[2], most[3]));
}

/* Scales of four rows from their magnitudes by lanes: max / 127, in lanes 0 to 3. */
static inline __m128 tatvpr_four_scales(__m512 a, __m512 b, __m512 c, __m512 d) {
    const __m512 ab = _mm512_max_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const __m512 cd = _mm512_max_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const __m512 all = _mm512_max_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
    const __m256 half = _mm256_max_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    const __m128 most =
        _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    return _mm_div_ps(most, _mm_set1_ps(TATVPR_QUANT_MAX));
}

static inline float tatvpr_scale(__m512 magnitudes) {
    return _mm512_reduce_max_ps(magnitudes) / TATVPR_QUANT_MAX;
}

#endif
