/* What the NEON kernels share: the layout of prepared weights, and float functions by fours.
 *
 * Prepared weights: blocks of 64 outputs; inside a block, rows by input channel: 16 bytes with four
 * 2-bit codes w + 1 each, so that the kernels, which read whole rows, touch only the kept channels.
 * Output n of a block is field n / 16 (bits 2f, 2f + 1) of byte n % 16. The top field is w itself,
 * as a signed number of two bits: a whole byte, read as signed, is then 64 w + the fields below, so
 * that the sparse kernel multiplies it as it lies. Rows are padded to a multiple of 4, missing
 * outputs are weight zero.
 *
 * Files are compiled for plain ARMv8-A (Cortex-A57, A72), neon_dotprod.c and neon_dot_dotprod.c
 * for CPUs with sdot (Cortex-A76, A78AE), neon_i8mm.c for those with smmla (Neoverse V1 and later).
 */
#ifndef TATVPR_NEON_H
#define TATVPR_NEON_H

#include <arm_neon.h>

#include "../common/core.h"
#include "../common/floats.h"

#if defined(TATVPR_DOTPROD)
#define TATVPR_NEON(name) tatvpr_dotprod_##name
#else
#define TATVPR_NEON(name) tatvpr_neon_##name
#endif

/* Bytes of 16 outputs' weights, unpacked for the dense products. */
static inline ptrdiff_t tatvpr_neon_panel_bytes(int32_t k_rows) {
    return ((ptrdiff_t)k_rows + 15) / 16 * 256;
}

static inline int32_t tatvpr_neon_rows(int32_t k_in) { return (k_in + 3) / 4 * 4; }

TATVPR_KERNELS_OF(neon);
TATVPR_KERNELS_OF(dotprod);

/* What the variants of this folder begin with. */
#define TATVPR_NEON_TABLE                                       \
    TATVPR_PORTABLE_TABLE,                                      \
    .usable = tatvpr_neon_usable,                               \
    .in_place = 0,                                              \
    .prepared_bytes = tatvpr_neon_prepared_bytes,               \
    .prepare = tatvpr_neon_prepare,                             \
    .quantise = tatvpr_neon_quantise,                           \
    .select = tatvpr_neon_select,                               \
    .layer_norm = TATVPR_LAYER_NORM(tatvpr_neon_layer_norm),    \
    .gelu = tatvpr_neon_gelu,                                   \
    .dense = tatvpr_neon_dense,                                 \
    .sparse = tatvpr_neon_sparse,                               \
    .sparse_below = tatvpr_neon_sparse_below,                   \
    .patch_embed = tatvpr_neon_patch_embed,                     \
    .attention = tatvpr_neon_attention,                         \
    .squash_across = tatvpr_neon_squash_across,                 \
    .squash_add = tatvpr_neon_squash_add,                       \
    .squash_bytes = tatvpr_neon_squash_bytes,                   \
    .dot_i8 = tatvpr_neon_dot_i8,                               \
    .hamming = tatvpr_neon_hamming,                             \
    .dot_bits = tatvpr_neon_dot_bits
#define TATVPR_DOTPROD_TABLE                                    \
    TATVPR_NEON_TABLE,                                          \
    .usable = tatvpr_dotprod_usable,                            \
    .dense = tatvpr_dotprod_dense,                              \
    .sparse = tatvpr_dotprod_sparse,                            \
    .fours = tatvpr_dotprod_fours,                              \
    .sparse_below = tatvpr_dotprod_sparse_below,                \
    .patch_embed = tatvpr_dotprod_patch_embed,                  \
    .attention = tatvpr_dotprod_attention,                      \
    .dot_i8 = tatvpr_dotprod_dot_i8

/* Multiply, then add, each rounded: never vfma. */
static inline float32x4_t tatvpr_mul_add(float32x4_t a, float32x4_t b, float32x4_t c) {
    return vaddq_f32(vmulq_f32(a, b), c);
}

/* Partial sums 0-3, 4-7, 8-11, 12-15 to one sum, in the order of tatvpr_sum_tree. */
static inline float tatvpr_tree_f32(const float32x4_t p[4]) {
    const float32x4_t low = vaddq_f32(p[0], p[2]);
    const float32x4_t high = vaddq_f32(p[1], p[3]);
    const float32x4_t four = vaddq_f32(low, high);
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

/* tatvpr_exp, four at a time; arguments are not NaN and at most 88. */
static inline float32x4_t tatvpr_exp_f32(float32x4_t x) {
    static const float c[6] = TATVPR_EXP_POLY;
    const float32x4_t lowest = vdupq_n_f32(TATVPR_EXP_LOWEST);
    const float32x4_t clipped = vmaxq_f32(x, lowest);
    const float32x4_t n = vrndnq_f32(vmulq_n_f32(clipped, TATVPR_LOG2_E));
    float32x4_t r = vsubq_f32(clipped, vmulq_n_f32(n, TATVPR_LN2_HIGH));
    r = vsubq_f32(r, vmulq_n_f32(n, TATVPR_LN2_LOW));
    float32x4_t y = vdupq_n_f32(c[0]);
    for (int i = 1; i < 6; i++) {
        y = tatvpr_mul_add(y, r, vdupq_n_f32(c[i]));
    }
    y = tatvpr_mul_add(y, vmulq_f32(r, r), r);
    y = vaddq_f32(y, vdupq_n_f32(1.0f));
    const int32x4_t power = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23);
    y = vmulq_f32(y, vreinterpretq_f32_s32(power));
    const uint32x4_t inside = vcgeq_f32(x, lowest);
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(y), inside));
}

/* (acc * factor) * scale + bias of four outputs, from sums of q * w (in which no + 1 of a code is
 * left). `factor` is the token's scale, or that over a power of two where sums are that much larger:
 * the same bits. */
static inline float32x4_t tatvpr_neon_scaled(int32x4_t acc, float32x4_t factor,
                                             float32x4_t scale, float32x4_t bias) {
    const float32x4_t product = vmulq_f32(vcvtq_f32_s32(acc), factor);
    return vaddq_f32(vmulq_f32(product, scale), bias);
}

/* y = that [+ residual] of 16 outputs. `scales` is null where all have `scale`, `residual` for none.
 * Nothing that is the same for all is read here: after every store the compiler would have to read
 * it again. */
static inline void tatvpr_neon_write_16(const int32_t *acc, float32x4_t factor, float32x4_t scale,
                                        const float *scales, const float *bias,
                                        const float *residual, float *y) {
    for (int i = 0; i < 16; i += 4) {
        const float32x4_t by = scales != NULL ? vld1q_f32(scales + i) : scale;
        const float32x4_t v =
            tatvpr_neon_scaled(vld1q_s32(acc + i), factor, by, vld1q_f32(bias + i));
        vst1q_f32(y + i, residual != NULL ? vaddq_f32(vld1q_f32(residual + i), v) : v);
    }
}

/* That for `columns` outputs, with a factor for each 16. The kind of scale and residual is decided
 * once a row. */
static inline void tatvpr_neon_write(const tatvpr_matmul *job, int32_t t, int32_t first,
                                     int32_t columns, const int32_t *acc, const float *factors) {
    const ptrdiff_t at = (ptrdiff_t)t * job->y_stride + first;
    const int32_t per_row = job->op->scale_per_row != 0;
    const float *bias = job->bias + first;
    const float *scales = job->scale + (per_row ? first : 0);
    const float *residual = job->residual != NULL ? job->residual + at : NULL;
    float *y = job->y + at;
    const float32x4_t one = vdupq_n_f32(scales[0]);
    int32_t i = 0;
    if (!per_row && residual == NULL) {
        for (; i + 16 <= columns; i += 16) {
            tatvpr_neon_write_16(acc + i, vld1q_dup_f32(factors + i / 16), one, NULL, bias + i,
                                 NULL, y + i);
        }
    } else if (!per_row) {
        for (; i + 16 <= columns; i += 16) {
            tatvpr_neon_write_16(acc + i, vld1q_dup_f32(factors + i / 16), one, NULL, bias + i,
                                 residual + i, y + i);
        }
    } else {
        for (; i + 16 <= columns; i += 16) {
            tatvpr_neon_write_16(acc + i, vld1q_dup_f32(factors + i / 16), one, scales + i, bias + i,
                                 residual != NULL ? residual + i : NULL, y + i);
        }
    }
    for (; i < columns; i++) {
        const float scale = scales[per_row ? i : 0];
        const float v = ((float)acc[i] * factors[i / 16]) * scale + bias[i];
        y[i] = residual != NULL ? residual[i] + v : v;
    }
}

/* The token's scale for each of four times 16 outputs. */
typedef struct tatvpr_neon_factors {
    float of_field[4];
} tatvpr_neon_factors;

static inline tatvpr_neon_factors tatvpr_neon_one_factor(float s) {
    const tatvpr_neon_factors f = {{s, s, s, s}};
    return f;
}

/* Four times 16 sums: of four tokens, or of a token's four fields. They stay in registers as long as
 * nobody asks for their address. */
typedef struct tatvpr_neon_sums {
    int32x4_t of[4][4];
} tatvpr_neon_sums;

static inline void tatvpr_neon_store_sums(const tatvpr_neon_sums *sums, int32_t *acc /* [64] */) {
    for (int j = 0; j < 4; j++) {
        for (int i = 0; i < 4; i++) {
            vst1q_s32(acc + 16 * j + 4 * i, sums->of[j][i]);
        }
    }
}

/* 64 outputs with one scale in the whole matrix: a row of 16 for each factor, `bias_step` and `stride`
 * apart. */
static inline void tatvpr_neon_write_64(const tatvpr_neon_sums *sums, float32x4_t factors,
                                        const float *scale, const float *bias, int32_t bias_step,
                                        const float *residual, float *y, ptrdiff_t stride) {
    const float32x4_t one = vld1q_dup_f32(scale);
    float lanes[4];
    vst1q_f32(lanes, factors);
    for (int j = 0; j < 4; j++) {
        const float32x4_t factor = vdupq_n_f32(lanes[j]);
        float32x4_t v[4];
        for (int i = 0; i < 4; i++) {
            v[i] = tatvpr_neon_scaled(sums->of[j][i], factor, one, vld1q_f32(bias + 4 * i));
        }
        if (residual != NULL) {
            for (int i = 0; i < 4; i++) {
                v[i] = vaddq_f32(vld1q_f32(residual + 4 * i), v[i]);
            }
            residual += stride;
        }
        for (int i = 0; i < 4; i++) {
            vst1q_f32(y + 4 * i, v[i]);
        }
        y += stride;
        bias += bias_step;
    }
}

/* Sixteen outputs of four tokens, at once unless some of them are missing. */
static inline void tatvpr_neon_write_four(const tatvpr_matmul *job, int32_t t, int32_t first,
                                          const tatvpr_neon_sums *sums) {
    const tatvpr_tile *tile = job->tile;
    const int32_t columns = tatvpr_min_i32(16, job->op->n_out - first);
    const ptrdiff_t at = (ptrdiff_t)t * job->y_stride + first;
    if (columns == 16 && t + 4 <= tile->tokens && !job->op->scale_per_row) {
        const float *residual = job->residual != NULL ? job->residual + at : NULL;
        tatvpr_neon_write_64(sums, vld1q_f32(tile->s + t), job->scale, job->bias + first, 0,
                             residual, job->y + at, job->y_stride);
        return;
    }
    int32_t acc[64];
    tatvpr_neon_store_sums(sums, acc);
    for (int32_t i = 0; i < 4 && t + i < tile->tokens; i++) {
        tatvpr_neon_write(job, t + i, first, columns, acc + 16 * i, tile->s + t + i);
    }
}

/* 64 outputs to four panels of 16 (tatvpr_neon_panel_bytes). */
typedef void tatvpr_neon_unpack(const uint8_t *rows, int32_t k_rows, uint8_t *panel);
/* Four rows of q, of those sums, by sixteen outputs; `sixteens` steps of 16 channels. */
typedef tatvpr_neon_sums tatvpr_neon_four_tokens(const int8_t *const q[4], const int32_t sum[4],
                                                 const int8_t *w, int32_t sixteens);

/* The dense matmul by panels: weights are unpacked once for all tokens, which go by four. */
static inline __attribute__((always_inline)) void
tatvpr_neon_dense_by_four(const tatvpr_matmul *job, tatvpr_neon_unpack *unpack,
                          tatvpr_neon_four_tokens *four_tokens) {
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
                int32_t sum[4];
                for (int32_t i = 0; i < 4; i++) { /* a short last round repeats its last token */
                    const int32_t token = tatvpr_min_i32(t + i, tile->tokens - 1);
                    q[i] = tile->q + (ptrdiff_t)token * tile->q_stride;
                    sum[i] = tile->sum[token];
                }
                const tatvpr_neon_sums sums = four_tokens(q, sum, w, sixteens);
                tatvpr_neon_write_four(job, t, part, &sums);
            }
        }
    }
}

#endif
