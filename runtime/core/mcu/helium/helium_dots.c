/* PatchEmbed and QuantAttention on Cortex-M55: int8 dot products, 16 lanes at a time. */
#include "../../common/core.h"
#include "../../common/floats.h"

#if defined(TATVPR_MCU_HELIUM)

#include "../mcu.h"
#include "helium_floats.h"

/* ---- PatchEmbed */

/* Patches of one row of the image to int8 p - 128, rows of whole vectors. */
static void gather_patches(const tatvpr_patch_job *job, int32_t row, int32_t depth, int8_t *to) {
    const tatvpr_patch_embed *op = job->op;
    const int32_t run = op->patch * 3;
    const ptrdiff_t line = (ptrdiff_t)op->image_size * 3;
    for (int32_t column = 0; column < op->image_size / op->patch; column++, to += depth) {
        const uint8_t *corner = job->pixels + row * op->patch * line + (ptrdiff_t)column * run;
        for (int32_t r = 0; r < op->patch; r++) {
            for (int32_t i = 0; i < run; i++) {
                to[r * run + i] = (int8_t)((int32_t)corner[r * line + i] - 128);
            }
        }
    }
}

void tatvpr_helium_patch_embed(const tatvpr_patch_job *job) {
    const tatvpr_patch_embed *op = job->op;
    const int32_t depth = op->patch * op->patch * 3;
    const int32_t side = op->image_size / op->patch;
    if (depth % 64 != 0 || op->dim % 2 != 0) {
        tatvpr_portable_patch_embed(job);
        return;
    }
    int8_t *patches = (int8_t *)job->scratch;
    int32_t sums[3 * TATVPR_HELIUM_CHUNK];
    for (int32_t row = job->first_row; row < job->first_row + job->rows; row++) {
        gather_patches(job, row, depth, patches);
        for (int32_t column = 0; column < side; column += 3) {
            const int32_t count = tatvpr_min_i32(3, side - column);
            for (int32_t d = 0; d < op->dim; d += TATVPR_HELIUM_CHUNK) {
                const int32_t rows = tatvpr_min_i32(TATVPR_HELIUM_CHUNK, op->dim - d);
                tatvpr_helium_pairs(job->weight + (ptrdiff_t)d * depth, depth, rows,
                                    patches + (ptrdiff_t)column * depth, count, sums);
                for (int32_t c = 0; c < count; c++) {
                    float *y = job->y + ((ptrdiff_t)row * side + column + c) * op->dim + d;
                    for (int32_t i = 0; i < rows; i++) {
                        y[i] = (float)sums[c * TATVPR_HELIUM_CHUNK + i] * job->scale[d + i] +
                               job->bias[d + i];
                    }
                }
            }
        }
    }
}

/* ---- QuantAttention */

#define QUERIES 3 /* at a time: what tatvpr_helium_pairs() takes */
#define CHUNK TATVPR_HELIUM_CHUNK

typedef struct head {
    int32_t tokens, padded_tokens; /* T and its multiple of 64 */
    int32_t width, padded_width;   /* H likewise */
    int8_t *keys;                  /* [T][padded_width] */
    int8_t *values;                /* [H][padded_tokens]: transposed */
    int8_t *queries;               /* [QUERIES][padded_width] */
    int8_t *weights;               /* [QUERIES][padded_tokens] */
    float *logits;                 /* [QUERIES][padded_tokens] */
    float logit_scale; /* s_k, or s_k / root where the root is a power of two: the same bits */
    float root;        /* sqrt(H), or 0: taken into logit_scale */
} head;

static head lay_out(const tatvpr_head_job *job) {
    head h;
    h.tokens = job->tokens;
    h.width = job->head_dim;
    h.padded_tokens = (h.tokens + 63) / 64 * 64;
    h.padded_width = (h.width + 63) / 64 * 64;
    int8_t *at = (int8_t *)job->scratch;
    h.keys = at;
    at += (ptrdiff_t)h.tokens * h.padded_width;
    h.values = at;
    at += (ptrdiff_t)h.width * h.padded_tokens;
    h.queries = at;
    at += QUERIES * h.padded_width;
    h.weights = at;
    at += QUERIES * h.padded_tokens;
    const int8x16_t zero = vdupq_n_s8(0);
    for (int8_t *p = (int8_t *)job->scratch; p < at; p += 16) { /* a multiple of 64 in all */
        vstrbq_s8(p, zero);
    }
    h.logits = (float *)(void *)at;
    return h;
}

static void scale_logits(head *h, float s_k) {
    const float root = tatvpr_sqrt((float)h->width);
    const int exact = tatvpr_is_power_of_two(root);
    h->logit_scale = exact ? s_k / root : s_k;
    h->root = exact ? 0.0f : root;
}

static float abs_max(const float *x, int32_t rows, int32_t stride, int32_t columns) {
    float largest = TATVPR_MIN_ABS_MAX;
    for (int32_t t = 0; t < rows; t++) {
        largest = tatvpr_abs_max4(x + (ptrdiff_t)t * stride, columns, largest);
    }
    return largest;
}

/* to[i * step] = x[i] * inverse, rounded */
static void quantise_column(const float *x, int32_t count, float inverse, int8_t *to,
                            int32_t step) {
    const uint32x4_t offsets = vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)step);
    int32_t i = 0;
    for (; i + 4 <= count; i += 4) {
        const int32x4_t q = vcvtnq_s32_f32(vmulq_n_f32(vldrwq_f32(x + i), inverse));
        vstrbq_scatter_offset_s32(to + (ptrdiff_t)i * step, offsets, q);
    }
    for (; i < count; i++) {
        to[(ptrdiff_t)i * step] = tatvpr_quantise_one(x[i], inverse);
    }
}

/* Logits of `count` queries against every key; vectors past the end write into the padding. */
static void score_keys(const head *h, const float *s_q, int32_t count) {
    int32_t sums[QUERIES * CHUNK];
    for (int32_t first = 0; first < h->tokens; first += CHUNK) {
        const int32_t rows = tatvpr_min_i32(CHUNK, h->tokens - first);
        tatvpr_helium_pairs(h->keys + (ptrdiff_t)first * h->padded_width, h->padded_width, rows,
                            h->queries, count, sums);
        for (int32_t p = 0; p < count; p++) {
            float *logits = h->logits + (ptrdiff_t)p * h->padded_tokens + first;
            for (int32_t j = 0; j < rows; j += 4) {
                const float32x4_t l = vcvtq_f32_s32(vldrwq_s32(sums + p * CHUNK + j));
                const float32x4_t scaled = vmulq_n_f32(vmulq_n_f32(l, s_q[p]), h->logit_scale);
                vstrwq_f32(logits + j,
                           h->root == 0.0f ? scaled : tatvpr_divide4_by(scaled, h->root));
            }
        }
    }
}

/* Weights E of one query, 0 to 127 and 0 in the padding; answers their sum. */
static int32_t weigh(const head *h, const float *logits, int8_t *weights) {
    float highest = logits[0];
    int32_t j = 0;
    for (; j + 4 <= h->tokens; j += 4) {
        highest = vmaxnmvq_f32(highest, vldrwq_f32(logits + j));
    }
    for (; j < h->tokens; j++) {
        highest = logits[j] > highest ? logits[j] : highest;
    }
    for (j = 0; j < h->tokens; j += 4) {
        const float32x4_t e = tatvpr_exp4(vsubq_n_f32(vldrwq_f32(logits + j), highest));
        vstrbq_s32(weights + j, vcvtnq_s32_f32(vmulq_n_f32(e, TATVPR_QUANT_MAX)));
    }
    for (j = h->tokens; j % 4 != 0; j++) {
        weights[j] = 0;
    }
    int32_t total = 0;
    for (j = 0; j < h->padded_tokens; j += 16) {
        total = vaddvaq_s8(total, vldrbq_s8(weights + j));
    }
    return tatvpr_max_i32(total, 1);
}

/* y rows of `count` queries: ((sum of E v) * s_v) * share */
static void mix_values(const head *h, float s_v, const float *shares, int32_t count, float *y,
                       int32_t y_stride) {
    int32_t sums[QUERIES * CHUNK];
    for (int32_t first = 0; first < h->width; first += CHUNK) {
        const int32_t rows = tatvpr_min_i32(CHUNK, h->width - first);
        tatvpr_helium_pairs(h->values + (ptrdiff_t)first * h->padded_tokens, h->padded_tokens,
                            rows, h->weights, count, sums);
        for (int32_t p = 0; p < count; p++) {
            const int32_t *mixed = sums + p * CHUNK;
            float *to = y + (ptrdiff_t)p * y_stride + first;
            int32_t d = 0;
            for (; d + 4 <= rows; d += 4) {
                const float32x4_t v = vmulq_n_f32(vcvtq_f32_s32(vldrwq_s32(mixed + d)), s_v);
                vstrwq_f32(to + d, vmulq_n_f32(v, shares[p]));
            }
            for (; d < rows; d++) {
                to[d] = ((float)mixed[d] * s_v) * shares[p];
            }
        }
    }
}

void tatvpr_helium_attention(const tatvpr_head_job *job) {
    const int32_t stride = 3 * job->dim;
    const float *queries = job->qkv + (ptrdiff_t)job->head * job->head_dim;
    const float *keys = queries + job->dim;
    const float *values = keys + job->dim;
    head h = lay_out(job);
    const float s_k = abs_max(keys, h.tokens, stride, h.width) / TATVPR_QUANT_MAX;
    scale_logits(&h, s_k);
    const float s_v = abs_max(values, h.tokens, stride, h.width) / TATVPR_QUANT_MAX;
    const float inverse_k = 1.0f / s_k;
    const float inverse_v = 1.0f / s_v;
    for (int32_t t = 0; t < h.tokens; t++) {
        tatvpr_quantise4(keys + (ptrdiff_t)t * stride, h.width, inverse_k,
                         h.keys + (ptrdiff_t)t * h.padded_width);
        quantise_column(values + (ptrdiff_t)t * stride, h.width, inverse_v, h.values + t,
                        h.padded_tokens);
    }
    for (int32_t i = 0; i < h.tokens; i += QUERIES) {
        const int32_t count = tatvpr_min_i32(QUERIES, h.tokens - i);
        float s_q[QUERIES], shares[QUERIES];
        for (int32_t p = 0; p < count; p++) {
            const float *x = queries + (ptrdiff_t)(i + p) * stride;
            s_q[p] = abs_max(x, 1, stride, h.width) / TATVPR_QUANT_MAX;
            tatvpr_quantise4(x, h.width, 1.0f / s_q[p],
                             h.queries + (ptrdiff_t)p * h.padded_width);
        }
        score_keys(&h, s_q, count);
        for (int32_t p = 0; p < count; p++) {
            shares[p] = 1.0f / (float)weigh(&h, h.logits + (ptrdiff_t)p * h.padded_tokens,
                                            h.weights + (ptrdiff_t)p * h.padded_tokens);
        }
        mix_values(&h, s_v, shares, count,
                   job->y + (ptrdiff_t)i * job->dim + (ptrdiff_t)job->head * h.width, job->dim);
        if (i == 0 && job->a != NULL) {
            for (int32_t j = 0; j < h.tokens; j++) {
                job->a[j] = (float)h.weights[j] * shares[0];
            }
        }
    }
}

#endif
