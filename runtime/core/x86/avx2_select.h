/* AVX2: what the gate's choice among single channels and among groups shares. */
#ifndef TATVPR_AVX2_SELECT_H
#define TATVPR_AVX2_SELECT_H

#include "avx2.h"
#include "group_select.h"
#include "../common/compress_table.h"

static inline __m256i load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* The lowest `*ties` ones of `equal`; takes them off *ties. */
static inline uint32_t first_ties(uint32_t equal, int32_t *ties) {
    const int32_t count = __builtin_popcount(equal);
    if (count <= *ties) {
        *ties -= count;
        return equal;
    }
    uint32_t kept = 0;
    for (; *ties > 0; (*ties)--) { /* once a row at most */
        kept |= equal & (~equal + 1u);
        equal &= equal - 1u;
    }
    return kept;
}

/* Appends eight channels from number `first` on, those of `byte`. Stores go up to seven entries
 * beyond the end: the next append or the padding overwrites them. */
static inline list_end append_8(list_end end, const int8_t *q, __m128i first, uint32_t byte) {
    const __m128i shuffle =
        _mm_loadl_epi64((const __m128i *)(const void *)&tatvpr_compress_table[byte]);
    const __m128i values =
        _mm_shuffle_epi8(_mm_loadl_epi64((const __m128i *)(const void *)q), shuffle);
    _mm_storeu_si128((__m128i *)(void *)end.index,
                     _mm_add_epi16(_mm_cvtepu8_epi16(shuffle), first));
    _mm_storel_epi64((__m128i *)(void *)end.value, values);
    const int32_t count = __builtin_popcount(byte);
    end.index += count;
    end.value += count;
    return end;
}

/* Those of `mask` join the list. */
static inline list_end list_32(const int8_t *q, int32_t base, uint32_t mask, list_end end) {
    const __m128i eight = _mm_set1_epi16(8);
    __m128i first = _mm_set1_epi16((int16_t)base);
    end = append_8(end, q + base, first, mask & 255u);
    first = _mm_add_epi16(first, eight);
    end = append_8(end, q + base + 8, first, mask >> 8 & 255u);
    first = _mm_add_epi16(first, eight);
    end = append_8(end, q + base + 16, first, mask >> 16 & 255u);
    first = _mm_add_epi16(first, eight);
    return append_8(end, q + base + 24, first, mask >> 24);
}

static inline uint32_t nonzero(__m256i v) {
    return ~(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(v, _mm256_setzero_si256()));
}

/* Sums by fours. */
static inline __m256i sum_32(__m256i v) {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), v);
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

static inline void finish(tatvpr_tile *tile, int32_t t, int32_t list, list_end end, __m256i sums) {
    tile->sum[t] = tatvpr_sum_epi32(sums);
    if (list) {
        const uint16_t *index = tile->index + (ptrdiff_t)t * tile->list_stride;
        int32_t n = (int32_t)(end.index - index);
        tile->count[t] = n;
        for (; n % 4 != 0; n++) { /* the padding of the list */
            *end.index++ = 0;
            *end.value++ = 0;
        }
    }
}

/* One bit for each of 64 bytes that is all ones. */
static inline uint64_t bits_of_64(__m256i low, __m256i high) {
    return (uint32_t)_mm256_movemask_epi8(low) |
           (uint64_t)(uint32_t)_mm256_movemask_epi8(high) << 32;
}

/* The sum of a register's bytes. */
static inline int32_t sum_bytes(__m256i v) {
    const __m256i four = _mm256_sad_epu8(v, _mm256_setzero_si256());
    const __m128i two =
        _mm_add_epi64(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
    return _mm_cvtsi128_si32(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two)));
}

/* The sums of four registers' bytes: four numbers of 16 bits. */
static inline uint64_t sum_four(const __m256i counts[4]) {
    const __m256i zero = _mm256_setzero_si256();
    __m256i all = _mm256_sad_epu8(counts[0], zero);
    all = _mm256_add_epi64(all, _mm256_slli_epi64(_mm256_sad_epu8(counts[1], zero), 16));
    all = _mm256_add_epi64(all, _mm256_slli_epi64(_mm256_sad_epu8(counts[2], zero), 32));
    all = _mm256_add_epi64(all, _mm256_slli_epi64(_mm256_sad_epu8(counts[3], zero), 48));
    __m128i two = _mm_add_epi64(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    two = _mm_add_epi64(two, _mm_unpackhi_epi64(two, two));
    return (uint64_t)_mm_cvtsi128_si64(two);
}

TATVPR_SELECT_PARTS(avx2);

#endif
