/* AVX2: the gate's choice; among single channels and among groups: next door. */
#include "avx2_select.h"

static void keep_all(tatvpr_tile *tile, int32_t t, int32_t list) {
    int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    list_end end = begin_list(tile, t, list);
    __m256i sums = _mm256_setzero_si256();
    for (int32_t i = 0; i < tile->k_in; i += 32) {
        const __m256i v = load(q + i);
        sums = _mm256_add_epi32(sums, sum_32(v));
        end = list ? list_32(q, i, nonzero(v), end) : end;
    }
    finish(tile, t, list, end, sums);
}

/* 1: rows that are ranked here, four together where there are as many. */
static int ranked(tatvpr_tile *tile, int32_t t, int32_t rows, int32_t keep, int32_t group,
                  int32_t list) {
    if (group == 1 && keep < tile->k_in && tile->k_in <= TATVPR_MOST_CHANNELS &&
        list != TATVPR_LIST_FOURS) {
        tatvpr_avx2_select_channels(tile, t, rows, keep, list);
        return 1;
    }
    if (tatvpr_ranks_groups(tile, keep, group, list)) {
        tatvpr_avx2_select_groups(tile, t, rows, keep, group, list);
        return 1;
    }
    return 0;
}

void tatvpr_avx2_select(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t group, int32_t list) {
    if (ranked(tile, t, 1, keep, group, list)) {
        return;
    }
    if (list == TATVPR_LIST_FOURS) {
        tatvpr_avx2_select(tile, t, keep, group, TATVPR_LIST_NOTHING);
        tatvpr_list_fours(tile, t);
    } else if (keep >= tile->k_in / group) {
        keep_all(tile, t, list);
    } else {
        tatvpr_portable_select(tile, t, keep, group, list);
    }
}

void tatvpr_avx2_select_rows(tatvpr_tile *tile, int32_t keep, int32_t group, int32_t list) {
    int32_t rows = 0;
    for (int32_t t = 0; t < tile->tokens; t += rows) { /* the first one says where cuts lie */
        const int32_t most = t == 0 ? 1 : TATVPR_ROWS_TOGETHER;
        rows = tatvpr_min_i32(most, tile->tokens - t);
        if (!ranked(tile, t, rows, keep, group, list)) {
            for (int32_t i = 0; i < rows; i++) {
                tatvpr_avx2_select(tile, t + i, keep, group, list);
            }
        }
    }
}
