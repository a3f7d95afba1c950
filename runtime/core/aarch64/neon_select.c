/* NEON: the gate's choice. A threshold is found bit by bit with compare-and-count over the whole
 * row; ties at the threshold go to the lower index; kept channels are compressed by table. Groups of
 * 2, 4, 8 and 16 are ranked by sums of 16 bits; others are left to the portable code. */
#include "neon.h"
#include "../common/compress_table.h"

enum { MOST_CHANNELS = 4096 }; /* rows up to this are ranked from the stack; longer: portable */

/* How many magnitudes are above `bound`; byte counters reach at most 255 before they are added. */
static int32_t count_above(const uint8_t *a, int32_t padded, int32_t bound) {
    const uint8x16_t limit = vdupq_n_u8((uint8_t)bound);
    int32_t total = 0;
    for (int32_t first = 0; first < padded; first += 16 * 255) {
        const int32_t end = tatvpr_min_i32(first + 16 * 255, padded);
        uint8x16_t counts = vdupq_n_u8(0);
        for (int32_t i = first; i < end; i += 16) {
            counts = vsubq_u8(counts, vcgtq_u8(vld1q_u8(a + i), limit));
        }
        total += (int32_t)vaddlvq_u8(counts);
    }
    return total;
}

/* Of the lanes in `equal`, the first `*ties` ones; takes them off *ties. */
static uint8x16_t first_ties(uint8x16_t equal, int32_t *ties) {
    const int32_t count = (int32_t)vaddvq_u8(vshrq_n_u8(equal, 7));
    if (count <= *ties) {
        *ties -= count;
        return equal;
    }
    uint8_t lanes[16];
    vst1q_u8(lanes, equal);
    for (int i = 0; i < 16; i++) { /* once a row at most */
        if (lanes[i] != 0 && (*ties)-- <= 0) {
            lanes[i] = 0;
            *ties = 0;
        }
    }
    return vld1q_u8(lanes);
}

/* Appends the eight channels from `first` on whose lane of `kept` is set. */
static int32_t append_8(const int8_t *q, int32_t first, uint8x8_t kept, uint16_t *index,
                        int8_t *value, int32_t n) {
    static const uint8_t bits[8] = {1, 2, 4, 8, 16, 32, 64, 128};
    const uint32_t mask = vaddv_u8(vand_u8(kept, vld1_u8(bits)));
    const uint8x8_t shuffle = vcreate_u8(tatvpr_compress_table[mask]);
    vst1_s8(value + n, vtbl1_s8(vld1_s8(q + first), vreinterpret_s8_u8(shuffle)));
    vst1q_u16(index + n, vaddw_u8(vdupq_n_u16((uint16_t)first), shuffle));
    return n + (int32_t)vaddv_u8(vshr_n_u8(kept, 7));
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

/* mask[i] = 255 for channels of the `keep` best groups, 0 for others. */
static void keep_groups(const uint8_t *magnitude, int32_t k_in, int32_t group, int32_t keep,
                        uint8_t *mask) {
    uint16_t scores[MOST_CHANNELS / 2 + 8];
    const int32_t groups = k_in / group;
    const int32_t padded = group_scores(magnitude, k_in, group, scores);
    int32_t least = 0;
    for (int32_t bit = 1024; bit > 0 && keep < groups; bit /= 2) { /* sums are at most 16 * 127 */
        least += scores_above(scores, padded, least + bit - 1) >= keep ? bit : 0;
    }
    int32_t ties = keep - scores_above(scores, padded, least);
    for (int32_t g = 0; g < groups; g++) {
        const int32_t score = scores[g];
        const int32_t stays = score > least || (score == least && ties-- > 0);
        const uint8_t byte = (uint8_t)-stays;
        for (int32_t i = 0; i < group; i++) {
            mask[g * group + i] = byte;
        }
    }
}

/* ---- one row */

/* Zeroes what the mask drops, and writes the row's sum and its list. */
static void take(tatvpr_tile *tile, int32_t t, const uint8_t *mask, int32_t list) {
    const int32_t padded = (tile->k_in + 15) / 16 * 16;
    int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    uint16_t *index = list ? tile->index + (ptrdiff_t)t * tile->list_stride : NULL;
    int8_t *value = list ? tile->value + (ptrdiff_t)t * tile->list_stride : NULL;
    int32x4_t sums = vdupq_n_s32(0);
    int32_t n = 0;
    for (int32_t i = 0; i < padded; i += 16) {
        const int8x16_t kept = vandq_s8(vld1q_s8(q + i), vreinterpretq_s8_u8(vld1q_u8(mask + i)));
        vst1q_s8(q + i, kept);
        sums = vpadalq_s16(sums, vpaddlq_s8(kept));
        if (list) {
            const uint8x16_t some = vtstq_s8(kept, kept);
            n = append_8(q, i, vget_low_u8(some), index, value, n);
            n = append_8(q, i + 8, vget_high_u8(some), index, value, n);
        }
    }
    tile->sum[t] = vaddvq_s32(sums);
    if (list) {
        tile->count[t] = n;
        for (; n % 4 != 0; n++) {
            index[n] = 0;
            value[n] = 0;
        }
    }
}

/* mask of the `keep` largest single channels. */
static void keep_channels(const uint8_t *magnitude, int32_t padded, int32_t k_in, int32_t keep,
                          uint8_t *mask) {
    int32_t least = 0; /* the largest threshold that at least `keep` channels reach */
    for (int32_t bit = 64; bit > 0 && keep < k_in; bit /= 2) {
        const int32_t reached = count_above(magnitude, padded, least + bit - 1);
        least += reached >= keep ? bit : 0;
    }
    int32_t ties = keep - count_above(magnitude, padded, least);
    const uint8x16_t bound = vdupq_n_u8((uint8_t)least);
    for (int32_t i = 0; i < padded; i += 16) {
        const uint8x16_t a = vld1q_u8(magnitude + i);
        vst1q_u8(mask + i, vorrq_u8(vcgtq_u8(a, bound), first_ties(vceqq_u8(a, bound), &ties)));
    }
}

void tatvpr_neon_select(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t group, int32_t list) {
    if (list == TATVPR_LIST_FOURS) {
        tatvpr_neon_select(tile, t, keep, group, TATVPR_LIST_NOTHING);
        tatvpr_list_fours(tile, t);
        return;
    }
    const int32_t known = group == 1 || group == 2 || group == 4 || group == 8 || group == 16;
    if (!known || tile->k_in > MOST_CHANNELS) {
        tatvpr_portable_select(tile, t, keep, group, list);
        return;
    }
    uint8_t magnitude[MOST_CHANNELS];
    uint8_t mask[MOST_CHANNELS];
    const int32_t padded = (tile->k_in + 15) / 16 * 16;
    const int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    for (int32_t i = 0; i < padded; i += 16) {
        vst1q_u8(magnitude + i, vreinterpretq_u8_s8(vabsq_s8(vld1q_s8(q + i))));
    }
    if (group == 1) {
        keep_channels(magnitude, padded, tile->k_in, keep, mask);
    } else {
        keep_groups(magnitude, tile->k_in, group, keep, mask);
        for (int32_t i = tile->k_in; i < padded; i++) {
            mask[i] = 0;
        }
    }
    take(tile, t, mask, list);
}
