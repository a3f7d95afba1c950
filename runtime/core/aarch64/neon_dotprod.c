/* NEON with sdot: dense ternary matmul. Per 64 outputs the weights are unpacked once to bytes
 * (codes 0..2), four channels of four outputs a register; then four tokens by sixteen outputs, 16
 * accumulators in registers. */
/* Instructions are asked for here rather than on the command line, where compilers differ in how
 * they spell them. */
#if defined(__clang__)
#include <arm_neon.h>
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#include "neon.h"
#include "../common/fours_parts.h"

enum { PART_FOURS = 192 }; /* 48 kB of unpacked weights: most of a first-level cache */

/* The rows of four channels, transposed so that an output's four lie side by side. */
typedef struct quad {
    uint8x16_t u[4];
} quad;

static inline quad transpose(uint8x16_t r0, uint8x16_t r1, uint8x16_t r2, uint8x16_t r3) {
    const uint16x8_t t0 = vreinterpretq_u16_u8(vzip1q_u8(r0, r1));
    const uint16x8_t t1 = vreinterpretq_u16_u8(vzip2q_u8(r0, r1));
    const uint16x8_t t2 = vreinterpretq_u16_u8(vzip1q_u8(r2, r3));
    const uint16x8_t t3 = vreinterpretq_u16_u8(vzip2q_u8(r2, r3));
    const quad four = {
        {vreinterpretq_u8_u16(vzip1q_u16(t0, t2)), vreinterpretq_u8_u16(vzip2q_u16(t0, t2)),
         vreinterpretq_u8_u16(vzip1q_u16(t1, t3)), vreinterpretq_u8_u16(vzip2q_u16(t1, t3))}};
    return four;
}

/* 64 outputs to four panels of 16 outputs: [4][rows / 16 rounded up][4 quads][4][16 bytes]. */
static void unpack(const uint8_t *rows, int32_t k_rows, uint8_t *panel) {
    const uint8x16_t mask = vdupq_n_u8(3);
    const uint8x16_t one = vdupq_n_u8(1 << 6); /* of the top field */
    const ptrdiff_t field_bytes = tatvpr_neon_panel_bytes(k_rows);
    for (int32_t k = 0; k < k_rows; k += 4, rows += 64, panel += 64) {
        const quad four = transpose(vld1q_u8(rows), vld1q_u8(rows + 16), vld1q_u8(rows + 32),
                                    vld1q_u8(rows + 48));
        for (int i = 0; i < 4; i++) {
            uint8_t *to = panel + 16 * i;
            vst1q_u8(to, vandq_u8(four.u[i], mask));
            vst1q_u8(to + field_bytes, vandq_u8(vshrq_n_u8(four.u[i], 2), mask));
            vst1q_u8(to + 2 * field_bytes, vandq_u8(vshrq_n_u8(four.u[i], 4), mask));
            vst1q_u8(to + 3 * field_bytes, vshrq_n_u8(vaddq_u8(four.u[i], one), 6)); /* w to w + 1 */
        }
    }
}

#define DOT(t, quad)                                           \
    a##t##0 = vdotq_laneq_s32(a##t##0, w0, q##t, quad);        \
    a##t##1 = vdotq_laneq_s32(a##t##1, w1, q##t, quad);        \
    a##t##2 = vdotq_laneq_s32(a##t##2, w2, q##t, quad);        \
    a##t##3 = vdotq_laneq_s32(a##t##3, w3, q##t, quad);

#define QUAD(quad)                                                       \
    {                                                                    \
        const int8x16_t w0 = vld1q_s8(w + 64 * (quad));                  \
        const int8x16_t w1 = vld1q_s8(w + 64 * (quad) + 16);             \
        const int8x16_t w2 = vld1q_s8(w + 64 * (quad) + 32);             \
        const int8x16_t w3 = vld1q_s8(w + 64 * (quad) + 48);             \
        DOT(0, quad) DOT(1, quad) DOT(2, quad) DOT(3, quad)              \
    }

/* What the + 1 of all codes adds is taken off beforehand. */
#define BEGIN(t)                               \
    int32x4_t a##t##0 = vdupq_n_s32(-sum[t]);  \
    int32x4_t a##t##1 = a##t##0, a##t##2 = a##t##0, a##t##3 = a##t##0;

#define SUMS(t) {a##t##0, a##t##1, a##t##2, a##t##3}

/* Four rows of q, of those sums, by sixteen outputs; `sixteens` steps of 16 channels. */
static inline tatvpr_neon_sums four_tokens(const int8_t *const q[4], const int32_t sum[4],
                                           const int8_t *w, int32_t sixteens) {
    BEGIN(0) BEGIN(1) BEGIN(2) BEGIN(3)
    for (int32_t i = 0; i < sixteens; i++, w += 256) {
        const int8x16_t q0 = vld1q_s8(q[0] + 16 * i);
        const int8x16_t q1 = vld1q_s8(q[1] + 16 * i);
        const int8x16_t q2 = vld1q_s8(q[2] + 16 * i);
        const int8x16_t q3 = vld1q_s8(q[3] + 16 * i);
        QUAD(0) QUAD(1) QUAD(2) QUAD(3)
    }
    const tatvpr_neon_sums sums = {{SUMS(0), SUMS(1), SUMS(2), SUMS(3)}};
    return sums;
}

void tatvpr_dotprod_dense(const tatvpr_matmul *job) {
    tatvpr_neon_dense_by_four(job, unpack, four_tokens);
}

/* ---- sparse: four kept channels at a time. Fields are multiplied where they lie, with factors 4, 16
 * and 64 that go into the token's scale; for the top one the whole byte is taken, and what the fields
 * below add to it is taken off at the end. */

/* Sums of 64 outputs for a token whose row of q adds up to `sum`; those of field f are 4^f times
 * too large. */
static inline tatvpr_neon_sums token_64(const uint8_t *rows, const uint16_t *index,
                                        const int8_t *value, int32_t quads, int32_t sum) {
    tatvpr_neon_sums a;
    for (int i = 0; i < 4; i++) { /* what the + 1 of all codes adds, in each field and in all three */
        a.of[0][i] = vdupq_n_s32(-sum);
        a.of[1][i] = vdupq_n_s32(-4 * sum);
        a.of[2][i] = vdupq_n_s32(-16 * sum);
        a.of[3][i] = vdupq_n_s32(-21 * sum);
    }
    for (int32_t k = 0; k < quads; k++, index += 4, value += 4) {
        const quad four = transpose(vld1q_u8(rows + (ptrdiff_t)index[0] * 16),
                                    vld1q_u8(rows + (ptrdiff_t)index[1] * 16),
                                    vld1q_u8(rows + (ptrdiff_t)index[2] * 16),
                                    vld1q_u8(rows + (ptrdiff_t)index[3] * 16));
        const int8x8_t q = vld1_s8(value); /* lane 0 is taken: a load alone, where a broadcast costs
                                              an operation; lists have room beyond their end */
        for (int i = 0; i < 4; i++) {
            const int8x16_t f0 = vreinterpretq_s8_u8(vandq_u8(four.u[i], vdupq_n_u8(0x03)));
            const int8x16_t f1 = vreinterpretq_s8_u8(vandq_u8(four.u[i], vdupq_n_u8(0x0C)));
            const int8x16_t f2 = vreinterpretq_s8_u8(vandq_u8(four.u[i], vdupq_n_u8(0x30)));
            a.of[0][i] = vdotq_lane_s32(a.of[0][i], f0, q, 0);
            a.of[1][i] = vdotq_lane_s32(a.of[1][i], f1, q, 0);
            a.of[2][i] = vdotq_lane_s32(a.of[2][i], f2, q, 0);
            a.of[3][i] = vdotq_lane_s32(a.of[3][i], vreinterpretq_s8_u8(four.u[i]), q, 0);
        }
    }
    for (int i = 0; i < 4; i++) {
        const int32x4_t below = vaddq_s32(vaddq_s32(a.of[0][i], a.of[1][i]), a.of[2][i]);
        a.of[3][i] = vsubq_s32(a.of[3][i], below);
    }
    return a;
}

/* 64 outputs of a token, at once unless some of them are missing. */
static inline void write_token(const tatvpr_matmul *job, int32_t t, int32_t first,
                               const tatvpr_neon_sums *sums, tatvpr_neon_factors f) {
    const int32_t columns = tatvpr_min_i32(64, job->op->n_out - first);
    const ptrdiff_t at = (ptrdiff_t)t * job->y_stride + first;
    if (columns == 64 && !job->op->scale_per_row) {
        const float *residual = job->residual != NULL ? job->residual + at : NULL;
        tatvpr_neon_write_64(sums, vld1q_f32(f.of_field), job->scale, job->bias + first, 16,
                             residual, job->y + at, 16);
        return;
    }
    int32_t acc[64];
    tatvpr_neon_store_sums(sums, acc);
    tatvpr_neon_write(job, t, first, columns, acc, f.of_field);
}

void tatvpr_dotprod_sparse(const tatvpr_matmul *job) {
    const tatvpr_tile *tile = job->tile;
    const int32_t n_out = job->op->n_out;
    const int32_t k_rows = tatvpr_neon_rows(job->op->k_in);
    for (int32_t first = 0; first < n_out; first += 64) {
        const uint8_t *rows = job->weight + (ptrdiff_t)(first / 64) * k_rows * 16;
        for (int32_t t = 0; t < tile->tokens; t++) {
            const ptrdiff_t at = (ptrdiff_t)t * tile->list_stride;
            const tatvpr_neon_sums sums = token_64(rows, tile->index + at, tile->value + at,
                                                   (tile->count[t] + 3) / 4, tile->sum[t]);
            const float s = tile->s[t];
            const tatvpr_neon_factors f = {{s, s / 4.0f, s / 16.0f, s / 64.0f}};
            write_token(job, t, first, &sums, f);
        }
    }
}

/* ---- aligned fours: weights unpacked as the dense matmul does it, in parts of the channels */

static inline tatvpr_neon_sums all_sums(int32_t begin) {
    tatvpr_neon_sums a;
    for (int f = 0; f < 4; f++) {
        for (int i = 0; i < 4; i++) {
            a.of[f][i] = vdupq_n_s32(begin);
        }
    }
    return a;
}

static inline tatvpr_neon_sums load_sums(const int32_t *from /* [64] */) {
    tatvpr_neon_sums a;
    for (int f = 0; f < 4; f++) {
        for (int i = 0; i < 4; i++) {
            a.of[f][i] = vld1q_s32(from + 16 * f + 4 * i);
        }
    }
    return a;
}

/* 64 sums and `count` entries of a token's list. `w` is where four number 0 is, or would be. */
static inline tatvpr_neon_sums add_fours(tatvpr_neon_sums a, uintptr_t w, ptrdiff_t field_bytes,
                                         const uint16_t *index, const int8_t *value,
                                         int32_t count) {
    for (int32_t k = 0; k < count; k++, value += 4) {
        const int8_t *at = (const int8_t *)(w + (uintptr_t)index[k] * 64);
        const int8x8_t q = vld1_s8(value); /* lane 0, as above */
        for (int f = 0; f < 4; f++) {
            for (int i = 0; i < 4; i++) {
                a.of[f][i] =
                    vdotq_lane_s32(a.of[f][i], vld1q_s8(at + f * field_bytes + 16 * i), q, 0);
            }
        }
    }
    return a;
}

void tatvpr_dotprod_fours(const tatvpr_matmul *job) {
    const tatvpr_tile *tile = job->tile;
    const int32_t n_out = job->op->n_out;
    const int32_t k_rows = tatvpr_neon_rows(job->op->k_in);
    int32_t sums[TATVPR_TILE_TOKENS][64];
    tatvpr_parts p;
    tatvpr_divide(&p, tile, PART_FOURS);
    for (int32_t first = 0; first < n_out; first += 64) {
        const uint8_t *rows = job->weight + (ptrdiff_t)(first / 64) * k_rows * 16;
        for (int32_t part = 0; part < p.count; part++) {
            const int32_t k = part * p.fours * 4;
            const int32_t channels = tatvpr_min_i32(p.fours * 4, k_rows - k);
            const uintptr_t w = (uintptr_t)job->panel - (uintptr_t)(part * p.fours) * 64;
            unpack(rows + (ptrdiff_t)k * 16, channels, job->panel);
            for (int32_t t = 0; t < tile->tokens; t++) {
                const int32_t from = tatvpr_part_begin(&p, part, t);
                const ptrdiff_t list = (ptrdiff_t)t * tile->list_stride;
                tatvpr_neon_sums a = part == 0 ? all_sums(-tile->sum[t]) : load_sums(sums[t]);
                a = add_fours(a, w, tatvpr_neon_panel_bytes(channels), tile->index + list + from,
                              tile->value + list + 4 * (ptrdiff_t)from, p.end[part][t] - from);
                if (part == p.count - 1) {
                    write_token(job, t, first, &a, tatvpr_neon_one_factor(tile->s[t]));
                } else {
                    tatvpr_neon_store_sums(&a, sums[t]);
                }
            }
        }
    }
}

/* Where both cost the same on Neoverse N1's model, lists included, in the layers of the shipped models:
 * .47 to .49 where they are wider than long, .44 to .47 elsewhere (docs/performance.md). Fours: about
 * .77 in a frame of `micro`. Not measured on a board. */
float tatvpr_dotprod_sparse_below(const tatvpr_ternary *op, int32_t group) {
    return group % 4 == 0 ? 0.75f : op->n_out > op->k_in ? 0.48f : 0.45f;
}

#if defined(__clang__)
#pragma clang attribute pop
#endif
