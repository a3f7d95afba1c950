/* AVX-512: the gate's choice among aligned groups of 2, 4, 8 or 16 channels: the largest sums of
 * magnitudes, ties to the first. `group` is a constant wherever it is used. */
#include "avx512_select.h"

/* ---- sums */

/* Sums of 64 channels by groups, which are stored. */
static inline __attribute__((always_inline)) void
sum_64(const int8_t *q, int32_t group, int16_t *score) {
    const __m512i ones = _mm512_set1_epi8(1);
    const __m512i magnitude = _mm512_abs_epi8(_mm512_loadu_si512(q));
    if (group == 2) {
        _mm512_storeu_si512(score, _mm512_maddubs_epi16(magnitude, ones));
    } else if (group == 4) {
        __m512i fours = _mm512_setzero_si512();
        TATVPR_DP512(fours, magnitude, ones);
        _mm256_storeu_si256((__m256i *)(void *)score, _mm512_cvtepi32_epi16(fours));
    } else {
        const __m128i eights =
            _mm512_cvtepi64_epi16(_mm512_sad_epu8(magnitude, _mm512_setzero_si512()));
        if (group == 8) {
            _mm_storeu_si128((__m128i *)(void *)score, eights);
        } else {
            const __m128i sixteens = _mm_madd_epi16(eights, _mm_set1_epi16(1));
            _mm_storel_epi64((__m128i *)(void *)score, _mm_packs_epi32(sixteens, sixteens));
        }
    }
}

static inline __attribute__((always_inline)) void
sum_groups(const int8_t *q, int32_t channels, int32_t group, int16_t *score) {
    for (int32_t i = 0; i < channels; i += 64) {
        sum_64(q + i, group, score + i / group);
    }
    _mm512_storeu_si512(score + channels / group, _mm512_setzero_si512()); /* padding */
}

static inline void count_above(const tatvpr_groups *g, const int32_t *bound, int32_t *count) {
    __m512i limit[TATVPR_ROWS_TOGETHER];
    for (int32_t j = 0; j < TATVPR_ROWS_TOGETHER; j++) {
        limit[j] = _mm512_set1_epi16((int16_t)bound[j]);
        count[j] = 0;
    }
    for (int32_t i = 0; i < g->padded; i += 32) {
        for (int32_t j = 0; j < TATVPR_ROWS_TOGETHER; j++) {
            const __m512i s = _mm512_load_si512(g->score[j] + i);
            count[j] += __builtin_popcount(_mm512_cmpgt_epi16_mask(s, limit[j]));
        }
    }
}

/* ---- what stays */

/* Appends the fours number first .. first + 15 of `mask` and adds them up; q holds their 64
 * channels. */
static inline list_end append_fours(__m512i q, int32_t first, __mmask16 mask, list_end end,
                                    __m512i *sums) {
    const int32_t count = __builtin_popcount(mask);
    const __m512i where = _mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)(const void *)iota));
    const __m512i index = _mm512_add_epi32(where, _mm512_set1_epi32(first));
    const __m512i value = _mm512_maskz_compress_epi32(mask, q);
    __m512i more = *sums;
    TATVPR_DP512(more, _mm512_set1_epi8(1), value);
    *sums = more;
    _mm512_storeu_si512(end.value, value);
    _mm256_storeu_si256((__m256i *)(void *)end.index,
                        _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(mask, index)));
    end.index += count;
    end.value += 4 * count;
    return end;
}

/* `width` ones for each bit of `mask`, 64 in all. */
static inline __attribute__((always_inline)) uint64_t widen(uint64_t mask, int32_t width) {
    const uint64_t ones = ((uint64_t)1 << width) - 1u;
    return width == 1 ? mask : deposit(mask, ~(uint64_t)0 / ones) * ones;
}

/* 32 groups are compared at once, and dropped or listed by 64 channels. */
static inline __attribute__((always_inline)) void
keep_groups(tatvpr_tile *tile, int32_t t, const tatvpr_groups *g, int32_t row, int32_t keep,
            int32_t group, int32_t list) {
    int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    const __m512i cut = _mm512_set1_epi16((int16_t)g->least[row]);
    const __m512i below = _mm512_set1_epi16((int16_t)(g->least[row] - 1));
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i sums = _mm512_setzero_si512();
    list_end end = begin_list(tile, t, list);
    int32_t ties = keep - g->above[row]; /* of those at the cut, the first ones stay */
    for (int32_t first = 0; first < tile->k_in; first += 32 * group) {
        const __m512i s = _mm512_load_si512(g->score[row] + first / group);
        const uint64_t above = _mm512_cmpgt_epi16_mask(s, cut);
        const uint64_t reached = _mm512_cmpgt_epi16_mask(s, below);
        uint64_t mask = above | first_ties(reached & ~above, &ties);
        const int32_t beyond = tatvpr_min_i32(first + 32 * group, tile->k_in);
        for (int32_t i = first; i < beyond; i += 64, mask >>= 64 / group) {
            const __m512i v = _mm512_loadu_si512(q + i);
            if (group > 2 && list == TATVPR_LIST_FOURS) {
                const __mmask16 fours = (__mmask16)widen(mask, group / 4);
                end = append_fours(v, i / 4, fours, end, &sums);
                continue;
            }
            const __m512i kept = _mm512_maskz_mov_epi8(widen(mask, group), v);
            TATVPR_DP512(sums, ones, kept);
            if (list == TATVPR_LIST_CHANNELS) {
                const uint64_t there = _mm512_test_epi8_mask(kept, kept);
                end = append_64(kept, _mm512_set1_epi16((int16_t)i), there, end);
            } else {
                _mm512_storeu_si512(q + i, kept);
            }
        }
    }
    finish(tile, t, list, end, sums);
}

void tatvpr_avx512_select_groups(tatvpr_tile *tile, int32_t t, int32_t rows, int32_t keep,
                                 int32_t group, int32_t list) {
    static const tatvpr_group_kernels own = {sum_groups, count_above, keep_groups};
    tatvpr_select_groups(&own, tile, t, rows, keep, group, list);
}
