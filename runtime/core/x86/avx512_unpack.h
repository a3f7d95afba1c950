/* AVX-512: packed rows of a block to bytes, for the dense matmul: registers w0 to w3 of 16 outputs
 * with four channels a lane.
 *
 * Of every 16 bytes of a row, part number p of a block (64 outputs) is the 16 / L bytes from
 * p * 16 / L on. `rows` points at the part's first byte, so that one piece of code serves all parts;
 * masks keep what is read inside the last row. */
#ifndef TATVPR_AVX512_UNPACK_H
#define TATVPR_AVX512_UNPACK_H

#include "avx512.h"

#define TATVPR_FIELDS(f0, f1, f2, f3)                                                            \
    const __m512i three = _mm512_set1_epi8(3);                                                   \
    const __m512i w0 = _mm512_and_si512(f0, three), w1 = _mm512_and_si512(f1, three);            \
    const __m512i w2 = _mm512_and_si512(f2, three), w3 = _mm512_and_si512(f3, three);

/* Four rows of 64 bytes. A field is 16 outputs, a register. */
#define TATVPR_UNPACK_4(rows)                                                                    \
    const __m512i u = _mm512_unpacklo_epi16(                                                     \
        _mm512_unpacklo_epi8(_mm512_maskz_loadu_epi32(0x1111, rows),                             \
                             _mm512_maskz_loadu_epi32(0x1111, (rows) + 64)),                     \
        _mm512_unpacklo_epi8(_mm512_maskz_loadu_epi32(0x1111, (rows) + 128),                     \
                             _mm512_maskz_loadu_epi32(0x1111, (rows) + 192)));                   \
    TATVPR_FIELDS(u, _mm512_srli_epi16(u, 2), _mm512_srli_epi16(u, 4), _mm512_srli_epi16(u, 6))

/* Four rows of 32 bytes. Fields are 8 outputs wide: a register takes two of them, its halves shifted
 * by their own number of bits. */
#define TATVPR_ROW_2(p) _mm512_castsi512_si256(_mm512_maskz_loadu_epi32(0x0033, p))
#define TATVPR_UNPACK_2(rows)                                                                    \
    const __m512i low = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(2), 1);     \
    const __m512i high = _mm512_inserti64x4(_mm512_set1_epi16(4), _mm256_set1_epi16(6), 1);      \
    const __m256i ab = _mm256_unpacklo_epi8(TATVPR_ROW_2(rows), TATVPR_ROW_2((rows) + 32));      \
    const __m256i cd =                                                                           \
        _mm256_unpacklo_epi8(TATVPR_ROW_2((rows) + 64), TATVPR_ROW_2((rows) + 96));              \
    const __m512i u = _mm512_broadcast_i64x4(_mm256_unpacklo_epi16(ab, cd));                     \
    const __m512i v = _mm512_broadcast_i64x4(_mm256_unpackhi_epi16(ab, cd));                     \
    TATVPR_FIELDS(_mm512_srlv_epi16(u, low), _mm512_srlv_epi16(u, high),                         \
                  _mm512_srlv_epi16(v, low), _mm512_srlv_epi16(v, high))

/* Four rows of 16 bytes. Fields are 4 outputs wide: a register takes all four. */
#define TATVPR_ROW_1(p) _mm_loadu_si128((const __m128i *)(const void *)(p))
#define TATVPR_ALL_FIELDS(v) _mm512_srlv_epi16(_mm512_broadcast_i32x4(v), bits)
#define TATVPR_UNPACK_1(rows)                                                                    \
    const __m512i bits = _mm512_set_epi64(0x0006000600060006, 0x0006000600060006,                \
                                          0x0004000400040004, 0x0004000400040004,                \
                                          0x0002000200020002, 0x0002000200020002, 0, 0);         \
    const __m128i r0 = TATVPR_ROW_1(rows), r1 = TATVPR_ROW_1((rows) + 16);                       \
    const __m128i r2 = TATVPR_ROW_1((rows) + 32), r3 = TATVPR_ROW_1((rows) + 48);                \
    const __m128i a = _mm_unpacklo_epi8(r0, r1), b = _mm_unpacklo_epi8(r2, r3);                  \
    const __m128i c = _mm_unpackhi_epi8(r0, r1), d = _mm_unpackhi_epi8(r2, r3);                  \
    TATVPR_FIELDS(TATVPR_ALL_FIELDS(_mm_unpacklo_epi16(a, b)),                                   \
                  TATVPR_ALL_FIELDS(_mm_unpackhi_epi16(a, b)),                                   \
                  TATVPR_ALL_FIELDS(_mm_unpacklo_epi16(c, d)),                                   \
                  TATVPR_ALL_FIELDS(_mm_unpackhi_epi16(c, d)))

#endif
