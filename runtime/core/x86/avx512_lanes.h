/* AVX-512: sums across the lanes of several registers at once, by trees of shuffles. */
#ifndef TATVPR_AVX512_LANES_H
#define TATVPR_AVX512_LANES_H

#include "avx512.h"

/* Every 128-bit lane: its four elements' sums of a, b, c and d. */
static inline __m512i tatvpr_add_elements(__m512i a, __m512i b, __m512i c, __m512i d) {
    const __m512i ab =
        _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    const __m512i cd =
        _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

/* Lanes 0 + 2 and 1 + 3 of a, then of b. */
static inline __m512i tatvpr_add_halves(__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x44), _mm512_shuffle_i32x4(a, b, 0xEE));
}

/* Lane 0: the sum of a's four lanes; lanes 1 to 3: of b's, c's and d's. */
static inline __m512i tatvpr_add_lanes(__m512i a, __m512i b, __m512i c, __m512i d) {
    const __m512i ab = tatvpr_add_halves(a, b), cd = tatvpr_add_halves(c, d);
    return _mm512_add_epi32(_mm512_shuffle_i32x4(ab, cd, 0x88),
                            _mm512_shuffle_i32x4(ab, cd, 0xDD));
}

#endif
