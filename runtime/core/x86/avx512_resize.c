/* AVX-512: the inner loops of the resize (common/resize.c), on the same integers. */
#include "avx512.h"

/* Four input pixels to lanes: r g b 0 in each. */
static inline __m512i four_pixels(__m128i bytes) {
    const __m512i where = _mm512_set_epi32(0, 11, 10, 9, 0, 8, 7, 6, 0, 5, 4, 3, 0, 2, 1, 0);
    return _mm512_maskz_permutexvar_epi8(0x0111011101110111, where, _mm512_castsi128_si512(bytes));
}

/* The first `count` (at most four) weights, zeros behind them, each in a lane. */
static inline __m512i four_weights(const int32_t *weights, int32_t count) {
    const __m512i each = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    const __mmask16 there = tatvpr_first_lanes(tatvpr_min_i32(count, 4));
    return _mm512_permutexvar_epi32(each, _mm512_maskz_loadu_epi32(there, weights));
}

void tatvpr_avx512_squash_across(const tatvpr_squash_columns *c, const uint8_t *row,
                                 uint8_t *out) {
    const int32_t end = 3 * c->width;
    for (int32_t x = 0; x < c->side; x++) {
        const int32_t *weights = c->weights + (ptrdiff_t)x * c->stride;
        const int32_t count = c->count[x];
        const int32_t first = 3 * c->first[x];
        __m512i sums = _mm512_setzero_si512();
        int32_t i = 0;
        for (; i < count && first + 3 * i + 16 <= end; i += 4) {
            const __m128i bytes =
                _mm_loadu_si128((const __m128i *)(const void *)(row + first + 3 * i));
            sums = _mm512_add_epi32(sums, _mm512_mullo_epi32(four_pixels(bytes),
                                                             four_weights(weights + i, count - i)));
        }
        for (; i < count; i += 4) { /* near the right edge */
            const __mmask64 there = tatvpr_first_bytes(tatvpr_min_i32(end - first - 3 * i, 12));
            const __m128i bytes =
                _mm512_castsi512_si128(_mm512_maskz_loadu_epi8(there, row + first + 3 * i));
            sums = _mm512_add_epi32(sums, _mm512_mullo_epi32(four_pixels(bytes),
                                                             four_weights(weights + i, count - i)));
        }
        sums = _mm512_add_epi32(sums, _mm512_shuffle_i32x4(sums, sums, 0x4E));
        sums = _mm512_add_epi32(sums, _mm512_shuffle_i32x4(sums, sums, 0xB1));
        __m128i v = _mm_add_epi32(_mm512_castsi512_si128(sums),
                                  _mm_set1_epi32(1 << (TATVPR_SQUASH_BITS - 1)));
        v = _mm_packus_epi32(_mm_srli_epi32(v, TATVPR_SQUASH_BITS), v);
        const int32_t pixel = _mm_cvtsi128_si32(_mm_packus_epi16(v, v));
        __builtin_memcpy(out + 3 * (ptrdiff_t)x, &pixel, x < c->side - 1 ? 4 : 3);
    }
}

void tatvpr_avx512_squash_add(int32_t *sums, const uint8_t *row, int32_t weight, int32_t count) {
    const __m512i w = _mm512_set1_epi32(weight);
    int32_t i = 0;
    for (; i + 16 <= count; i += 16) {
        const __m512i v =
            _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(row + i)));
        _mm512_storeu_si512(sums + i, _mm512_add_epi32(_mm512_loadu_si512(sums + i),
                                                       _mm512_mullo_epi32(v, w)));
    }
    for (; i < count; i++) {
        sums[i] += row[i] * weight;
    }
}

void tatvpr_avx512_squash_bytes(const int32_t *sums, int32_t count, uint8_t *bytes) {
    int32_t i = 0;
    for (; i + 16 <= count; i += 16) { /* sums are never negative */
        const __m512i v = _mm512_srli_epi32(_mm512_loadu_si512(sums + i), TATVPR_SQUASH_BITS);
        _mm_storeu_si128((__m128i *)(void *)(bytes + i), _mm512_cvtusepi32_epi8(v));
    }
    for (; i < count; i++) {
        const int32_t v = sums[i] >> TATVPR_SQUASH_BITS;
        bytes[i] = (uint8_t)(v > 255 ? 255 : v);
    }
}
