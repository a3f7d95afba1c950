/* x86: the order of work of the gate's choice among groups of 2, 4, 8 or 16 channels, for AVX2 and
 * AVX-512. The cut is looked for bit by bit, as the portable way does: no row costs more than
 * another. Each bit waits for the one before it: rows that are searched together hide that. */
#ifndef TATVPR_GROUP_SELECT_H
#define TATVPR_GROUP_SELECT_H

#include "../common/core.h"

enum {
    TATVPR_MOST_CHANNELS = 4096, /* longer rows are ranked by the portable way */
    TATVPR_SCORES_PADDING = 32,  /* scores are padded with zeros to a multiple of this */
    TATVPR_SCORES = TATVPR_MOST_CHANNELS / 2 + TATVPR_SCORES_PADDING
};

/* A row's list under construction. Stores may go beyond its end, into the slack of
 * TATVPR_LIST_STRIDE: the next ones or the padding overwrite them. */
typedef struct list_end {
    uint16_t *index;
    int8_t *value;
} list_end;

static inline list_end begin_list(const tatvpr_tile *tile, int32_t t, int32_t list) {
    list_end end = {NULL, NULL};
    if (list != TATVPR_LIST_NOTHING) {
        end.index = tile->index + (ptrdiff_t)t * tile->list_stride;
        end.value = tile->value + (ptrdiff_t)t * tile->list_stride;
    }
    return end;
}

/* Both of a variant, for rows t .. t + rows - 1 (up to TATVPR_ROWS_TOGETHER): of up to
 * TATVPR_MOST_CHANNELS channels, of which `keep` single ones stay: fewer than there are (`list`:
 * channels or nothing); and of groups, of rows that tatvpr_ranks_groups() says. */
#define TATVPR_SELECT_PARTS(variant)                                                              \
    void tatvpr_##variant##_select_channels(tatvpr_tile *tile, int32_t t, int32_t rows,           \
                                            int32_t keep, int32_t list);                          \
    void tatvpr_##variant##_select_groups(tatvpr_tile *tile, int32_t t, int32_t rows, int32_t keep,\
                                          int32_t group, int32_t list)

/* Groups of rows that are searched together. */
typedef struct tatvpr_groups {
    /* Sums of |q|, at most 16 * 127. */
    int16_t score[TATVPR_ROWS_TOGETHER][TATVPR_SCORES] __attribute__((aligned(64)));
    int32_t padded;                      /* scores of a row, with the zeros after them */
    int32_t least[TATVPR_ROWS_TOGETHER]; /* the cut: the largest sum that at least `keep` reach */
    int32_t above[TATVPR_ROWS_TOGETHER]; /* how many lie above it */
} tatvpr_groups;

/* What a variant has of its own. `group` is a constant where these are inlined. */
typedef struct tatvpr_group_kernels {
    /* The scores of a row of `channels`, a multiple of 64, with TATVPR_SCORES_PADDING zeros. */
    void (*sum)(const int8_t *q, int32_t channels, int32_t group, int16_t *score);
    /* How many scores of each row lie above its bound. */
    void (*count_above)(const tatvpr_groups *g, const int32_t *bound, int32_t *count);
    /* Drops or lists row `t`, which is `row` of these, and adds up what stays. */
    void (*keep)(tatvpr_tile *tile, int32_t t, const tatvpr_groups *g, int32_t row, int32_t keep,
                 int32_t group, int32_t list);
} tatvpr_group_kernels;

/* 1: rows that are ranked here: there are groups to drop, and none of 2 is listed by fours. */
static inline int32_t tatvpr_ranks_groups(const tatvpr_tile *tile, int32_t keep, int32_t group,
                                          int32_t list) {
    return (group == 2 || group == 4 || group == 8 || group == 16) && keep < tile->k_in / group &&
           tile->k_in <= TATVPR_MOST_CHANNELS && !(group == 2 && list == TATVPR_LIST_FOURS);
}

static inline __attribute__((always_inline)) void
tatvpr_find_group_cuts(const tatvpr_group_kernels *own, tatvpr_groups *g, int32_t rows,
                       int32_t keep, int32_t group) {
    int32_t least[TATVPR_ROWS_TOGETHER] = {0};
    int32_t above[TATVPR_ROWS_TOGETHER] = {0};
    for (int32_t i = rows; i < TATVPR_ROWS_TOGETHER; i++) { /* what no row is left for */
        __builtin_memset(g->score[i], 0, (size_t)g->padded * sizeof(g->score[i][0]));
    }
    for (int32_t bit = 64 * group; bit > 0; bit /= 2) {
        int32_t bound[TATVPR_ROWS_TOGETHER];
        int32_t count[TATVPR_ROWS_TOGETHER];
        for (int32_t i = 0; i < TATVPR_ROWS_TOGETHER; i++) {
            bound[i] = least[i] + bit - 1;
        }
        own->count_above(g, bound, count);
        for (int32_t i = 0; i < TATVPR_ROWS_TOGETHER; i++) {
            const int32_t enough = -(count[i] >= keep); /* no branch: none could be predicted */
            least[i] += bit & enough;
            above[i] = (above[i] & enough) | (count[i] & ~enough);
        }
    }
    __builtin_memcpy(g->least, least, sizeof(least));
    __builtin_memcpy(g->above, above, sizeof(above));
}

static inline __attribute__((always_inline)) void
tatvpr_select_groups_of(const tatvpr_group_kernels *own, tatvpr_tile *tile, int32_t t,
                        int32_t rows, int32_t keep, int32_t group, int32_t list) {
    tatvpr_groups g;
    const int32_t channels = (tile->k_in + 63) / 64 * 64;
    g.padded = (channels / group + TATVPR_SCORES_PADDING - 1) / TATVPR_SCORES_PADDING *
               TATVPR_SCORES_PADDING;
    for (int32_t i = 0; i < rows; i++) {
        own->sum(tile->q + (ptrdiff_t)(t + i) * tile->q_stride, channels, group, g.score[i]);
    }
    tatvpr_find_group_cuts(own, &g, rows, keep, group);
    for (int32_t i = 0; i < rows; i++) {
        own->keep(tile, t + i, &g, i, keep, group, list);
    }
}

/* Rows t .. t + rows - 1, up to TATVPR_ROWS_TOGETHER, of those that tatvpr_ranks_groups() says:
 * `keep` groups of each stay. */
static inline __attribute__((always_inline)) void
tatvpr_select_groups(const tatvpr_group_kernels *own, tatvpr_tile *tile, int32_t t, int32_t rows,
                     int32_t keep, int32_t group, int32_t list) {
    if (group == 2) {
        tatvpr_select_groups_of(own, tile, t, rows, keep, 2, list);
    } else if (group == 4) {
        tatvpr_select_groups_of(own, tile, t, rows, keep, 4, list);
    } else if (group == 8) {
        tatvpr_select_groups_of(own, tile, t, rows, keep, 8, list);
    } else {
        tatvpr_select_groups_of(own, tile, t, rows, keep, 16, list);
    }
}

#endif
