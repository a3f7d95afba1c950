/* The top-k gate on Cortex-M4 and M7: which channels of a row stay, four bytes at a time.
 *
 * A histogram of |q| gives the least magnitude that stays; at that magnitude the lower indices
 * stay. About twelve instructions a channel, the lists of the sparse kernel included.
 */
#include "../../common/core.h"

#if defined(TATVPR_MCU_DSP)

#include "../mcu.h"
#include "dsp_simd.h"

#define MAGNITUDES 128

typedef struct limit {
    int32_t least; /* magnitude */
    int32_t ties;  /* how many of that magnitude stay, the first ones; the greater ones all do */
    int32_t all_ties;
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
#pragma GCC unroll 4
    for (int32_t i = 0; i < count; i++) {
        const uint32_t m = tatvpr_abs4(words[i]);
        h.bins[m & 255u]++;
        h.bins[m >> 8 & 255u]++;
        h.bins[m >> 16 & 255u]++;
        h.bins[m >> 24]++;
    }
    int32_t above = 0; /* of greater magnitude: sixteen bins at a time, then one at a time */
    const uint32_t *p = h.pairs + MAGNITUDES / 2 - 8;
    for (;; p -= 8) {
        const uint32_t sums = ((p[0] + p[1]) + (p[2] + p[3])) + ((p[4] + p[5]) + (p[6] + p[7]));
        const int32_t here = above + (int32_t)((sums & 0xFFFFu) + (sums >> 16));
        if (here >= keep) {
            break;
        }
        above = here;
    }
    int32_t least = 2 * (int32_t)(p - h.pairs) + 15;
    while (above + h.bins[least] < keep) {
        above += h.bins[least--];
    }
    const limit found = {least, keep - above, above + h.bins[least] == keep};
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

/* The word in which the last tie that stays is found; `left` says how many stay there. */
static int32_t last_tie(const uint32_t *words, int32_t count, limit found, int32_t *left) {
    const uint32_t least = (uint32_t)found.least * 0x01010101u;
    int32_t ties = found.ties;
#pragma GCC unroll 4
    for (int32_t i = 0; i < count; i++) {
        const uint32_t other = tatvpr_abs4(words[i]) ^ least; /* a byte 0 is a tie */
        const uint32_t tied = tatvpr_where_less(other, 0x01010101u, 0x01010101u);
        if (tied != 0) {
            const int32_t here = (int32_t)(tied * 0x01010101u >> 24);
            if (here >= ties) {
                *left = ties;
                return i;
            }
            ties -= here;
        }
    }
    return count;
}

/* Where the list of a row is written to. */
typedef struct list_end {
    uint16_t *index;
    int8_t *value;
} list_end;

/* Words first .. end lose the channels whose magnitude is below that of every byte of `least`;
 * with `list`, what stays is listed. Branches rather than arithmetic: rows that are worth a list
 * are mostly zero. */
static list_end drop_and_list(uint32_t *words, int32_t first, int32_t end, uint32_t least,
                              list_end to, int32_t list) {
    uint32_t *at = words + first;
    const uint32_t *stop = words + end;
    if (at >= stop) {
        return to;
    }
    if (!list) {
#pragma GCC unroll 4
        for (; at != stop; at++) {
            *at = tatvpr_where_at_least(tatvpr_abs4(*at), least, *at);
        }
        return to;
    }
    uint32_t word, scratch, channel = 4u * (uint32_t)first;
    __asm volatile(
        ".macro KEEP test, step, shift\n"
        " \\test\n"
        " beq 2f\n"
        " add %[scratch], %[channel], #\\step\n"
        " strh %[scratch], [%[index]], #2\n"
        " lsr %[scratch], %[word], #\\shift\n"
        " strb %[scratch], [%[value]], #1\n"
        "2:\n"
        ".endm\n"
        "1:\n"
        "ldr %[word], [%[at]]\n"
        "ssub8 %[scratch], %[zero], %[word]\n"
        "sel %[scratch], %[scratch], %[word]\n"
        "usub8 %[scratch], %[scratch], %[least]\n"
        "sel %[word], %[word], %[zero]\n"
        "str %[word], [%[at]], #4\n"
        "cmp %[word], #0\n"
        "beq 3f\n"
        "lsls %[scratch], %[word], #24\n"
        "beq 2f\n"
        "strh %[channel], [%[index]], #2\n"
        "strb %[word], [%[value]], #1\n"
        "2:\n"
        "KEEP \"tst %[word], #0xff00\", 1, 8\n"
        "KEEP \"tst %[word], #0xff0000\", 2, 16\n"
        "lsrs %[word], %[word], #24\n"
        "beq 3f\n"
        "add %[scratch], %[channel], #3\n"
        "strh %[scratch], [%[index]], #2\n"
        "strb %[word], [%[value]], #1\n"
        "3:\n"
        "add %[channel], %[channel], #4\n"
        "cmp %[at], %[stop]\n"
        "bne 1b\n"
        ".purgem KEEP\n"
        : [at] "+&r"(at), [index] "+&r"(to.index), [value] "+&r"(to.value), [channel] "+&r"(channel),
          [word] "=&r"(word), [scratch] "=&r"(scratch)
        : [stop] "r"(stop), [least] "r"(least), [zero] "r"(0)
        : "cc", "memory");
    return to;
}

/* Keeps what `found` says and lists it. */
static list_end keep_limit(uint32_t *words, int32_t count, limit found, list_end to,
                           int32_t list) {
    const uint32_t least = (uint32_t)found.least * 0x01010101u;
    const uint32_t greater = least + 0x01010101u;
    int32_t ties = 0;
    const int32_t last = found.all_ties ? count : last_tie(words, count, found, &ties);
    /* before the word of the last tie all ties stay; after it none do */
    if (last < count) {
        words[last] = keep_ties(words[last], found.least, &ties);
    }
    to = drop_and_list(words, 0, tatvpr_min_i32(last + 1, count), least, to, list);
    return drop_and_list(words, last + 1, count, greater, to, list);
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
#define SCORES 512 /* of groups of four: 0 to 508 */

/* Least score that stays among `groups` scores, the greatest of which is `most` < SCORES. */
static int32_t least_by_histogram(const int16_t *scores, int32_t groups, int32_t most,
                                  int32_t keep) {
    union {
        uint32_t pairs[SCORES / 2];
        uint16_t bins[SCORES];
    } h;
#pragma GCC unroll 16
    for (int32_t i = 0; i < SCORES / 2; i++) {
        h.pairs[i] = 0;
    }
#pragma GCC unroll 4
    for (int32_t g = 0; g < groups; g++) {
        h.bins[scores[g]]++;
    }
    int32_t least = most;
    for (int32_t above = h.bins[least]; above < keep; above += h.bins[least]) {
        least--;
    }
    return least;
}

/* Groups of whole words: the ones with the largest sums stay. */
static void drop_groups(uint32_t *words, int32_t group_words, int32_t groups, int32_t keep) {
    int16_t scores[MOST_GROUPS];
    int32_t most = 0;
    for (int32_t g = 0; g < groups; g++) {
        const int32_t score = group_score(words + (ptrdiff_t)g * group_words, group_words);
        scores[g] = (int16_t)score;
        most = tatvpr_max_i32(most, score);
    }
    const int32_t least = group_words == 1 ? least_by_histogram(scores, groups, most, keep)
                                           : tatvpr_least_kept(scores, groups, keep);
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
    limit found = {1, 0, 1}; /* whatever is not 0 */
    if (keep < groups && group != 1) {
        drop_groups(words, group / 4, groups, keep);
    } else if (keep < groups) {
        found = find_limit(words, count, keep);
    }
    list_end to = {tile->index, tile->value};
    uint16_t *const first = tile->index + (ptrdiff_t)t * tile->list_stride;
    to.index = first;
    to.value = tile->value + (ptrdiff_t)t * tile->list_stride;
    if (found.least > 0) {
        to = keep_limit(words, count, found, to, list);
    } else if (list) { /* every channel that is not 0 stays */
        to = drop_and_list(words, 0, count, 0x01010101u, to, 1);
    }
    if (list) {
        tile->count[t] = (int32_t)(to.index - first);
        while ((to.index - first) % 4 != 0) {
            *to.index++ = 0;
            *to.value++ = 0;
        }
    }
}

#endif
