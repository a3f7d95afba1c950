/* PatchEmbed and QuantAttention on Cortex-M55: int8 dot products, 16 lanes at a time. */
#include "../common/core.h"
#include "../common/floats.h"

#if defined(__ARM_FEATURE_MVE)

#include "cortexm.h"
#include "helium_floats.h"

static inline int32_t dot(const int8_t *a, const int8_t *b, int32_t vectors) {
    int32_t sum = 0;
    for (; vectors > 0; vectors--, a += 16, b += 16) {
        sum = vmladavaq_s8(sum, vldrbq_s8(a), vldrbq_s8(b));
    }
    return sum;
}

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

typedef struct head {
    int32_t tokens, padded_tokens; /* T and its multiple of 16 */
    int32_t width, padded_width;   /* H likewise */
    int8_t *keys;                  /* [T][padded_width] */
    int8_t *values;                /* [H][padded_tokens]: transposed */
    int8_t *query;                 /* [padded_width] */
    int8_t *weights;               /* [padded_tokens] */
    int32_t *dots;                 /* [padded_tokens], then of the width */
    float *logits;                 /* [padded_tokens] */
} head;

static head lay_out(const tatvpr_head_job *job) {
    head h;
    h.tokens = job->tokens;
    h.width = job->head_dim;
    h.padded_tokens = (h.tokens + 15) / 16 * 16;
    h.padded_width = (h.width + 15) / 16 * 16;
    int8_t *at = (int8_t *)job->scratch;
    h.keys = at;
    at += (ptrdiff_t)h.tokens * h.padded_width;
    h.values = at;
    at += (ptrdiff_t)h.width * h.padded_tokens;
    h.query = at;
    at += h.padded_width;
    h.weights = at;
    at += h.padded_tokens;
    tatvpr_zero(job->scratch, (size_t)(at - (int8_t *)job->scratch));
    at = (int8_t *)job->scratch +
         tatvpr_round_up((size_t)(at - (int8_t *)job->scratch), sizeof(float));
    h.dots = (int32_t *)(void *)at;
    h.logits = (float *)(h.dots + tatvpr_max_i32(h.padded_tokens, h.padded_width));
    return h;
}

static float abs_max(const float *x, int32_t rows, int32_t stride, int32_t columns) {
    float largest = TATVPR_MIN_ABS_MAX;
    for (int32_t t = 0; t < rows; t++) {
        largest = tatvpr_abs_max4(x + (ptrdiff_t)t * stride, columns, largest);
    }
    return largest;
}

/* to[i * step] = x[i] / s, rounded */
static void quantise_column(const float *x, int32_t count, float s, int8_t *to, int32_t step) {
    const uint32x4_t offsets = vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)step);
    int32_t i = 0;
    for (; i + 4 <= count; i += 4) {
        const int32x4_t q = vcvtnq_s32_f32(tatvpr_divide4_by(vldrwq_f32(x + i), s));
        vstrbq_scatter_offset_s32(to + (ptrdiff_t)i * step, offsets, q);
    }
    for (; i < count; i++) {
        to[(ptrdiff_t)i * step] =
            (int8_t)tatvpr_clip(tatvpr_rint(x[i] / s), -TATVPR_QUANT_MAX, TATVPR_QUANT_MAX);
    }
}

/* Weights E of the query, 0 to 127; answers their sum. The logits' padding is below all. */
static int32_t weigh(const head *h, float s_q, float s_k, float root) {
    float highest = 0.0f;
    for (int32_t j = 0; j < h->tokens; j += 4) { /* vectors past the end lie in the padding */
        float32x4_t l = vmulq_n_f32(vcvtq_f32_s32(vldrwq_s32(h->dots + j)), s_q);
        vstrwq_f32(h->logits + j, tatvpr_divide4_by(vmulq_n_f32(l, s_k), root));
    }
    for (int32_t j = 0; j < h->tokens; j++) {
        highest = j == 0 || h->logits[j] > highest ? h->logits[j] : highest;
    }
    int32_t total = 0;
    for (int32_t j = 0; j < h->tokens; j += 4) {
        const float32x4_t e = tatvpr_exp4(vsubq_n_f32(vldrwq_f32(h->logits + j), highest));
        vstrbq_s32(h->weights + j, vcvtnq_s32_f32(vmulq_n_f32(e, TATVPR_QUANT_MAX)));
    }
    for (int32_t j = h->tokens; j < h->padded_tokens; j++) {
        h->weights[j] = 0;
    }
    for (int32_t j = 0; j < h->padded_tokens; j += 16) {
        total = vaddvaq_s8(total, vldrbq_s8(h->weights + j));
    }
    return tatvpr_max_i32(total, 1);
}

void tatvpr_helium_attention(const tatvpr_head_job *job) {
    const int32_t stride = 3 * job->dim;
    const float *queries = job->qkv + (ptrdiff_t)job->head * job->head_dim;
    const float *keys = queries + job->dim;
    const float *values = keys + job->dim;
    const head h = lay_out(job);
    const float root = tatvpr_sqrt((float)h.width);
    const float s_k = abs_max(keys, h.tokens, stride, h.width) / TATVPR_QUANT_MAX;
    const float s_v = abs_max(values, h.tokens, stride, h.width) / TATVPR_QUANT_MAX;
    for (int32_t t = 0; t < h.tokens; t++) {
        tatvpr_quantise4(keys + (ptrdiff_t)t * stride, h.width, s_k,
                         h.keys + (ptrdiff_t)t * h.padded_width);
        quantise_column(values + (ptrdiff_t)t * stride, h.width, s_v, h.values + t,
                        h.padded_tokens);
    }
    for (int32_t i = 0; i < h.tokens; i++) {
        const float *x = queries + (ptrdiff_t)i * stride;
        const float s_q = abs_max(x, 1, stride, h.width) / TATVPR_QUANT_MAX;
        tatvpr_quantise4(x, h.width, s_q, h.query);
        for (int32_t j = 0; j < h.tokens; j++) {
            h.dots[j] = dot(h.query, h.keys + (ptrdiff_t)j * h.padded_width, h.padded_width / 16);
        }
        const float total = (float)weigh(&h, s_q, s_k, root);
        for (int32_t d = 0; d < h.width; d++) {
            h.dots[d] =
                dot(h.weights, h.values + (ptrdiff_t)d * h.padded_tokens, h.padded_tokens / 16);
        }
        float *y = job->y + (ptrdiff_t)i * job->dim + (ptrdiff_t)job->head * h.width;
        int32_t d = 0;
        for (; d + 4 <= h.width; d += 4) {
            const float32x4_t mixed = vcvtq_f32_s32(vldrwq_s32(h.dots + d));
            vstrwq_f32(y + d, tatvpr_divide4_by(vmulq_n_f32(mixed, s_v), total));
        }
        for (; d < h.width; d++) {
            y[d] = ((float)h.dots[d] * s_v) / total;
        }
        if (i == 0 && job->a != NULL) {
            for (int32_t j = 0; j < h.tokens; j++) {
                job->a[j] = (float)h.weights[j] / total;
            }
        }
    }
}

#endif
