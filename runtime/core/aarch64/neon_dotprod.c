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

/* Bytes of an unpacked panel of 16 outputs. */
static ptrdiff_t panel_bytes(int32_t k_rows) { return ((ptrdiff_t)k_rows + 15) / 16 * 256; }

/* 64 outputs to four panels of 16 outputs: [4][rows / 16 rounded up][4 quads][4][16 bytes]. */
static void unpack(const uint8_t *rows, int32_t k_rows, uint8_t *panel) {
    const uint8x16_t mask = vdupq_n_u8(3);
    const ptrdiff_t field_bytes = panel_bytes(k_rows);
    for (int32_t k = 0; k < k_rows; k += 4, rows += 64, panel += 64) {
        const uint8x16_t r0 = vld1q_u8(rows);
        const uint8x16_t r1 = vld1q_u8(rows + 16);
        const uint8x16_t r2 = vld1q_u8(rows + 32);
        const uint8x16_t r3 = vld1q_u8(rows + 48);
        const uint16x8_t t0 = vreinterpretq_u16_u8(vzip1q_u8(r0, r1));
        const uint16x8_t t1 = vreinterpretq_u16_u8(vzip2q_u8(r0, r1));
        const uint16x8_t t2 = vreinterpretq_u16_u8(vzip1q_u8(r2, r3));
        const uint16x8_t t3 = vreinterpretq_u16_u8(vzip2q_u8(r2, r3));
        const uint8x16_t u[4] = {
            vreinterpretq_u8_u16(vzip1q_u16(t0, t2)), vreinterpretq_u8_u16(vzip2q_u16(t0, t2)),
            vreinterpretq_u8_u16(vzip1q_u16(t1, t3)), vreinterpretq_u8_u16(vzip2q_u16(t1, t3))};
        for (int i = 0; i < 4; i++) {
            uint8_t *to = panel + 16 * i;
            vst1q_u8(to, vandq_u8(u[i], mask));
            vst1q_u8(to + field_bytes, vandq_u8(vshrq_n_u8(u[i], 2), mask));
            vst1q_u8(to + 2 * field_bytes, vandq_u8(vshrq_n_u8(u[i], 4), mask));
            vst1q_u8(to + 3 * field_bytes, vshrq_n_u8(u[i], 6));
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

#define CLEAR(t) \
    int32x4_t a##t##0 = vdupq_n_s32(0), a##t##1 = a##t##0, a##t##2 = a##t##0, a##t##3 = a##t##0;

#define STORE(t)                        \
    vst1q_s32(acc + 16 * (t), a##t##0);      \
    vst1q_s32(acc + 16 * (t) + 4, a##t##1);  \
    vst1q_s32(acc + 16 * (t) + 8, a##t##2);  \
    vst1q_s32(acc + 16 * (t) + 12, a##t##3);

/* Four rows of q by sixteen outputs; `sixteens` steps of 16 channels. */
static void four_tokens(const int8_t *const q[4], const int8_t *w, int32_t sixteens,
                        int32_t *acc /* [4][16] */) {
    CLEAR(0) CLEAR(1) CLEAR(2) CLEAR(3)
    for (int32_t i = 0; i < sixteens; i++, w += 256) {
        const int8x16_t q0 = vld1q_s8(q[0] + 16 * i);
        const int8x16_t q1 = vld1q_s8(q[1] + 16 * i);
        const int8x16_t q2 = vld1q_s8(q[2] + 16 * i);
        const int8x16_t q3 = vld1q_s8(q[3] + 16 * i);
        QUAD(0) QUAD(1) QUAD(2) QUAD(3)
    }
    STORE(0) STORE(1) STORE(2) STORE(3)
}

void tatvpr_dotprod_dense(const tatvpr_matmul *job) {
    const tatvpr_tile *tile = job->tile;
    const int32_t n_out = job->op->n_out;
    const int32_t k_rows = tatvpr_neon_rows(job->op->k_in);
    const int32_t sixteens = (k_rows + 15) / 16; /* q is padded with zeros that far */
    const int32_t padded = sixteens * 16;
    for (int32_t first = 0; first < n_out; first += 64) {
        unpack(job->weight + (ptrdiff_t)(first / 64) * k_rows * 16, k_rows, job->panel);
        for (int32_t part = first; part < first + 64 && part < n_out; part += 16) {
            const int8_t *w = (const int8_t *)job->panel + (ptrdiff_t)(part - first) * padded;
            for (int32_t t = 0; t < tile->tokens; t += 4) {
                const int8_t *q[4];
                for (int32_t i = 0; i < 4; i++) { /* a short last round repeats its last token */
                    q[i] = tile->q +
                           (ptrdiff_t)tatvpr_min_i32(t + i, tile->tokens - 1) * tile->q_stride;
                }
                int32_t acc[64];
                four_tokens(q, w, sixteens, acc);
                for (int32_t i = 0; i < 4 && t + i < tile->tokens; i++) {
                    tatvpr_neon_write(job, t + i, part, tatvpr_min_i32(16, n_out - part),
                                      acc + 16 * i);
                }
            }
        }
    }
}

/* ---- sparse: four kept channels at a time; fields 1 and 2 are multiplied where they lie, with
 * factors 4 and 16 that are taken off at the end */

static void token_64(const uint8_t *rows, const uint16_t *index, const int8_t *value,
                     int32_t quads, int32_t *acc /* [64] */) {
    const uint8x16_t m0 = vdupq_n_u8(0x03);
    const uint8x16_t m1 = vdupq_n_u8(0x0C);
    const uint8x16_t m2 = vdupq_n_u8(0x30);
    int32x4_t a[4][4];
    for (int f = 0; f < 4; f++) {
        for (int i = 0; i < 4; i++) {
            a[f][i] = vdupq_n_s32(0);
        }
    }
    for (int32_t k = 0; k < quads; k++, index += 4, value += 4) {
        const uint8x16_t r0 = vld1q_u8(rows + (ptrdiff_t)index[0] * 16);
        const uint8x16_t r1 = vld1q_u8(rows + (ptrdiff_t)index[1] * 16);
        const uint8x16_t r2 = vld1q_u8(rows + (ptrdiff_t)index[2] * 16);
        const uint8x16_t r3 = vld1q_u8(rows + (ptrdiff_t)index[3] * 16);
        const uint16x8_t t0 = vreinterpretq_u16_u8(vzip1q_u8(r0, r1));
        const uint16x8_t t1 = vreinterpretq_u16_u8(vzip2q_u8(r0, r1));
        const uint16x8_t t2 = vreinterpretq_u16_u8(vzip1q_u8(r2, r3));
        const uint16x8_t t3 = vreinterpretq_u16_u8(vzip2q_u8(r2, r3));
        const uint8x16_t u[4] = {
            vreinterpretq_u8_u16(vzip1q_u16(t0, t2)), vreinterpretq_u8_u16(vzip2q_u16(t0, t2)),
            vreinterpretq_u8_u16(vzip1q_u16(t1, t3)), vreinterpretq_u8_u16(vzip2q_u16(t1, t3))};
        int32_t four;
        __builtin_memcpy(&four, value, sizeof(four));
        const int8x16_t q = vreinterpretq_s8_s32(vdupq_n_s32(four));
        for (int i = 0; i < 4; i++) {
            a[0][i] = vdotq_s32(a[0][i], vreinterpretq_s8_u8(vandq_u8(u[i], m0)), q);
            a[1][i] = vdotq_s32(a[1][i], vreinterpretq_s8_u8(vandq_u8(u[i], m1)), q);
            a[2][i] = vdotq_s32(a[2][i], vreinterpretq_s8_u8(vandq_u8(u[i], m2)), q);
            a[3][i] = vdotq_s32(a[3][i], vreinterpretq_s8_u8(vshrq_n_u8(u[i], 6)), q);
        }
    }
    for (int i = 0; i < 4; i++) {
        vst1q_s32(acc + 4 * i, a[0][i]);
        vst1q_s32(acc + 16 + 4 * i, vshrq_n_s32(a[1][i], 2));
        vst1q_s32(acc + 32 + 4 * i, vshrq_n_s32(a[2][i], 4));
        vst1q_s32(acc + 48 + 4 * i, a[3][i]);
    }
}

void tatvpr_dotprod_sparse(const tatvpr_matmul *job) {
    const tatvpr_tile *tile = job->tile;
    const int32_t n_out = job->op->n_out;
    const int32_t k_rows = tatvpr_neon_rows(job->op->k_in);
    for (int32_t first = 0; first < n_out; first += 64) {
        const uint8_t *rows = job->weight + (ptrdiff_t)(first / 64) * k_rows * 16;
        for (int32_t t = 0; t < tile->tokens; t++) {
            const ptrdiff_t at = (ptrdiff_t)t * tile->list_stride;
            int32_t acc[64];
            token_64(rows, tile->index + at, tile->value + at, (tile->count[t] + 3) / 4, acc);
            tatvpr_neon_write(job, t, first, tatvpr_min_i32(64, n_out - first), acc);
        }
    }
}

/* ---- aligned fours: weights unpacked as the dense matmul does it, in parts of the channels */

/* Adds entries of a token's list to 64 sums. `w` is where four number 0 is, or would be. */
static void add_fours(uintptr_t w, ptrdiff_t field_bytes, const uint16_t *index,
                      const int8_t *value, int32_t count, int32_t *acc /* [64] */) {
    int32x4_t a[4][4];
    for (int f = 0; f < 4; f++) {
        for (int i = 0; i < 4; i++) {
            a[f][i] = vld1q_s32(acc + 16 * f + 4 * i);
        }
    }
    for (int32_t k = 0; k < count; k++, value += 4) {
        const int8_t *at = (const int8_t *)(w + (uintptr_t)index[k] * 64);
        int32_t four;
        __builtin_memcpy(&four, value, sizeof(four));
        const int8x16_t q = vreinterpretq_s8_s32(vdupq_n_s32(four));
        for (int f = 0; f < 4; f++) {
            for (int i = 0; i < 4; i++) {
                a[f][i] = vdotq_s32(a[f][i], vld1q_s8(at + f * field_bytes + 16 * i), q);
            }
        }
    }
    for (int f = 0; f < 4; f++) {
        for (int i = 0; i < 4; i++) {
            vst1q_s32(acc + 16 * f + 4 * i, a[f][i]);
        }
    }
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
                for (int32_t i = 0; i < 64 && part == 0; i++) {
                    sums[t][i] = 0;
                }
                add_fours(w, panel_bytes(channels), tile->index + list + from,
                          tile->value + list + 4 * (ptrdiff_t)from, p.end[part][t] - from,
                          sums[t]);
                if (part == p.count - 1) {
                    tatvpr_neon_write(job, t, first, tatvpr_min_i32(64, n_out - first), sums[t]);
                }
            }
        }
    }
}

/* Estimated from the instruction counts of the loops (docs/performance.md), not measured. */
float tatvpr_dotprod_sparse_below(const tatvpr_ternary *op, int32_t group) {
    (void)op;
    return group % 4 == 0 ? 0.75f : 0.45f;
}

#if defined(__clang__)
#pragma clang attribute pop
#endif
