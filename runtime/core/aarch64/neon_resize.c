/* NEON: the inner loops of the resize (common/resize.c), on the same integers. */
#include "neon.h"

/* Bytes of the pixels 0 to 3 of a load, each r g b 0 in 32-bit lanes; 255 gives zero. */
static const uint8_t PIXELS[4][16] = {
    {0, 255, 255, 255, 1, 255, 255, 255, 2, 255, 255, 255, 255, 255, 255, 255},
    {3, 255, 255, 255, 4, 255, 255, 255, 5, 255, 255, 255, 255, 255, 255, 255},
    {6, 255, 255, 255, 7, 255, 255, 255, 8, 255, 255, 255, 255, 255, 255, 255},
    {9, 255, 255, 255, 10, 255, 255, 255, 11, 255, 255, 255, 255, 255, 255, 255},
};

static inline int32x4_t add_pixel(int32x4_t sums, uint8x16_t bytes, int32_t pixel, int32_t weight) {
    const uint8x16_t lanes = vqtbl1q_u8(bytes, vld1q_u8(PIXELS[pixel]));
    return vmlaq_n_s32(sums, vreinterpretq_s32_u8(lanes), weight);
}

/* Sums of `count` pixels from p on, by their weights; reads 16 bytes for every four of them. */
static inline int32x4_t sum_pixels(const uint8_t *p, const int32_t *weights, int32_t count) {
    int32x4_t sums = vdupq_n_s32(1 << (TATVPR_SQUASH_BITS - 1));
    int32_t i = 0;
    for (; i + 4 <= count; i += 4) {
        const uint8x16_t bytes = vld1q_u8(p + 3 * (ptrdiff_t)i);
        for (int32_t j = 0; j < 4; j++) {
            sums = add_pixel(sums, bytes, j, weights[i + j]);
        }
    }
    if (i < count) {
        const uint8x16_t bytes = vld1q_u8(p + 3 * (ptrdiff_t)i);
        for (int32_t j = 0; i + j < count; j++) {
            sums = add_pixel(sums, bytes, j, weights[i + j]);
        }
    }
    return sums;
}

void tatvpr_neon_squash_across(const tatvpr_squash_columns *c, const uint8_t *row, uint8_t *out) {
    for (int32_t x = 0; x < c->side; x++) {
        const int32_t count = c->count[x];
        if (3 * c->first[x] + (count + 3) / 4 * 12 + 4 > 3 * c->width || x == c->side - 1) {
            tatvpr_squash_column(c, row, x, out + 3 * (ptrdiff_t)x); /* near the right edge */
            continue;
        }
        const int32x4_t sums = sum_pixels(row + 3 * (ptrdiff_t)c->first[x],
                                          c->weights + (ptrdiff_t)x * c->stride, count);
        const uint16x4_t words = vqmovun_s32(vshrq_n_s32(sums, TATVPR_SQUASH_BITS));
        const uint8x8_t bytes = vqmovn_u16(vcombine_u16(words, words));
        const uint32_t pixel = vget_lane_u32(vreinterpret_u32_u8(bytes), 0);
        __builtin_memcpy(out + 3 * (ptrdiff_t)x, &pixel, sizeof(pixel)); /* a byte too many */
    }
}

void tatvpr_neon_squash_add(int32_t *sums, const uint8_t *row, int32_t weight, int32_t count) {
    int32_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const uint16x8_t words = vmovl_u8(vld1_u8(row + i));
        const int32x4_t low = vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(words)));
        const int32x4_t high = vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(words)));
        vst1q_s32(sums + i, vmlaq_n_s32(vld1q_s32(sums + i), low, weight));
        vst1q_s32(sums + i + 4, vmlaq_n_s32(vld1q_s32(sums + i + 4), high, weight));
    }
    for (; i < count; i++) {
        sums[i] += row[i] * weight;
    }
}

static inline uint16x4_t words_of(const int32_t *sums) {
    return vqmovun_s32(vshrq_n_s32(vld1q_s32(sums), TATVPR_SQUASH_BITS));
}

void tatvpr_neon_squash_bytes(const int32_t *sums, int32_t count, uint8_t *bytes) {
    int32_t i = 0;
    for (; i + 8 <= count; i += 8) { /* both loads come before the store that may overwrite them */
        const uint16x8_t words = vcombine_u16(words_of(sums + i), words_of(sums + i + 4));
        vst1_u8(bytes + i, vqmovn_u16(words));
    }
    for (; i < count; i++) {
        const int32_t v = sums[i] >> TATVPR_SQUASH_BITS;
        bytes[i] = (uint8_t)(v > 255 ? 255 : v);
    }
}
