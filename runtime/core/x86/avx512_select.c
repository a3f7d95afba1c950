/* AVX-512: the gate's choice: among single channels and among groups next door. */
#include "avx512_select.h"

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

/* 1: rows that are ranked here, four together where there are as many. */
static int ranked(tatvpr_tile *tile, int32_t t, int32_t rows, int32_t keep, int32_t group,
                  int32_t list) {
    if (group == 1 && keep < tile->k_in && tile->k_in <= TATVPR_MOST_CHANNELS &&
        list != TATVPR_LIST_FOURS) {
        tatvpr_avx512_select_channels(tile, t, rows, keep, list);
        return 1;
    }
    if (tatvpr_ranks_groups(tile, keep, group, list)) {
        tatvpr_avx512_select_groups(tile, t, rows, keep, group, list);
        return 1;
    }
    return 0;
}

void tatvpr_avx512_select(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t group,
                          int32_t list) {
    if (ranked(tile, t, 1, keep, group, list)) {
        return;
    }
    if (list == TATVPR_LIST_FOURS) {
        tatvpr_avx512_select(tile, t, keep, group, TATVPR_LIST_NOTHING);
        tatvpr_list_fours(tile, t);
    } else if (keep >= tile->k_in / group) {
        keep_all(tile, t, list);
    } else {
        tatvpr_portable_select(tile, t, keep, group, list);
    }
}

void tatvpr_avx512_select_rows(tatvpr_tile *tile, int32_t keep, int32_t group, int32_t list) {
    int32_t rows = 0;
    for (int32_t t = 0; t < tile->tokens; t += rows) { /* the first one says where cuts lie */
        const int32_t most = t == 0 ? 1 : TATVPR_ROWS_TOGETHER;
        rows = tatvpr_min_i32(most, tile->tokens - t);
        if (!ranked(tile, t, rows, keep, group, list)) {
            for (int32_t i = 0; i < rows; i++) {
                tatvpr_avx512_select(tile, t + i, keep, group, list);
            }
        }
    }
}
