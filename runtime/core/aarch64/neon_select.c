/* NEON: the gate's choice. The cut of a row is looked for around that of the row before: a first pass
 * counts the magnitudes that reach it, which says on which side the cut lies and about how far; the
 * passes after it count at two bounds. Of the ties at the cut the last ones go; kept channels are
 * compressed by table. Groups of 2, 4, 8 and 16 are ranked by sums of 16 bits; others are left to the
 * portable code.
 *
 * Rows are padded with zeros to TATVPR_ROW_ALIGN, which is worked off a turn, and no bound is below
 * 1: padding is never counted. */
#include "neon.h"
#include "../common/compress_table.h"

enum {
    VECTOR = 16,
    TURN = TATVPR_ROW_ALIGN / VECTOR, /* vectors */
    SUMS = 2,                         /* that vectors go to by turns */
    MOST_CHANNELS = 4032, /* rows up to this are ranked from the stack (252 vectors: what counters of
                             a byte hold); longer: portable */
    FIRST_BOUND = 24      /* where no row went before: near the cut of a Gaussian at k = .5 */
};

/* All lanes of counters; no lane's sum is above 255. */
static inline int32_t sum_of_lanes(const uint8x16_t v[SUMS]) {
    return (int32_t)vaddlvq_u8(vaddq_u8(v[0], v[1]));
}

/* Magnitudes of q, which are written, that are at least `bound`, 1..127. */
static int32_t count_first(const int8_t *q, uint8_t *magnitude, int32_t padded, int32_t bound) {
    const uint8x16_t limit = vdupq_n_u8((uint8_t)bound);
    uint8x16_t reach[SUMS] = {vdupq_n_u8(0), vdupq_n_u8(0)};
    for (int32_t i = 0; i < padded; i += TURN * VECTOR) {
        for (int32_t j = 0; j < TURN; j++) {
            const uint8x16_t m = vreinterpretq_u8_s8(vabsq_s8(vld1q_s8(q + i + VECTOR * j)));
            vst1q_u8(magnitude + i + VECTOR * j, m);
            reach[j % SUMS] = vsubq_u8(reach[j % SUMS], vcgeq_u8(m, limit));
        }
    }
    return sum_of_lanes(reach);
}

typedef struct counts {
    int32_t reach; /* magnitudes that are at least the bound */
    int32_t above; /* and those above it */
} counts;

static counts count_two(const uint8_t *magnitude, int32_t padded, int32_t bound) {
    const uint8x16_t limit = vdupq_n_u8((uint8_t)bound);
    uint8x16_t reach[SUMS] = {vdupq_n_u8(0), vdupq_n_u8(0)};
    uint8x16_t above[SUMS] = {vdupq_n_u8(0), vdupq_n_u8(0)};
    for (int32_t i = 0; i < padded; i += TURN * VECTOR) {
        for (int32_t j = 0; j < TURN; j++) {
            const uint8x16_t m = vld1q_u8(magnitude + i + VECTOR * j);
            reach[j % SUMS] = vsubq_u8(reach[j % SUMS], vcgeq_u8(m, limit));
            above[j % SUMS] = vsubq_u8(above[j % SUMS], vcgtq_u8(m, limit));
        }
    }
    const counts c = {sum_of_lanes(reach), sum_of_lanes(above)};
    return c;
}

/* What is asked of a row. */
typedef struct wanted {
    int32_t keep;
    int32_t guess; /* where the cut is looked for first */
    int32_t slope; /* magnitudes a channel, near the cut, times 4096 */
} wanted;

/* Where the cut is expected by a count at `bound`: as far from it as its surplus of channels is. */
static int32_t expected(int32_t bound, int32_t reach, const wanted *w) {
    return reach < w->keep ? bound - 1 - ((w->keep - reach) * w->slope >> 12)
                           : bound + ((reach - w->keep) * w->slope >> 12);
}

/* The largest bound that at least `keep` magnitudes reach, 0 where fewer are not zero, and how many
 * reach it; writes the magnitudes of q. */
static int32_t find_cut(const int8_t *q, uint8_t *magnitude, int32_t padded, const wanted *w,
                        int32_t *reach) {
    int32_t low = 0; /* reached by enough; high is not */
    int32_t high = 128;
    const int32_t first = count_first(q, magnitude, padded, w->guess);
    if (first >= w->keep) {
        low = w->guess;
        *reach = first;
    } else {
        high = w->guess;
    }
    int32_t next = expected(w->guess, first, w);
    for (int32_t pass = 1; high - low > 1; pass++) {
        if (pass > 4) { /* rows of another shape */
            next = (low + high) / 2;
        }
        /* Beside a bound that is known, two more decide two places. */
        next = tatvpr_max_i32(low + 1, tatvpr_min_i32(next, high - 2));
        const counts c = count_two(magnitude, padded, next);
        if (c.reach < w->keep) {
            high = next;
            next = expected(next, c.reach, w);
        } else if (c.above < w->keep) {
            low = next;
            *reach = c.reach;
            high = next + 1;
        } else {
            low = next + 1;
            *reach = c.above;
            next = expected(low, c.above, w);
        }
    }
    return low;
}

/* Of the channels at the cut, the last `surplus` ones go: answers the channel from which on all of
 * them do, and takes the magnitude from those before it that go too. */
static int32_t drop_ties(uint8_t *magnitude, int32_t padded, int32_t cut, int32_t surplus) {
    const uint8x16_t bound = vdupq_n_u8((uint8_t)cut);
    int32_t end = padded;
    for (; surplus > 0; end -= TURN * VECTOR) {
        uint8x16_t ties[SUMS] = {vdupq_n_u8(0), vdupq_n_u8(0)};
        for (int32_t j = 0; j < TURN; j++) {
            const uint8x16_t m = vld1q_u8(magnitude + end - TURN * VECTOR + VECTOR * j);
            ties[j % SUMS] = vsubq_u8(ties[j % SUMS], vceqq_u8(m, bound));
        }
        const int32_t here = sum_of_lanes(ties);
        if (here > surplus) {
            break;
        }
        surplus -= here;
    }
    for (int32_t i = end - 1; surplus > 0; i--) {
        if (magnitude[i] == cut) {
            magnitude[i] = 0;
            surplus--;
        }
    }
    return end;
}

/* ---- groups */

/* Scores of groups above `bound`, of `padded` ones (a multiple of 8). */
static int32_t scores_above(const uint16_t *scores, int32_t padded, int32_t bound) {
    const uint16x8_t limit = vdupq_n_u16((uint16_t)bound);
    uint16x8_t counts = vdupq_n_u16(0);
    for (int32_t i = 0; i < padded; i += 8) { /* at most 256 rounds: MOST_CHANNELS / 2 groups */
        counts = vsubq_u16(counts, vcgtq_u16(vld1q_u16(scores + i), limit));
    }
    return (int32_t)vaddlvq_u16(counts);
}

/* Sums of |q| of each group of 2, 4, 8 or 16 neighbours; padding is zero. Answers the padded
 * number of groups. */
static int32_t group_scores(const uint8_t *magnitude, int32_t k_in, int32_t group,
                            uint16_t *scores) {
    const int32_t groups = k_in / group;
    const int32_t padded = (groups + 7) / 8 * 8;
    int32_t n = 0;
    for (int32_t i = 0; i < k_in; i += 16) {
        uint16x8_t sums = vpaddlq_u8(vld1q_u8(magnitude + i));
        for (int32_t wide = 2; wide < group; wide *= 2) {
            sums = vpaddq_u16(sums, vdupq_n_u16(0));
        }
        uint16_t lanes[8];
        vst1q_u16(lanes, sums);
        for (int32_t g = 0; g < 16 / group && n < groups; g++) {
            scores[n++] = lanes[g];
        }
    }
    for (; n < padded; n++) {
        scores[n] = 0;
    }
    return padded;
}

/* Channels of groups that are not among the `keep` best lose their magnitude. */
static void drop_groups(uint8_t *magnitude, int32_t k_in, int32_t group, int32_t keep) {
    uint16_t scores[MOST_CHANNELS / 2 + 8];
    const int32_t groups = k_in / group;
    const int32_t padded = group_scores(magnitude, k_in, group, scores);
    int32_t least = 0;
    for (int32_t bit = 1024; bit > 0; bit /= 2) { /* sums are at most 16 * 127 */
        least += scores_above(scores, padded, least + bit - 1) >= keep ? bit : 0;
    }
    int32_t ties = keep - scores_above(scores, padded, least);
    for (int32_t g = 0; g < groups; g++) {
        const int32_t score = scores[g];
        const int32_t stays = score > least || (score == least && ties-- > 0);
        const uint8_t byte = (uint8_t)-stays;
        for (int32_t i = 0; i < group; i++) {
            magnitude[g * group + i] &= byte;
        }
    }
}

/* ---- what stays. A row has at most 252 vectors, which go to two sums by turns; a lane of 16 bits
 * grows by at most 254 a vector. */

/* Sum of channels that all stay. */
static int32_t sum_row(const int8_t *q, int32_t padded) {
    int16x8_t sums[SUMS] = {vdupq_n_s16(0), vdupq_n_s16(0)};
    for (int32_t i = 0; i < padded; i += TURN * VECTOR) {
        for (int32_t j = 0; j < TURN; j++) {
            sums[j % SUMS] = vpadalq_s8(sums[j % SUMS], vld1q_s8(q + i + VECTOR * j));
        }
    }
    return vaddvq_s32(vpadalq_s16(vpaddlq_s16(sums[0]), sums[1]));
}

/* Of some channels, those whose magnitude is below the cut become zero. Answers the sum of the
 * others. */
static int32_t keep_row(int8_t *q, const uint8_t *magnitude, int32_t padded, int32_t cut) {
    const uint8x16_t bound = vdupq_n_u8((uint8_t)cut);
    int16x8_t sums[SUMS] = {vdupq_n_s16(0), vdupq_n_s16(0)};
    for (int32_t i = 0; i < padded; i += TURN * VECTOR) {
        for (int32_t j = 0; j < TURN; j++) {
            const int32_t at = i + VECTOR * j;
            const uint8x16_t stays = vcgeq_u8(vld1q_u8(magnitude + at), bound);
            const int8x16_t kept = vandq_s8(vld1q_s8(q + at), vreinterpretq_s8_u8(stays));
            vst1q_s8(q + at, kept);
            sums[j % SUMS] = vpadalq_s8(sums[j % SUMS], kept);
        }
    }
    return vaddvq_s32(vpadalq_s16(vpaddlq_s16(sums[0]), sums[1]));
}

/* ---- lists */

/* One bit for each of 64 channels that is not zero. */
static inline uint64_t not_zero(const int8_t *q) {
    static const uint8_t bits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t bit = vld1q_u8(bits);
    uint8x16_t m[TURN];
    for (int32_t j = 0; j < TURN; j++) {
        const int8x16_t v = vld1q_s8(q + VECTOR * j);
        m[j] = vandq_u8(vtstq_s8(v, v), bit);
    }
    const uint8x16_t sums = vpaddq_u8(vpaddq_u8(m[0], m[1]), vpaddq_u8(m[2], m[3]));
    return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(sums, sums)), 0);
}

/* How many bits each byte of `mask` has. */
static inline uint64_t bits_of_bytes(uint64_t mask) {
    mask -= mask >> 1 & 0x5555555555555555u;
    mask = (mask & 0x3333333333333333u) + (mask >> 2 & 0x3333333333333333u);
    return (mask + (mask >> 4)) & 0x0F0F0F0F0F0F0F0Fu;
}

/* Lists the channels that are not zero: eight at a time, each eight at a place that is known from
 * the counts of those before it, so that none waits. */
static void list_row(tatvpr_tile *tile, int32_t t, int32_t padded) {
    const int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    uint16_t *index = tile->index + (ptrdiff_t)t * tile->list_stride;
    int8_t *value = tile->value + (ptrdiff_t)t * tile->list_stride;
    int32_t n = 0;
    for (int32_t i = 0; i < padded; i += TURN * VECTOR) {
        const uint64_t mask = not_zero(q + i);
        const uint64_t upto = bits_of_bytes(mask) * 0x0101010101010101u; /* sums so far, by bytes */
        const uint64_t before = upto << 8;
        for (int32_t j = 0; j < 8; j++) {
            const uint8x8_t shuffle = vcreate_u8(tatvpr_compress_table[mask >> 8 * j & 255u]);
            const int32_t at = n + (int32_t)(before >> 8 * j & 255u);
            const int32_t first = i + 8 * j;
            vst1_s8(value + at, vtbl1_s8(vld1_s8(q + first), vreinterpret_s8_u8(shuffle)));
            vst1q_u16(index + at, vaddw_u8(vdupq_n_u16((uint16_t)first), shuffle));
        }
        n += (int32_t)(upto >> 56);
    }
    tile->count[t] = n;
    for (; n % 4 != 0; n++) {
        index[n] = 0;
        value[n] = 0;
    }
}

/* ---- one row, all of it */

/* Where the cut of row `t` is looked for first: near those of the rows before. */
static int32_t first_bound(const tatvpr_tile *tile, int32_t t) {
    const float guess = tile->hint * vrecpes_f32(tile->s[t]); /* to one in 256: time alone */
    return guess >= 1.0f && guess < 127.0f ? (int32_t)(guess + 0.5f) : FIRST_BOUND;
}

/* Keeps `keep` of row `t`, fewer than all of its groups. Answers the sum of what stays. */
static int32_t choose(tatvpr_tile *tile, int32_t t, int32_t padded, int32_t keep, int32_t group) {
    uint8_t magnitude[MOST_CHANNELS];
    int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    if (group != 1) {
        (void)count_first(q, magnitude, padded, 1);
        drop_groups(magnitude, tile->k_in, group, keep);
        return keep_row(q, magnitude, padded, 1);
    }
    /* In rows of a bell's shape, channels at the cut times its distance from zero are about those
     * that go, and no more than 7 in 16 of all. */
    const int32_t most = tile->k_in * 7 / 16;
    const int32_t mass = tatvpr_max_i32(tatvpr_min_i32(tile->k_in - keep, most), 16);
    const int32_t guess = first_bound(tile, t);
    const wanted w = {keep, guess, guess * 4096 / mass};
    int32_t reach = keep;
    const int32_t cut = find_cut(q, magnitude, padded, &w, &reach);
    if (cut == 0) { /* fewer than `keep` are not zero */
        return sum_row(q, padded);
    }
    const float cut_at = (float)cut * tile->s[t];
    tile->hint = tile->hint > 0.0f ? 0.75f * tile->hint + 0.25f * cut_at : cut_at;
    const int32_t end = drop_ties(magnitude, padded, cut, reach - keep);
    const int32_t sum = keep_row(q, magnitude, end, cut);
    return sum + keep_row(q + end, magnitude + end, padded - end, cut + 1);
}

void tatvpr_neon_select(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t group, int32_t list) {
    const int32_t known = group == 1 || group == 2 || group == 4 || group == 8 || group == 16;
    const int32_t padded = tatvpr_q_stride(tile->k_in);
    if (!known || padded > MOST_CHANNELS) {
        tatvpr_portable_select(tile, t, keep, group, list == TATVPR_LIST_CHANNELS ? list : 0);
    } else if (group == 1 ? keep < tile->k_in : keep < tile->k_in / group) {
        tile->sum[t] = choose(tile, t, padded, keep, group);
    } else {
        tile->sum[t] = sum_row(tile->q + (ptrdiff_t)t * tile->q_stride, padded);
    }
    if (list == TATVPR_LIST_FOURS) {
        tatvpr_list_fours(tile, t);
    } else if (list != 0 && known && padded <= MOST_CHANNELS) {
        list_row(tile, t, padded);
    }
}
