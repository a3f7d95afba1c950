/* Long rows in parts: what kernels of aligned fours share that unpack weights to bytes and want
 * those of a part of the channels to stay in the first-level cache. */
#ifndef TATVPR_FOURS_PARTS_H
#define TATVPR_FOURS_PARTS_H

#include "core.h"

enum { TATVPR_MOST_PARTS = 16 };

/* Where each token's list passes from part to part. */
typedef struct tatvpr_parts {
    int32_t count;
    int32_t fours; /* of a part; the last one may be shorter */
    uint16_t end[TATVPR_MOST_PARTS][TATVPR_TILE_TOKENS]; /* entries of the parts up to this one */
} tatvpr_parts;

/* Even parts of about `wanted` fours, larger ones where there would be too many. */
static inline void tatvpr_divide(tatvpr_parts *p, const tatvpr_tile *tile, int32_t wanted) {
    const int32_t fours = tile->k_in / 4;
    p->count = tatvpr_min_i32((fours + wanted - 1) / wanted, TATVPR_MOST_PARTS);
    p->fours = (fours + p->count - 1) / p->count;
    for (int32_t t = 0; t < tile->tokens; t++) {
        const uint16_t *index = tile->index + (ptrdiff_t)t * tile->list_stride;
        int32_t i = 0;
        for (int32_t part = 0; part < p->count - 1; part++) {
            while (i < tile->count[t] && index[i] < (part + 1) * p->fours) {
                i++;
            }
            p->end[part][t] = (uint16_t)i;
        }
        p->end[p->count - 1][t] = (uint16_t)tile->count[t];
    }
}

/* Entries of token t that lie before a part. */
static inline int32_t tatvpr_part_begin(const tatvpr_parts *p, int32_t part, int32_t t) {
    return part == 0 ? 0 : p->end[part - 1][t];
}

#endif
