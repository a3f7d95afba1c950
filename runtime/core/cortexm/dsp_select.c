/* The top-k gate on Cortex-M4 and M7: which channels of a row stay, four bytes at a time.
 *
 * A histogram of |q| gives the least magnitude that stays; at that magnitude the lower indices
 * stay. About twelve instructions a channel, the lists of the sparse kernel included.
 */
#include "../common/core.h"

#if defined(__ARM_FEATURE_DSP) && !defined(__ARM_FEATURE_MVE)

#include "cortexm.h"
#include "dsp_simd.h"

#define MAGNITUDES 128

typedef struct limit {
    int32_t least; /* magnitude */
    int32_t ties;  /* how many of that magnitude stay; the greater ones all do */
} limit;

static limit find_limit(const uint32_t *words, int32_t count, int32_t keep) {
    union {
        uint32_t pairs[MAGNITUDES / 2];
        uint16_t bins[MAGNITUDES];
    } h;
#pragma GCC unroll 16
    for (int32_t i = 0; i < MAGNITUDES / 2; i++) {
        h.pairs[i] = 0;
    }
    for (int32_t i = 0; i < count; i++) {
        const uint32_t m = tatvpr_abs4(words[i]);
        h.bins[m & 255u]++;
        h.bins[m >> 8 & 255u]++;
        h.bins[m >> 16 & 255u]++;
        h.bins[m >> 24]++;
    }
    int32_t above = 0; /* of greater magnitude: eight bins at a time, then one at a time */
    int32_t eight = MAGNITUDES / 8 - 1;
    for (;; eight--) {
        const uint32_t *p = h.pairs + 4 * eight;
        const uint32_t sums = p[0] + p[1] + p[2] + p[3];
        const int32_t here = (int32_t)((sums & 0xFFFFu) + (sums >> 16));
        if (above + here >= keep) {
            break;
        }
        above += here;
    }
    int32_t least = 8 * eight + 7;
    while (above + h.bins[least] < keep) {
        above += h.bins[least--];
    }
    const limit found = {least, keep - above};
    return found;
}

/* A word in which some channels have the least magnitude: they stay while ties last. */
static uint32_t keep_ties(uint32_t word, int32_t least, int32_t *ties) {
    uint32_t kept = 0;
    for (int32_t shift = 0; shift < 32; shift += 8) {
        const int32_t q = (int8_t)(word >> shift);
        const int32_t magnitude = q < 0 ? -q : q;
        if (magnitude > least || (magnitude == least && (*ties)-- > 0)) {
            kept |= word & 255u << shift;
        }
    }
    return kept;
}

static void drop_others(uint32_t *words, int32_t count, limit limit) {
    const uint32_t least = (uint32_t)limit.least * 0x01010101u;
    const uint32_t greater = least + 0x01010101u;
    int32_t i = 0;
    for (; i < count && limit.ties > 0; i++) {
        const uint32_t word = words[i];
        const uint32_t m = tatvpr_abs4(word);
        const uint32_t sure = tatvpr_where_at_least(m, greater, word);
        const uint32_t kept = tatvpr_where_at_least(m, least, word);
        words[i] = kept;
        if (sure != kept) {
            words[i] = keep_ties(word, limit.least, &limit.ties);
        }
    }
    for (; i < count; i++) {
        words[i] = tatvpr_where_at_least(tatvpr_abs4(words[i]), greater, words[i]);
    }
}

/* Non-zero channels to the row's list. Branches rather than arithmetic: most words of a row that
 * is worth a list are rare in them. */
static void list_words(tatvpr_tile *tile, int32_t t, const uint32_t *words, int32_t count) {
    uint16_t *const first = tile->index + (ptrdiff_t)t * tile->list_stride;
    uint16_t *index = first;
    int8_t *value = tile->value + (ptrdiff_t)t * tile->list_stride;
    for (int32_t i = 0; i < count; i++) {
        const uint32_t word = words[i];
        if (word == 0) {
            continue;
        }
        const uint16_t channel = (uint16_t)(4 * i);
        if (word << 24 != 0) {
            *index++ = channel;
            *value++ = (int8_t)word;
        }
        if ((word & 0xFF00u) != 0) {
            *index++ = (uint16_t)(channel + 1);
            *value++ = (int8_t)(word >> 8);
        }
        if ((word & 0xFF0000u) != 0) {
            *index++ = (uint16_t)(channel + 2);
            *value++ = (int8_t)(word >> 16);
        }
        if (word >> 24 != 0) {
            *index++ = (uint16_t)(channel + 3);
            *value++ = (int8_t)(word >> 24);
        }
    }
    tile->count[t] = (int32_t)(index - first);
    while ((index - first) % 4 != 0) {
        *index++ = 0;
        *value++ = 0;
    }
}

/* Sum of |q| over one group of `words` words. */
static int32_t group_score(const uint32_t *group, int32_t words) {
    uint32_t score = 0;
    for (int32_t i = 0; i < words; i++) {
        score = tatvpr_add_bytes(score, tatvpr_abs4(group[i]));
    }
    return (int32_t)score;
}

#define MOST_GROUPS 256

/* Groups of whole words: their scores once, the least score that stays bit by bit. */
static void drop_groups(uint32_t *words, int32_t group_words, int32_t groups, int32_t keep) {
    int16_t scores[MOST_GROUPS];
    int32_t most = 0;
    for (int32_t g = 0; g < groups; g++) {
        const int32_t score = group_score(words + (ptrdiff_t)g * group_words, group_words);
        scores[g] = (int16_t)score;
        most |= score;
    }
    int32_t least = 0;
    for (int32_t bit = 1 << 14; bit > 0; bit /= 2) {
        int32_t reached = 0;
        if (bit > most) {
            continue; /* no score has it */
        }
        for (int32_t g = 0; g < groups; g++) {
            reached += scores[g] >= least + bit;
        }
        least += reached >= keep ? bit : 0;
    }
    int32_t ties = keep;
    for (int32_t g = 0; g < groups; g++) {
        ties -= scores[g] > least;
    }
    for (int32_t g = 0; g < groups; g++) {
        if (scores[g] > least || (scores[g] == least && ties-- > 0)) {
            continue;
        }
        for (int32_t i = 0; i < group_words; i++) {
            words[g * group_words + i] = 0;
        }
    }
}

void tatvpr_dsp_select(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t group, int32_t list) {
    uint32_t *words = (uint32_t *)(void *)(tile->q + (ptrdiff_t)t * tile->q_stride);
    const int32_t count = (tile->k_in + 3) / 4; /* past the last channel q is 0 */
    const int32_t groups = tile->k_in / group;
    if (group != 1 && (group % 4 != 0 || group > 64 || groups > MOST_GROUPS)) {
        tatvpr_portable_select(tile, t, keep, group, list);
        return;
    }
    if (keep < groups && group != 1) {
        drop_groups(words, group / 4, groups, keep);
    } else if (keep < groups) {
        const limit found = find_limit(words, count, keep);
        if (found.least > 0) { /* else every channel that is not 0 stays */
            drop_others(words, count, found);
        }
    }
    if (list) {
        list_words(tile, t, words, count);
    }
}

#endif
