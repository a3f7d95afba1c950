/* x86: which way a row's gate takes, for AVX2 and AVX-512: single channels (channel_select.h) and
 * groups (group_select.h) are ranked, several rows together; the rest goes the portable way. */
#ifndef TATVPR_SELECT_ORDER_H
#define TATVPR_SELECT_ORDER_H

#include "group_select.h"

/* What a variant has of its own. */
typedef struct tatvpr_select_kernels {
    /* as TATVPR_SELECT_PARTS() says */
    void (*channels)(tatvpr_tile *tile, int32_t t, int32_t rows, int32_t keep, int32_t list);
    void (*groups)(tatvpr_tile *tile, int32_t t, int32_t rows, int32_t keep, int32_t group,
                   int32_t list);
    /* Nothing is dropped: the sum, and a list without the zeros. */
    void (*all)(tatvpr_tile *tile, int32_t t, int32_t list);
} tatvpr_select_kernels;

/* 1: rows that are ranked here, several together where there are as many. */
static inline int tatvpr_ranked(const tatvpr_select_kernels *own, tatvpr_tile *tile, int32_t t,
                                int32_t rows, int32_t keep, int32_t group, int32_t list) {
    if (group == 1 && keep < tile->k_in && tile->k_in <= TATVPR_MOST_CHANNELS &&
        list != TATVPR_LIST_FOURS) {
        own->channels(tile, t, rows, keep, list);
        return 1;
    }
    if (tatvpr_ranks_groups(tile, keep, group, list)) {
        own->groups(tile, t, rows, keep, group, list);
        return 1;
    }
    return 0;
}

static inline void tatvpr_select_row(const tatvpr_select_kernels *own, tatvpr_tile *tile,
                                     int32_t t, int32_t keep, int32_t group, int32_t list) {
    if (tatvpr_ranked(own, tile, t, 1, keep, group, list)) {
        return;
    }
    if (list == TATVPR_LIST_FOURS) {
        tatvpr_select_row(own, tile, t, keep, group, TATVPR_LIST_NOTHING);
        tatvpr_list_fours(tile, t);
    } else if (keep >= tile->k_in / group) {
        own->all(tile, t, list);
    } else {
        tatvpr_portable_select(tile, t, keep, group, list);
    }
}

static inline void tatvpr_select_all_rows(const tatvpr_select_kernels *own, tatvpr_tile *tile,
                                          int32_t keep, int32_t group, int32_t list) {
    int32_t rows = 0;
    for (int32_t t = 0; t < tile->tokens; t += rows) { /* the first one says where cuts lie */
        const int32_t most = t == 0 ? 1 : TATVPR_ROWS_TOGETHER;
        rows = tatvpr_min_i32(most, tile->tokens - t);
        if (!tatvpr_ranked(own, tile, t, rows, keep, group, list)) {
            for (int32_t i = 0; i < rows; i++) {
                tatvpr_select_row(own, tile, t + i, keep, group, list);
            }
        }
    }
}

/* What a variant's table takes, of its two parts and its keep_all(). */
#define TATVPR_DEFINE_SELECT(variant)                                                             \
    static const tatvpr_select_kernels own = {tatvpr_##variant##_select_channels,                 \
                                              tatvpr_##variant##_select_groups, keep_all};        \
    void tatvpr_##variant##_select(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t group,     \
                                   int32_t list) {                                                \
        tatvpr_select_row(&own, tile, t, keep, group, list);                                      \
    }                                                                                             \
    void tatvpr_##variant##_select_rows(tatvpr_tile *tile, int32_t keep, int32_t group,           \
                                        int32_t list) {                                           \
        tatvpr_select_all_rows(&own, tile, keep, group, list);                                    \
    }

#endif
