/* x86: the order of work of the gate's choice among single channels, for AVX2 and AVX-512: the
 * largest magnitudes stay, and of ties the first ones.
 *
 * Where the cut lies is nearly known from the rows before. How many reach that guess says on which
 * side of it the cut is, and how many reach the four magnitudes there nearly always says which; a
 * row whose cut lies farther off is searched bit by bit. A row is one long chain of dependent steps
 * and the scheduler too small to reach the next one by itself: rows take each step together. */
#ifndef TATVPR_CHANNEL_SELECT_H
#define TATVPR_CHANNEL_SELECT_H

#include "../common/core.h"

enum {
    TATVPR_NEAR = 4, /* magnitudes that are looked at beside the guess */
    TATVPR_USUAL_CHANNELS = 192 /* of most rows of the shipped models: their loops are unrolled */
};

/* One row on the way to its cut: the largest magnitude that at least `keep` of it reach, or 1
 * where fewer are not 0. */
typedef struct tatvpr_cut_row {
    const int8_t *q;
    int32_t first; /* the lowest magnitude that is looked at */
    int32_t reach; /* how many reach the guess */
    int32_t least; /* the cut */
    int32_t above; /* how many lie above it */
} tatvpr_cut_row;

/* What a variant has of its own. Rows are padded with zeros to TATVPR_ROW_ALIGN, and no limit is
 * below 1. */
typedef struct tatvpr_channel_kernels {
    /* How many magnitudes of a row reach `limit`. */
    int32_t (*count)(const int8_t *q, int32_t k_in, int32_t limit);
    /* How many reach `first`, and each of the next ones. */
    void (*count_near)(const int8_t *q, int32_t k_in, int32_t first, int32_t *n /* [NEAR] */);
    /* Drops or lists row `t`, whose cut is found, and adds up what stays. */
    void (*keep)(tatvpr_tile *tile, int32_t t, int32_t k_in, int32_t keep, int32_t list,
                 const tatvpr_cut_row *r);
} tatvpr_channel_kernels;

static inline __attribute__((always_inline)) void
tatvpr_look_at_guess(const tatvpr_channel_kernels *own, const tatvpr_tile *tile, int32_t t,
                     int32_t k_in, int32_t keep, tatvpr_cut_row *r) {
    const float hint = tile->hint / tile->s[t]; /* 0 where no row says anything */
    const int32_t guess = hint < 127.0f ? tatvpr_max_i32((int32_t)(hint + 0.5f), 1) : 127;
    r->q = tile->q + (ptrdiff_t)t * tile->q_stride;
    r->reach = own->count(r->q, k_in, guess);
    r->first = r->reach >= keep ? guess + 1 : tatvpr_max_i32(guess - TATVPR_NEAR, 1);
}

/* 1: the cut is found. */
static inline __attribute__((always_inline)) int
tatvpr_look_near(const tatvpr_channel_kernels *own, tatvpr_cut_row *r, int32_t k_in,
                 int32_t keep) {
    int32_t n[TATVPR_NEAR];
    own->count_near(r->q, k_in, r->first, n);
    int32_t reached = 0;
    int32_t above = r->reach >= keep ? 0 : r->reach;
    for (int32_t j = 0; j < TATVPR_NEAR; j++) {
        __asm__("" : "+r"(n[j])); /* opaque, so that compilers make no vectors of four scalars */
        reached += n[j] >= keep;
        above = tatvpr_max_i32(above, n[j] >= keep ? 0 : n[j]);
    }
    r->above = above;
    r->least = r->first + reached - 1;
    return r->reach >= keep ? reached < TATVPR_NEAR : reached > 0;
}

static inline __attribute__((always_inline)) void
tatvpr_look_everywhere(const tatvpr_channel_kernels *own, tatvpr_cut_row *r, int32_t k_in,
                       int32_t keep) {
    r->least = 0;
    r->above = 0;
    for (int32_t bit = 64; bit > 0; bit /= 2) {
        const int32_t count = own->count(r->q, k_in, r->least + bit);
        const int enough = count >= keep;
        r->least += enough ? bit : 0;
        r->above = enough ? r->above : count;
    }
    if (r->least == 0) { /* fewer are not 0: all of them stay */
        r->least = 1;
        r->above = 0;
    }
}

static inline __attribute__((always_inline)) void
tatvpr_select_channels_of(const tatvpr_channel_kernels *own, tatvpr_tile *tile, int32_t t,
                          int32_t rows, int32_t k_in, int32_t keep, int32_t list) {
    tatvpr_cut_row r[TATVPR_ROWS_TOGETHER];
    int found[TATVPR_ROWS_TOGETHER];
    int all = 1;
    for (int32_t i = 0; i < rows; i++) {
        tatvpr_look_at_guess(own, tile, t + i, k_in, keep, r + i);
    }
    for (int32_t i = 0; i < rows; i++) {
        found[i] = tatvpr_look_near(own, r + i, k_in, keep);
        all &= found[i];
    }
    for (int32_t i = 0; !all && i < rows; i++) {
        if (!found[i]) {
            tatvpr_look_everywhere(own, r + i, k_in, keep);
        }
    }
    float cut = 0.0f; /* one step of the hint for all rows: the next ones wait for it */
    for (int32_t i = 0; i < rows; i++) {
        cut += (float)r[i].least * tile->s[t + i];
    }
    cut /= (float)rows;
    tile->hint = tile->hint > 0.0f ? 0.5f * (tile->hint + cut) : cut;
    for (int32_t i = 0; i < rows; i++) {
        own->keep(tile, t + i, k_in, keep, list, r + i);
    }
}

/* Rows t .. t + rows - 1 (up to TATVPR_ROWS_TOGETHER), of which `keep` single channels stay: fewer
 * than there are. `list`: channels or nothing. */
static inline __attribute__((always_inline)) void
tatvpr_select_channels(const tatvpr_channel_kernels *own, tatvpr_tile *tile, int32_t t,
                       int32_t rows, int32_t keep, int32_t list) {
    if (rows < TATVPR_ROWS_TOGETHER) {
        tatvpr_select_channels_of(own, tile, t, rows, tile->k_in, keep, list);
    } else if (tile->k_in != TATVPR_USUAL_CHANNELS) {
        tatvpr_select_channels_of(own, tile, t, TATVPR_ROWS_TOGETHER, tile->k_in, keep, list);
    } else if (list) {
        tatvpr_select_channels_of(own, tile, t, TATVPR_ROWS_TOGETHER, TATVPR_USUAL_CHANNELS, keep,
                                  TATVPR_LIST_CHANNELS);
    } else {
        tatvpr_select_channels_of(own, tile, t, TATVPR_ROWS_TOGETHER, TATVPR_USUAL_CHANNELS, keep,
                                  TATVPR_LIST_NOTHING);
    }
}

#endif
