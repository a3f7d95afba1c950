/* AVX-512: the gate's choice: among aligned fours here, among single channels next door. */
#include "avx512_select.h"

/* Appends the fours number first .. first + 15 of `mask`; q holds their 64 channels. */
static inline list_end append_fours(__m512i q, int32_t first, __mmask16 mask, list_end end) {
    const int32_t count = __builtin_popcount(mask);
    const __m512i where = _mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)(const void *)iota));
    const __m512i index = _mm512_add_epi32(where, _mm512_set1_epi32(first));
    _mm512_storeu_si512(end.value, _mm512_maskz_compress_epi32(mask, q));
    _mm256_storeu_si256((__m256i *)(void *)end.index,
                        _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(mask, index)));
    end.index += count;
    end.value += 4 * count;
    return end;
}

/* How many of the scores of fours lie above `bound`. */
static int32_t count_above(const int16_t *scores, int32_t padded, int32_t bound) {
    const __m512i limit = _mm512_set1_epi16((int16_t)bound);
    int32_t count = 0;
    for (int32_t i = 0; i < padded; i += 32) {
        count += __builtin_popcount(_mm512_cmpgt_epi16_mask(_mm512_load_si512(scores + i), limit));
    }
    return count;
}

/* Aligned groups of four, ranked by their sums of magnitudes. `list`: fours or nothing. */
static void select_fours(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t list) {
    enum { MOST_SCORE = 4 * 127 };
    int16_t scores[TATVPR_MOST_CHANNELS / 4] __attribute__((aligned(64)));
    const int32_t padded = (tile->k_in + 63) / 64 * 64;
    const int32_t groups = padded / 4;
    int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    const __m512i ones = _mm512_set1_epi8(1);
    for (int32_t i = 0; i < padded; i += 64) {
        __m512i sums = _mm512_setzero_si512();
        TATVPR_DP512(sums, _mm512_abs_epi8(_mm512_loadu_si512(q + i)), ones);
        _mm256_store_si256((__m256i *)(void *)(scores + i / 4), _mm512_cvtepi32_epi16(sums));
    }
    if (groups % 32 != 0) { /* the second half of the last register */
        _mm256_store_si256((__m256i *)(void *)(scores + groups), _mm256_setzero_si256());
    }
    int32_t least = 0;
    for (int32_t bit = 256; bit > 0; bit /= 2) {
        const int32_t more = least + bit;
        least = more <= MOST_SCORE && count_above(scores, groups, more - 1) >= keep ? more : least;
    }
    int32_t ties = keep - count_above(scores, groups, least);
    const __m512i bound = _mm512_set1_epi32(least);
    __m512i sums = _mm512_setzero_si512();
    list_end end = begin_list(tile, t, list);
    for (int32_t i = 0; i < padded; i += 64) {
        const __m512i s = _mm512_cvtepi16_epi32(
            _mm256_load_si256((const __m256i *)(const void *)(scores + i / 4)));
        const uint64_t equal = _mm512_cmpeq_epi32_mask(s, bound);
        const __mmask16 mask =
            (__mmask16)(_mm512_cmpgt_epi32_mask(s, bound) | first_ties(equal, &ties));
        const __m512i kept = _mm512_maskz_mov_epi32(mask, _mm512_loadu_si512(q + i));
        _mm512_storeu_si512(q + i, kept);
        TATVPR_DP512(sums, ones, kept);
        end = list ? append_fours(kept, i / 4, mask, end) : end;
    }
    finish(tile, t, list, end, sums);
}

/* Nothing is dropped: the sum, and a list without the zeros. */
static void keep_all(tatvpr_tile *tile, int32_t t, int32_t list) {
    const int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i sums = _mm512_setzero_si512();
    list_end end = begin_list(tile, t, list);
    for (int32_t i = 0; i < tile->k_in; i += 64) {
        const __m512i v = _mm512_loadu_si512(q + i);
        TATVPR_DP512(sums, ones, v);
        if (list) {
            const uint64_t mask = _mm512_test_epi8_mask(v, v);
            end = append_64(v, _mm512_set1_epi16((int16_t)i), mask, end);
        }
    }
    finish(tile, t, list, end, sums);
}

static int among_channels(const tatvpr_tile *tile, int32_t keep, int32_t group, int32_t list) {
    return group == 1 && keep < tile->k_in && tile->k_in <= TATVPR_MOST_CHANNELS &&
           list != TATVPR_LIST_FOURS;
}

void tatvpr_avx512_select(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t group,
                          int32_t list) {
    const int all = keep >= tile->k_in / group;
    const int short_row = tile->k_in <= TATVPR_MOST_CHANNELS;
    if (group == 4 && !all && short_row && list != TATVPR_LIST_CHANNELS) {
        select_fours(tile, t, keep, list);
    } else if (list == TATVPR_LIST_FOURS) {
        tatvpr_avx512_select(tile, t, keep, group, TATVPR_LIST_NOTHING);
        tatvpr_list_fours(tile, t);
    } else if (all) {
        keep_all(tile, t, list);
    } else if (among_channels(tile, keep, group, list)) {
        tatvpr_avx512_select_channels(tile, t, 1, keep, list);
    } else {
        tatvpr_portable_select(tile, t, keep, group, list);
    }
}

void tatvpr_avx512_select_rows(tatvpr_tile *tile, int32_t keep, int32_t group, int32_t list) {
    const int together = among_channels(tile, keep, group, list);
    for (int32_t t = 0; t < tile->tokens; t += TATVPR_ROWS_TOGETHER) {
        const int32_t rows = tatvpr_min_i32(TATVPR_ROWS_TOGETHER, tile->tokens - t);
        if (together) {
            tatvpr_avx512_select_channels(tile, t, rows, keep, list);
        }
        for (int32_t i = 0; !together && i < rows; i++) {
            tatvpr_avx512_select(tile, t + i, keep, group, list);
        }
    }
}
