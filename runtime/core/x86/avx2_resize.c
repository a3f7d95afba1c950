/* AVX2: the inner loops of the resize (common/resize.c), on the same integers. */
#include "avx2.h"

static inline __m256i load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* Sums of four input pixels, two a vector: r g b 0 in each half. Reads 16 bytes from p on. */
static inline __m256i add_four(__m256i sums, const uint8_t *p, __m128i weights) {
    const __m256i first =
        _mm256_setr_epi8(0, -1, -1, -1, 1, -1, -1, -1, 2, -1, -1, -1, -1, -1, -1, -1, /**/
                         3, -1, -1, -1, 4, -1, -1, -1, 5, -1, -1, -1, -1, -1, -1, -1);
    const __m256i second =
        _mm256_setr_epi8(6, -1, -1, -1, 7, -1, -1, -1, 8, -1, -1, -1, -1, -1, -1, -1, /**/
                         9, -1, -1, -1, 10, -1, -1, -1, 11, -1, -1, -1, -1, -1, -1, -1);
    const __m256i bytes =
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p));
    const __m256i w = _mm256_castsi128_si256(weights);
    const __m256i w01 = _mm256_permutevar8x32_epi32(w, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
    const __m256i w23 = _mm256_permutevar8x32_epi32(w, _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3));
    sums = _mm256_add_epi32(sums, _mm256_mullo_epi32(_mm256_shuffle_epi8(bytes, first), w01));
    return _mm256_add_epi32(sums, _mm256_mullo_epi32(_mm256_shuffle_epi8(bytes, second), w23));
}

/* The first `count` (at most four) weights, zeros behind them. */
static inline __m128i weights_of(const int32_t *weights, int32_t count) {
    const __m128i there = _mm_cmpgt_epi32(_mm_set1_epi32(count), _mm_setr_epi32(0, 1, 2, 3));
    return _mm_maskload_epi32(weights, there);
}

void tatvpr_avx2_squash_across(const tatvpr_squash_columns *c, const uint8_t *row, uint8_t *out) {
    for (int32_t x = 0; x < c->side; x++) {
        const int32_t *weights = c->weights + (ptrdiff_t)x * c->stride;
        const int32_t count = c->count[x];
        const int32_t fours = (count + 3) / 4;
        if (3 * c->first[x] + 12 * fours + 4 > 3 * c->width || x == c->side - 1) {
            tatvpr_squash_column(c, row, x, out + 3 * (ptrdiff_t)x); /* near the right edge */
            continue;
        }
        const uint8_t *p = row + 3 * (ptrdiff_t)c->first[x];
        __m256i sums = _mm256_setzero_si256();
        for (int32_t i = 0; i < fours; i++) {
            sums = add_four(sums, p + 12 * i, weights_of(weights + 4 * i, count - 4 * i));
        }
        __m128i v = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
        v = _mm_add_epi32(v, _mm_set1_epi32(1 << (TATVPR_SQUASH_BITS - 1)));
        v = _mm_packus_epi32(_mm_srli_epi32(v, TATVPR_SQUASH_BITS), v);
        const int32_t pixel = _mm_cvtsi128_si32(_mm_packus_epi16(v, v));
        __builtin_memcpy(out + 3 * (ptrdiff_t)x, &pixel, sizeof(pixel)); /* a byte too many */
    }
}

void tatvpr_avx2_squash_add(int32_t *sums, const uint8_t *row, int32_t weight, int32_t count) {
    const __m256i w = _mm256_set1_epi32(weight);
    int32_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const __m256i v =
            _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(row + i)));
        _mm256_storeu_si256((__m256i *)(void *)(sums + i),
                            _mm256_add_epi32(load(sums + i), _mm256_mullo_epi32(v, w)));
    }
    for (; i < count; i++) {
        sums[i] += row[i] * weight;
    }
}

void tatvpr_avx2_squash_bytes(const int32_t *sums, int32_t count, uint8_t *bytes) {
    int32_t i = 0;
    for (; i + 16 <= count; i += 16) {
        const __m256i low = _mm256_srli_epi32(load(sums + i), TATVPR_SQUASH_BITS);
        const __m256i high = _mm256_srli_epi32(load(sums + i + 8), TATVPR_SQUASH_BITS);
        const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xD8);
        _mm_storeu_si128((__m128i *)(void *)(bytes + i),
                         _mm_packus_epi16(_mm256_castsi256_si128(words),
                                          _mm256_extracti128_si256(words, 1)));
    }
    for (; i < count; i++) {
        const int32_t v = sums[i] >> TATVPR_SQUASH_BITS;
        bytes[i] = (uint8_t)(v > 255 ? 255 : v);
    }
}
