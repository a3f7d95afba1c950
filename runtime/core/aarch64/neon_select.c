/* NEON: the gate's choice. The cut of a row is looked for around that of the row before: a first pass
 * counts the magnitudes that reach it, which says on which side the cut lies and about how far; the
 * passes after it count at two bounds. Of the ties at the cut the last ones go; kept channels, or
 * fours of them, are compressed by table. Groups of 2, 4, 8 and 16 are ranked in the same way, by
 * sums of 16 bits; others are left to the portable code.
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
    FIRST_BOUND = 24,     /* where no row went before: near the cut of a Gaussian at k = .5 */
    SUM_TURN = 16         /* sums of groups are padded to this many */
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
    int32_t reach; /* of what is ranked, how many are at least the bound */
    int32_t above; /* and above it */
} counts;

static counts count_magnitudes(const uint8_t *magnitude, int32_t padded, int32_t bound) {
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

static counts count_sums(const uint16_t *sums, int32_t padded, int32_t bound) {
    const uint16x8_t limit = vdupq_n_u16((uint16_t)bound);
    uint16x8_t reach = vdupq_n_u16(0);
    uint16x8_t above = vdupq_n_u16(0);
    for (int32_t i = 0; i < padded; i += SUM_TURN) {
        for (int32_t j = 0; j < SUM_TURN; j += 8) {
            const uint16x8_t s = vld1q_u16(sums + i + j);
            reach = vsubq_u16(reach, vcgeq_u16(s, limit));
            above = vsubq_u16(above, vcgtq_u16(s, limit));
        }
    }
    const counts c = {(int32_t)vaddvq_u16(reach), (int32_t)vaddvq_u16(above)};
    return c;
}

/* What is ranked: the magnitudes of channels, or the sums of groups. */
typedef struct row {
    uint8_t *magnitude; /* null where groups are */
    uint16_t *sums;
    int32_t padded; /* magnitudes to a TURN of vectors, sums to a SUM_TURN, with zeros */
    int32_t most;   /* nothing is above it */
} row;

static inline counts count_at(const row *r, int32_t bound) {
    return r->magnitude != NULL ? count_magnitudes(r->magnitude, r->padded, bound)
                                : count_sums(r->sums, r->padded, bound);
}

/* What is asked of a row. */
typedef struct wanted {
    int32_t keep;
    int32_t guess; /* where the cut is looked for first */
    int32_t slope; /* by how much a bound moves for one more that reaches it, near the cut, times
                      4096 */
} wanted;

/* Where the cut is expected by a count at `bound`: as far from it as its surplus of channels is. */
static int32_t expected(int32_t bound, int32_t reach, const wanted *w) {
    return reach < w->keep ? bound - 1 - ((w->keep - reach) * w->slope >> 12)
                           : bound + ((reach - w->keep) * w->slope >> 12);
}

/* A bound that at least `keep` reach, and fewer than that if it were larger by one or by as much as
 * brings one fewer; 0 where fewer are not zero. `first`: how many reach w->guess. *reach: how many
 * reach what is answered. */
static int32_t find_cut(const row *r, const wanted *w, int32_t first, int32_t *reach) {
    int32_t low = 0; /* reached by enough; high is not */
    int32_t high = r->most + 1;
    if (first >= w->keep) {
        low = w->guess;
        *reach = first;
    } else {
        high = w->guess;
    }
    int32_t next = expected(w->guess, first, w);
    for (int32_t pass = 1; high - low > 1 && (low == 0 || *reach > w->keep); pass++) {
        if (pass > 4) { /* rows of another shape */
            next = (low + high) / 2;
        }
        /* Beside a bound that is known, two more decide two places. */
        next = tatvpr_max_i32(low + 1, tatvpr_min_i32(next, high - 2));
        const counts c = count_at(r, next);
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

/* ---- groups */

/* Sums of |q| by groups, which are written; answers how many, zeros for padding among them. `group`
 * is a constant where this is inlined. */
static inline __attribute__((always_inline)) int32_t
sum_groups(const int8_t *q, int32_t padded, int32_t group, uint16_t *sums) {
    const int32_t vectors = 8 / group > 0 ? 8 / group : 1; /* of sums, a turn; 16: half a one */
    int32_t n = 0;
    for (int32_t i = 0; i < padded; i += TURN * VECTOR) {
        uint16x8_t s[TURN];
        for (int32_t j = 0; j < TURN; j++) {
            s[j] = vpaddlq_u8(vreinterpretq_u8_s8(vabsq_s8(vld1q_s8(q + i + VECTOR * j))));
        }
        for (int32_t left = TURN, width = 2; width < group; width *= 2, left = (left + 1) / 2) {
            for (int32_t j = 0; 2 * j < left; j++) {
                s[j] = vpaddq_u16(s[2 * j], s[left > 1 ? 2 * j + 1 : 0]);
            }
        }
        for (int32_t j = 0; j < vectors; j++) {
            vst1q_u16(sums + n + 8 * j, s[j]); /* of groups of 16, half is overwritten */
        }
        n += TURN * VECTOR / group;
    }
    for (; n % SUM_TURN != 0; n++) {
        sums[n] = 0;
    }
    return n;
}

/* Of the sums at the cut, the last `surplus` ones become zero. */
static void drop_sums(uint16_t *sums, int32_t padded, int32_t cut, int32_t surplus) {
    const uint16x8_t bound = vdupq_n_u16((uint16_t)cut);
    for (int32_t i = padded - 8; surplus > 0; i -= 8) {
        if (vmaxvq_u16(vceqq_u16(vld1q_u16(sums + i), bound)) == 0) {
            continue;
        }
        for (int32_t j = i + 7; j >= i && surplus > 0; j--) {
            if (sums[j] == cut) {
                sums[j] = 0;
                surplus--;
            }
        }
    }
}

/* Of groups whose sum is below the cut all channels become zero. Answers the sum of the others. */
static inline __attribute__((always_inline)) int32_t
keep_groups(int8_t *q, int32_t padded, int32_t group, const uint16_t *sums, int32_t cut) {
    const uint16x8_t bound = vdupq_n_u16((uint16_t)cut);
    int16x8_t kept[SUMS] = {vdupq_n_s16(0), vdupq_n_s16(0)};
    for (int32_t i = 0; i < padded; i += TURN * VECTOR) {
        uint16x8_t stays[TURN]; /* of 64 channels: lanes of groups first, then of channels' pairs */
        int32_t have = 8 / group > 0 ? 8 / group : 1;
        for (int32_t j = 0; j < have; j++) {
            stays[j] = vcgeq_u16(vld1q_u16(sums + i / group + 8 * j), bound);
        }
        for (int32_t width = group; width > 2; width /= 2) {
            have = width == 16 ? 1 : 2 * have;
            for (int32_t j = have - 1; j >= 0; j--) {
                stays[j] = j % 2 == 0 ? vzip1q_u16(stays[j / 2], stays[j / 2])
                                      : vzip2q_u16(stays[j / 2], stays[j / 2]);
            }
        }
        for (int32_t j = 0; j < TURN; j++) {
            int8_t *at = q + i + VECTOR * j;
            const int8x16_t v = vandq_s8(vld1q_s8(at), vreinterpretq_s8_u16(stays[j]));
            vst1q_s8(at, v);
            kept[j % SUMS] = vpadalq_s8(kept[j % SUMS], v);
        }
    }
    return vaddvq_s32(vpadalq_s16(vpaddlq_s16(kept[0]), kept[1]));
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

/* For every mask of four words, their bytes, those of the mask first. */
#define WORD(n) 4 * (n), 4 * (n) + 1, 4 * (n) + 2, 4 * (n) + 3
#define WORDS(a, b, c, d) {WORD(a), WORD(b), WORD(c), WORD(d)}
static const uint8_t shuffles[16][16] = {
    WORDS(0, 0, 0, 0), WORDS(0, 0, 0, 0), WORDS(1, 0, 0, 0), WORDS(0, 1, 0, 0),
    WORDS(2, 0, 0, 0), WORDS(0, 2, 0, 0), WORDS(1, 2, 0, 0), WORDS(0, 1, 2, 0),
    WORDS(3, 0, 0, 0), WORDS(0, 3, 0, 0), WORDS(1, 3, 0, 0), WORDS(0, 1, 3, 0),
    WORDS(2, 3, 0, 0), WORDS(0, 2, 3, 0), WORDS(1, 2, 3, 0), WORDS(0, 1, 2, 3),
};

/* Lists the fours of channels that are not zeros alone. */
static void list_fours(tatvpr_tile *tile, int32_t t, int32_t padded) {
    static const uint32_t bit[4] = {1, 2, 4, 8};
    const int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    uint16_t *index = tile->index + (ptrdiff_t)t * tile->list_stride;
    int8_t *value = tile->value + (ptrdiff_t)t * tile->list_stride;
    const uint32x4_t bits = vld1q_u32(bit);
    int32_t n = 0;
    for (int32_t i = 0; i < padded; i += TURN * VECTOR) {
        uint32x4_t masks = vdupq_n_u32(0);
        for (int32_t j = 0; j < TURN; j++) {
            const uint32x4_t v = vreinterpretq_u32_s8(vld1q_s8(q + i + VECTOR * j));
            masks = vorrq_u32(vshlq_n_u32(masks, 4), vandq_u32(vtstq_u32(v, v), bits));
        }
        const uint32_t all = vaddvq_u32(masks);
        for (int32_t j = 0; j < TURN; j++) {
            const uint32_t mask = all >> 4 * (TURN - 1 - j) & 15u;
            const int8x16_t v = vld1q_s8(q + i + VECTOR * j);
            vst1q_s8(value + 4 * (ptrdiff_t)n, vqtbl1q_s8(v, vld1q_u8(shuffles[mask])));
            const uint8x8_t lanes = vcreate_u8(tatvpr_compress_table[mask]);
            const uint16x8_t first = vdupq_n_u16((uint16_t)(i / 4 + 4 * j));
            vst1_u16(index + n, vget_low_u16(vaddw_u8(first, lanes)));
            n += (int32_t)(0x4332322132212110u >> 4 * mask & 15u); /* ones of each mask */
        }
    }
    tile->count[t] = n;
}

/* ---- one row, all of it */

/* Where the cut of row `t` is looked for first: near those of the rows before. */
static int32_t first_bound(const tatvpr_tile *tile, int32_t t, int32_t group) {
    const float guess = tile->hint * vrecpes_f32(tile->s[t]); /* to one in 256: time alone */
    return guess >= 1.0f && guess < (float)(127 * group) ? (int32_t)(guess + 0.5f)
                                                         : FIRST_BOUND * group;
}

static void remember(tatvpr_tile *tile, int32_t t, int32_t cut) {
    const float cut_at = (float)cut * tile->s[t];
    tile->hint = tile->hint > 0.0f ? 0.75f * tile->hint + 0.25f * cut_at : cut_at;
}

/* Keeps `keep` channels of row `t`, fewer than all of them. Answers the sum of what stays. */
static int32_t choose(tatvpr_tile *tile, int32_t t, int32_t padded, int32_t keep) {
    uint8_t magnitude[MOST_CHANNELS];
    int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    /* In rows of a bell's shape, channels at the cut times its distance from zero are about those
     * that go, and no more than 7 in 16 of all. */
    const int32_t most = tile->k_in * 7 / 16;
    const int32_t mass = tatvpr_max_i32(tatvpr_min_i32(tile->k_in - keep, most), 16);
    const int32_t guess = first_bound(tile, t, 1);
    const wanted w = {keep, guess, guess * 4096 / mass};
    const row r = {magnitude, NULL, padded, 127};
    int32_t reach = keep;
    const int32_t cut = find_cut(&r, &w, count_first(q, magnitude, padded, guess), &reach);
    if (cut == 0) { /* fewer than `keep` are not zero */
        return sum_row(q, padded);
    }
    remember(tile, t, cut);
    const int32_t end = drop_ties(magnitude, padded, cut, reach - keep);
    const int32_t sum = keep_row(q, magnitude, end, cut);
    return sum + keep_row(q + end, magnitude + end, padded - end, cut + 1);
}

/* The same of groups. Their sums crowd around a mean the more, the larger the groups are: about
 * sqrt(group) / 2 of all at the cut times its distance from zero for a bell's channels, and less where
 * neighbours are alike. */
static inline __attribute__((always_inline)) int32_t
choose_groups(tatvpr_tile *tile, int32_t t, int32_t padded, int32_t keep, int32_t group) {
    uint16_t sums[MOST_CHANNELS / 2 + SUM_TURN];
    int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    const int32_t sixteenths = group == 2 ? 8 : group == 4 ? 12 : group == 8 ? 17 : 24;
    const int32_t mass = tatvpr_max_i32(tile->k_in / group * sixteenths / 16, 1);
    const int32_t guess = first_bound(tile, t, group);
    const wanted w = {keep, guess, guess * 4096 / mass};
    const row r = {NULL, sums, sum_groups(q, padded, group, sums), 127 * group};
    int32_t reach = keep;
    const int32_t cut = find_cut(&r, &w, count_sums(sums, r.padded, guess).reach, &reach);
    if (cut == 0) {
        return sum_row(q, padded);
    }
    remember(tile, t, cut);
    drop_sums(sums, r.padded, cut, reach - keep);
    return keep_groups(q, padded, group, sums, cut);
}

void tatvpr_neon_select(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t group, int32_t list) {
    const int32_t padded = tatvpr_q_stride(tile->k_in);
    const int32_t known = padded <= MOST_CHANNELS &&
                          (group == 1 || group == 2 || group == 4 || group == 8 || group == 16);
    if (!known) {
        tatvpr_portable_select(tile, t, keep, group, list == TATVPR_LIST_CHANNELS ? list : 0);
        if (list == TATVPR_LIST_FOURS) {
            tatvpr_list_fours(tile, t);
        }
        return;
    }
    if (keep >= tile->k_in / group) {
        tile->sum[t] = sum_row(tile->q + (ptrdiff_t)t * tile->q_stride, padded);
    } else if (group == 1) {
        tile->sum[t] = choose(tile, t, padded, keep);
    } else if (group == 2) {
        tile->sum[t] = choose_groups(tile, t, padded, keep, 2);
    } else if (group == 4) {
        tile->sum[t] = choose_groups(tile, t, padded, keep, 4);
    } else if (group == 8) {
        tile->sum[t] = choose_groups(tile, t, padded, keep, 8);
    } else {
        tile->sum[t] = choose_groups(tile, t, padded, keep, 16);
    }
    if (list == TATVPR_LIST_FOURS) {
        list_fours(tile, t, padded);
    } else if (list != 0) {
        list_row(tile, t, padded);
    }
}
