/* Plain NEON (Cortex-A57, A72): dense and sparse ternary matmul with 8-bit multiplies into 16-bit
 * sums, 64 outputs at a time. A 16-bit lane grows by at most 2 * 127 a channel: 128 channels fit,
 * then lanes are widened. */
#include "neon.h"

enum { CHANNELS = 128 };

typedef struct sums {
    int16x8_t s[8]; /* 64 outputs: the low and high halves of each field */
} sums;

static inline sums no_sums(void) {
    sums z;
    for (int i = 0; i < 8; i++) {
        z.s[i] = vdupq_n_s16(0);
    }
    return z;
}

/* An activation in all lanes, by the load alone: GCC makes vld1q_dup_s8 a load to a general register
 * and a broadcast, which takes one of the two vector pipes for a cycle of the eight that a channel
 * needs. */
static inline int8x16_t all_lanes(const int8_t *at) {
    int8x16_t v;
    __asm__("ld1r {%0.16b}, %1" : "=w"(v) : "Q"(*at));
    return v;
}

/* One channel: 64 weights, four a byte, times its activation. */
static inline sums add_channel(sums a, uint8x16_t codes, int8x16_t q) {
    const uint8x16_t mask = vdupq_n_u8(3);
    const uint8x16_t fields[4] = {vandq_u8(codes, mask), vandq_u8(vshrq_n_u8(codes, 2), mask),
                                  vandq_u8(vshrq_n_u8(codes, 4), mask),
                                  vreinterpretq_u8_s8(vshrq_n_s8(vreinterpretq_s8_u8(codes), 6))};
    for (int f = 0; f < 4; f++) {
        const int8x16_t w = vreinterpretq_s8_u8(fields[f]);
        a.s[2 * f] = vmlal_s8(a.s[2 * f], vget_low_s8(w), vget_low_s8(q));
        a.s[2 * f + 1] = vmlal_high_s8(a.s[2 * f + 1], w, q);
    }
    return a;
}

static inline void widen(sums a, int32_t *acc /* [64] */) {
    for (int i = 0; i < 8; i++) {
        vst1q_s32(acc + 8 * i, vaddw_s16(vld1q_s32(acc + 8 * i), vget_low_s16(a.s[i])));
        vst1q_s32(acc + 8 * i + 4, vaddw_high_s16(vld1q_s32(acc + 8 * i + 4), a.s[i]));
    }
}

/* 64 sums before the first channel: what the + 1 of all codes adds is taken off beforehand; the top
 * field has none. */
static inline void begin(int32_t *acc, int32_t sum) {
    for (int32_t i = 0; i < 64; i += 4) {
        vst1q_s32(acc + i, vdupq_n_s32(i < 48 ? -sum : 0));
    }
}

static inline void write_64(const tatvpr_matmul *job, int32_t t, int32_t first,
                            const int32_t *acc) {
    const tatvpr_neon_factors f = tatvpr_neon_one_factor(job->tile->s[t]);
    tatvpr_neon_write(job, t, first, tatvpr_min_i32(64, job->op->n_out - first), acc, f.of_field);
}

/* Two tokens share the unpacking of a channel's codes. */
static void two_tokens(const uint8_t *rows, const int8_t *q0, const int8_t *q1, int32_t channels,
                       int32_t *acc /* [2][64], begun */) {
    for (int32_t first = 0; first < channels; first += CHANNELS) {
        const int32_t end = tatvpr_min_i32(first + CHANNELS, channels);
        sums a = no_sums();
        sums b = no_sums();
        for (int32_t k = first; k < end; k++) {
            const uint8x16_t codes = vld1q_u8(rows + (ptrdiff_t)k * 16);
            a = add_channel(a, codes, vld1q_dup_s8(q0 + k));
            b = add_channel(b, codes, vld1q_dup_s8(q1 + k));
        }
        widen(a, acc);
        widen(b, acc + 64);
    }
}

void tatvpr_neon_dense(const tatvpr_matmul *job) {
    const tatvpr_tile *tile = job->tile;
    const int32_t n_out = job->op->n_out;
    const int32_t k_rows = tatvpr_neon_rows(job->op->k_in);
    for (int32_t first = 0; first < n_out; first += 64) {
        const uint8_t *rows = job->weight + (ptrdiff_t)(first / 64) * k_rows * 16;
        for (int32_t t = 0; t < tile->tokens; t += 2) {
            const int32_t other = tatvpr_min_i32(t + 1, tile->tokens - 1);
            int32_t acc[128];
            begin(acc, tile->sum[t]);
            begin(acc + 64, tile->sum[other]);
            two_tokens(rows, tile->q + (ptrdiff_t)t * tile->q_stride,
                       tile->q + (ptrdiff_t)other * tile->q_stride, job->op->k_in, acc);
            for (int32_t i = 0; i < 2 && t + i < tile->tokens; i++) {
                write_64(job, t + i, first, acc + 64 * i);
            }
        }
    }
}

void tatvpr_neon_sparse(const tatvpr_matmul *job) {
    const tatvpr_tile *tile = job->tile;
    const int32_t n_out = job->op->n_out;
    const int32_t k_rows = tatvpr_neon_rows(job->op->k_in);
    for (int32_t first = 0; first < n_out; first += 64) {
        const uint8_t *rows = job->weight + (ptrdiff_t)(first / 64) * k_rows * 16;
        for (int32_t t = 0; t < tile->tokens; t++) {
            const uint16_t *index = tile->index + (ptrdiff_t)t * tile->list_stride;
            const int8_t *value = tile->value + (ptrdiff_t)t * tile->list_stride;
            int32_t acc[64];
            begin(acc, tile->sum[t]);
            for (int32_t i = 0; i < tile->count[t]; i += CHANNELS) {
                const int32_t end = tatvpr_min_i32(i + CHANNELS, tile->count[t]);
                sums a = no_sums();
                for (int32_t k = i; k < end; k++) {
                    const uint8x16_t codes = vld1q_u8(rows + (ptrdiff_t)index[k] * 16);
                    a = add_channel(a, codes, all_lanes(value + k));
                }
                widen(a, acc);
            }
            write_64(job, t, first, acc);
        }
    }
}

/* Where both cost the same on Cortex-A72's model, lists included, in the layers of the shipped models
 * (192 to 1,536 channels): .89 to .92 (docs/performance.md); not measured on a board. */
float tatvpr_neon_sparse_below(const tatvpr_ternary *op, int32_t group) {
    (void)op;
    (void)group;
    return 0.91f;
}
