/* The top-k gate on cores without vectors or packed arithmetic: a histogram of a row's bytes gives
 * the least magnitude that stays; at that magnitude the lower indices stay.
 */
#include "../../common/core.h"

#if defined(TATVPR_MCU_TABLES)

#include "../mcu.h"

typedef struct limit {
    int32_t least; /* magnitude */
    int32_t ties;  /* how many of that magnitude stay, the first ones; the greater ones all do */
} limit;

/* `count` is a multiple of four: past the last channel q is 0. `keep` is less. */
static limit find_limit(const uint8_t *q, int32_t count, int32_t keep) {
    union {
        uint32_t pairs[128];
        uint16_t bins[256]; /* of bytes as they lie: taking magnitudes would cost three
                               instructions a channel, adding two bins costs two a magnitude */
    } h;
#pragma GCC unroll 16
    for (int32_t i = 0; i < 128; i++) {
        h.pairs[i] = 0;
    }
    for (int32_t i = 0; i < count; i += 4) {
        h.bins[q[i]]++;
        h.bins[q[i + 1]]++;
        h.bins[q[i + 2]]++;
        h.bins[q[i + 3]]++;
    }
    /* Upwards, what goes: in rows of a bell's shape the limit is nearer to 0 than to 127. */
    int32_t goes = count - keep;
    int32_t here = h.bins[0];
    limit found = {0, 0};
    while (here <= goes) { /* ends: all of them together are more than `goes` */
        goes -= here;
        found.least++;
        here = h.bins[found.least] + h.bins[256 - found.least];
    }
    found.ties = here - goes;
    return found;
}

/* Keeps what `found` says, whose magnitude is not 0. */
static void drop(int8_t *q, int32_t count, limit found) {
    /* |v| <= least is one comparison: v + least is in 0 .. 2 * least, at both ends for ties */
    const uint32_t least = (uint32_t)found.least;
    const uint32_t whole = 2u * least;
    int32_t ties = found.ties;
    int32_t i = 0;
#pragma GCC unroll 4
    for (; i < count; i++) { /* to the last tie that stays */
        const uint32_t above = (uint32_t)(int32_t)q[i] + least;
        if (above <= whole) {
            if (above != 0u && above != whole) {
                q[i] = 0;
            } else if (--ties == 0) {
                break;
            }
        }
    }
#pragma GCC unroll 8
    for (i++; i < count; i++) {
        if ((uint32_t)(int32_t)q[i] + least <= whole) {
            q[i] = 0;
        }
    }
}

void tatvpr_tables_select(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t group,
                          int32_t list) {
    if (group != 1) {
        tatvpr_portable_select(tile, t, keep, group, list);
        return;
    }
    int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    if (keep < tile->k_in) {
        const int32_t count = (tile->k_in + 3) / 4 * 4;
        const limit found = find_limit((const uint8_t *)q, count, keep);
        if (found.least > 0) {
            drop(q, tile->k_in, found);
        }
    }
    if (list) {
        tatvpr_list_row(tile, t);
    }
}

#endif
