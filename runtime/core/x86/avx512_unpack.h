/* AVX-512: packed rows of a block to bytes, for the dense matmul: registers of 16 outputs with
 * four channels a lane, [k_rows / 4, 64 outputs, 4]. */
#ifndef TATVPR_AVX512_UNPACK_H
#define TATVPR_AVX512_UNPACK_H

#include "avx512.h"

static inline void tatvpr_store_fields(uint8_t *panel, __m512i f0, __m512i f1, __m512i f2,
                                       __m512i f3) {
    const __m512i mask = _mm512_set1_epi8(3);
    _mm512_storeu_si512(panel, _mm512_and_si512(f0, mask));
    _mm512_storeu_si512(panel + 64, _mm512_and_si512(f1, mask));
    _mm512_storeu_si512(panel + 128, _mm512_and_si512(f2, mask));
    _mm512_storeu_si512(panel + 192, _mm512_and_si512(f3, mask));
}

static inline void tatvpr_unpack_256(const uint8_t *rows, int32_t part, int32_t k_rows,
                                     uint8_t *panel) {
    for (int32_t k = 0; k < k_rows; k += 4, rows += 256, panel += 256) {
        const __m512i r0 = _mm512_loadu_si512(rows);
        const __m512i r1 = _mm512_loadu_si512(rows + 64);
        const __m512i r2 = _mm512_loadu_si512(rows + 128);
        const __m512i r3 = _mm512_loadu_si512(rows + 192);
        const __m512i a = part < 2 ? _mm512_unpacklo_epi8(r0, r1) : _mm512_unpackhi_epi8(r0, r1);
        const __m512i b = part < 2 ? _mm512_unpacklo_epi8(r2, r3) : _mm512_unpackhi_epi8(r2, r3);
        const __m512i u =
            part % 2 == 0 ? _mm512_unpacklo_epi16(a, b) : _mm512_unpackhi_epi16(a, b);
        tatvpr_store_fields(panel, u, _mm512_srli_epi16(u, 2), _mm512_srli_epi16(u, 4),
                            _mm512_srli_epi16(u, 6));
    }
}

/* Fields are 8 outputs wide here: a register takes two of them, its halves shifted by their own
 * number of bits. */
static inline void tatvpr_unpack_128(const uint8_t *rows, int32_t part, int32_t k_rows,
                                     uint8_t *panel) {
    const __m512i first = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(2), 1);
    const __m512i second = _mm512_add_epi16(first, _mm512_set1_epi16(4));
    for (int32_t k = 0; k < k_rows; k += 4, rows += 128, panel += 256) {
        const __m256i r0 = _mm256_loadu_si256((const __m256i *)(const void *)rows);
        const __m256i r1 = _mm256_loadu_si256((const __m256i *)(const void *)(rows + 32));
        const __m256i r2 = _mm256_loadu_si256((const __m256i *)(const void *)(rows + 64));
        const __m256i r3 = _mm256_loadu_si256((const __m256i *)(const void *)(rows + 96));
        const __m256i a = part == 0 ? _mm256_unpacklo_epi8(r0, r1) : _mm256_unpackhi_epi8(r0, r1);
        const __m256i b = part == 0 ? _mm256_unpacklo_epi8(r2, r3) : _mm256_unpackhi_epi8(r2, r3);
        const __m512i u = _mm512_broadcast_i64x4(_mm256_unpacklo_epi16(a, b));
        const __m512i v = _mm512_broadcast_i64x4(_mm256_unpackhi_epi16(a, b));
        tatvpr_store_fields(panel, _mm512_srlv_epi16(u, first), _mm512_srlv_epi16(u, second),
                            _mm512_srlv_epi16(v, first), _mm512_srlv_epi16(v, second));
    }
}

/* Fields are 4 outputs wide: a register takes all four. */
static inline void tatvpr_unpack_64(const uint8_t *rows, int32_t k_rows, uint8_t *panel) {
    const __m512i bits = _mm512_set_epi64(
        0x0006000600060006, 0x0006000600060006, 0x0004000400040004, 0x0004000400040004,
        0x0002000200020002, 0x0002000200020002, 0, 0);
    for (int32_t k = 0; k < k_rows; k += 4, rows += 64, panel += 256) {
        const __m128i r0 = _mm_loadu_si128((const __m128i *)(const void *)rows);
        const __m128i r1 = _mm_loadu_si128((const __m128i *)(const void *)(rows + 16));
        const __m128i r2 = _mm_loadu_si128((const __m128i *)(const void *)(rows + 32));
        const __m128i r3 = _mm_loadu_si128((const __m128i *)(const void *)(rows + 48));
        const __m128i a = _mm_unpacklo_epi8(r0, r1), b = _mm_unpacklo_epi8(r2, r3);
        const __m128i c = _mm_unpackhi_epi8(r0, r1), d = _mm_unpackhi_epi8(r2, r3);
#define TATVPR_ALL_FIELDS(v) _mm512_srlv_epi16(_mm512_broadcast_i32x4(v), bits)
        tatvpr_store_fields(panel, TATVPR_ALL_FIELDS(_mm_unpacklo_epi16(a, b)),
                            TATVPR_ALL_FIELDS(_mm_unpackhi_epi16(a, b)),
                            TATVPR_ALL_FIELDS(_mm_unpacklo_epi16(c, d)),
                            TATVPR_ALL_FIELDS(_mm_unpackhi_epi16(c, d)));
#undef TATVPR_ALL_FIELDS
    }
}

/* Outputs 64 part .. 64 part + 63 of a block of 64 * lanes. */
static inline void tatvpr_unpack(const uint8_t *rows, int32_t lanes, int32_t part, int32_t k_rows,
                                 uint8_t *panel) {
    if (lanes == 4) {
        tatvpr_unpack_256(rows, part, k_rows, panel);
    } else if (lanes == 2) {
        tatvpr_unpack_128(rows, part, k_rows, panel);
    } else {
        tatvpr_unpack_64(rows, k_rows, panel);
    }
}

#endif
