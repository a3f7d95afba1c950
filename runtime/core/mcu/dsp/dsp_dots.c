/* Integer dot products on Cortex-M4 and M7: PatchEmbed and QuantAttention.
 *
 * Both reduce to two rows of int16 against two others, four sums at once: a load serves four
 * multiply-accumulates.
 */
#include "../../common/core.h"

#if defined(TATVPR_MCU_DSP)

#include "../mcu.h"
#include "../quantise.h"

/* of TATVPR_ASSEMBLER */
#pragma GCC diagnostic ignored "-Wunused-parameter"

#define STEP 8 /* elements: rows are padded with zeros to a multiple */

/* sums = a0.b0, a0.b1, a1.b0, a1.b1 of rows that end where a0 is `end`.
 * r0 r1 a, r2 r3 b, r4-r7 sums, r8-r11 elements of a, r12 lr elements of b */
TATVPR_ASSEMBLER static void dot_2x2(const int16_t *a0, const int16_t *a1,
                                     const int16_t *b0, const int16_t *b1,
                                     const int16_t *end, int32_t *sums) {
    __asm volatile(
        "push {r4-r11, lr}\n" /* [sp, #36] = end, [sp, #40] = sums */
        "mov r4, #0\n mov r5, #0\n mov r6, #0\n mov r7, #0\n"
        ".macro FOUR\n"
        " ldrd r8, r9, [r0], #8\n ldrd r10, r11, [r1], #8\n ldrd r12, lr, [r2], #8\n"
        " smlad r4, r8, r12, r4\n smlad r6, r10, r12, r6\n"
        " smlad r4, r9, lr, r4\n smlad r6, r11, lr, r6\n"
        " ldrd r12, lr, [r3], #8\n"
        " smlad r5, r8, r12, r5\n smlad r7, r10, r12, r7\n"
        " smlad r5, r9, lr, r5\n smlad r7, r11, lr, r7\n"
        ".endm\n"
        "1:\n"
        "FOUR\n FOUR\n"
        "ldr r12, [sp, #36]\n"
        "cmp r0, r12\n"
        "bne 1b\n"
        "ldr r12, [sp, #40]\n"
        "stm r12, {r4-r7}\n"
        "pop {r4-r11, pc}\n"
        ".purgem FOUR\n");
}

/* ---- PatchEmbed */

/* `count` bytes, a multiple of four, widened in the order 0 2 1 3 of each four. */
static int16_t *widen_bytes(const uint8_t *from, int32_t count, uint32_t flip, int16_t *to) {
    uint32_t *words = (uint32_t *)(void *)to;
#pragma GCC unroll 4
    for (int32_t i = 0; i < count; i += 4) {
        const uint32_t four = *(const uint32_t *)(const void *)(from + i) ^ flip;
        *words++ = tatvpr_widen_even(four);
        *words++ = tatvpr_widen_odd(four);
    }
    return (int16_t *)(void *)words;
}

/* Patches of one row of the image to int16 p - 128. */
static void widen_patches(const tatvpr_patch_job *job, int32_t row, int32_t depth, int16_t *to) {
    const tatvpr_patch_embed *op = job->op;
    const int32_t run = op->patch * 3;
    const ptrdiff_t line = (ptrdiff_t)op->image_size * 3;
    for (int32_t column = 0; column < op->image_size / op->patch; column++, to += depth) {
        const uint8_t *corner = job->pixels + row * op->patch * line + (ptrdiff_t)column * run;
        int16_t *at = to;
        for (int32_t r = 0; r < op->patch; r++) { /* p ^ 128 as int8 is p - 128 */
            at = widen_bytes(corner + r * line, run, 0x80808080u, at);
        }
    }
}

void tatvpr_dsp_patch_embed(const tatvpr_patch_job *job) {
    const tatvpr_patch_embed *op = job->op;
    const int32_t depth = op->patch * op->patch * 3;
    const int32_t side = op->image_size / op->patch;
    if (op->patch % 4 != 0 || op->dim % 2 != 0 || ((uintptr_t)job->pixels & 3u) != 0) {
        tatvpr_portable_patch_embed(job); /* runs that are no whole words */
        return;
    }
    int16_t *patches = (int16_t *)(void *)job->scratch;  /* [side][depth] */
    int16_t *weights = patches + (ptrdiff_t)side * depth; /* [2][depth] */
    for (int32_t row = job->first_row; row < job->first_row + job->rows; row++) {
        widen_patches(job, row, depth, patches);
        float *y = job->y + (ptrdiff_t)row * side * op->dim;
        for (int32_t d = 0; d < op->dim; d += 2) {
            (void)widen_bytes((const uint8_t *)job->weight + (ptrdiff_t)d * depth, 2 * depth, 0,
                              weights);
            for (int32_t column = 0; column < side; column += 2) {
                const int32_t next = tatvpr_min_i32(column + 1, side - 1);
                const int16_t *a0 = patches + (ptrdiff_t)column * depth;
                int32_t sums[4];
                dot_2x2(a0, patches + (ptrdiff_t)next * depth, weights, weights + depth,
                        a0 + depth, sums);
                float *first = y + (ptrdiff_t)column * op->dim + d;
                float *second = y + (ptrdiff_t)next * op->dim + d;
                first[0] = (float)sums[0] * job->scale[d] + job->bias[d];
                first[1] = (float)sums[1] * job->scale[d + 1] + job->bias[d + 1];
                second[0] = (float)sums[2] * job->scale[d] + job->bias[d];
                second[1] = (float)sums[3] * job->scale[d + 1] + job->bias[d + 1];
            }
        }
    }
}

/* ---- QuantAttention */

/* to[i * step] = x[i] * inverse, rounded */
static void quantise_to(const float *x, int32_t count, float inverse, int16_t *to, int32_t step) {
#pragma GCC unroll 8
    for (int32_t i = 0; i < count; i++, to += step) {
        *to = (int16_t)tatvpr_round_to_int(x[i] * inverse);
    }
}

typedef struct head {
    int32_t tokens, padded_tokens; /* T and its multiple of STEP */
    int32_t width, padded_width;   /* H likewise */
    int16_t *keys;                 /* [T rounded up to 2][padded_width] */
    int16_t *values;               /* [H rounded up to 2][padded_tokens]: transposed */
    int16_t *queries;              /* [2][padded_width] */
    int16_t *weights;              /* [2][padded_tokens] */
    float *logits;                 /* [2][T rounded up to 2] */
    float logit_scale; /* s_k, or s_k / root where the root is a power of two: the same bits */
    float root;        /* sqrt(H), or 0: taken into logit_scale */
} head;

static head lay_out(const tatvpr_head_job *job) {
    head h;
    h.tokens = job->tokens;
    h.width = job->head_dim;
    h.padded_tokens = (h.tokens + STEP - 1) / STEP * STEP;
    h.padded_width = (h.width + STEP - 1) / STEP * STEP;
    const int32_t even_tokens = (h.tokens + 1) & ~1;
    const int32_t even_width = (h.width + 1) & ~1;
    int16_t *at = (int16_t *)(void *)job->scratch;
    h.keys = at;
    at += (ptrdiff_t)even_tokens * h.padded_width;
    h.values = at;
    at += (ptrdiff_t)even_width * h.padded_tokens;
    h.queries = at;
    at += 2 * h.padded_width;
    h.weights = at;
    at += 2 * h.padded_tokens;
    tatvpr_zero(job->scratch, (size_t)((uint8_t *)at - job->scratch));
    h.logits = (float *)(void *)at;
    return h;
}

static void scale_logits(head *h, float s_k) {
    const float root = tatvpr_sqrt((float)h->width);
    const int exact = tatvpr_is_power_of_two(root);
    h->logit_scale = exact ? s_k / root : s_k;
    h->root = exact ? 0.0f : root;
}

/* ((dot * s_q) * s_k) / sqrt(H) */
static inline float to_logit(const head *h, int32_t dot, float s_q) {
    const float v = ((float)dot * s_q) * h->logit_scale;
    return h->root == 0.0f ? v : v / h->root;
}

/* Logits of two queries with scales s_q against every key. */
static void score_keys(const head *h, const float *s_q) {
    const int32_t even = (h->tokens + 1) & ~1;
    const int16_t *key = h->keys;
    for (int32_t j = 0; j < h->tokens; j += 2, key += 2 * h->padded_width) {
        int32_t dots[4];
        dot_2x2(h->queries, h->queries + h->padded_width, key, key + h->padded_width,
                h->queries + h->padded_width, dots);
        float *l = h->logits + j;
        l[0] = to_logit(h, dots[0], s_q[0]);
        l[1] = to_logit(h, dots[1], s_q[0]);
        l[even] = to_logit(h, dots[2], s_q[1]);
        l[even + 1] = to_logit(h, dots[3], s_q[1]);
    }
}

/* Weights E of one query, 0 to 127; answers their sum. */
static int32_t weigh(const float *logits, int32_t tokens, int16_t *weights) {
    float highest = logits[0];
    for (int32_t j = 1; j < tokens; j++) {
        highest = tatvpr_at_least(logits[j], highest);
    }
    int32_t total = 0;
    for (int32_t j = 0; j < tokens; j++) { /* 127 e is within 0..127 by itself */
        const int32_t e = tatvpr_round_to_int(TATVPR_QUANT_MAX * tatvpr_exp(logits[j] - highest));
        weights[j] = (int16_t)e;
        total += e;
    }
    return tatvpr_max_i32(total, 1);
}

void tatvpr_dsp_attention(const tatvpr_head_job *job) {
    const int32_t stride = 3 * job->dim;
    const float *queries = job->qkv + (ptrdiff_t)job->head * job->head_dim;
    const float *keys = queries + job->dim;
    const float *values = keys + job->dim;
    head h = lay_out(job);
    const float s_k = tatvpr_abs_max(keys, h.tokens, stride, h.width) / TATVPR_QUANT_MAX;
    scale_logits(&h, s_k);
    const float s_v = tatvpr_abs_max(values, h.tokens, stride, h.width) / TATVPR_QUANT_MAX;
    const float inverse_k = 1.0f / s_k;
    const float inverse_v = 1.0f / s_v;
    for (int32_t t = 0; t < h.tokens; t++) {
        quantise_to(keys + (ptrdiff_t)t * stride, h.width, inverse_k,
                    h.keys + (ptrdiff_t)t * h.padded_width, 1);
        quantise_to(values + (ptrdiff_t)t * stride, h.width, inverse_v, h.values + t,
                    h.padded_tokens);
    }
    for (int32_t i = 0; i < h.tokens; i += 2) {
        const int32_t pair = tatvpr_min_i32(2, h.tokens - i);
        float s_q[2] = {1.0f, 1.0f};
        float share[2] = {1.0f, 1.0f};
        for (int32_t p = 0; p < pair; p++) {
            const float *x = queries + (ptrdiff_t)(i + p) * stride;
            s_q[p] = tatvpr_abs_max(x, 1, stride, h.width) / TATVPR_QUANT_MAX;
            quantise_to(x, h.width, 1.0f / s_q[p], h.queries + p * h.padded_width, 1);
        }
        score_keys(&h, s_q);
        for (int32_t p = 0; p < pair; p++) {
            share[p] = 1.0f / (float)weigh(h.logits + p * ((h.tokens + 1) & ~1), h.tokens,
                                           h.weights + p * h.padded_tokens);
        }
        float *y = job->y + (ptrdiff_t)i * job->dim + (ptrdiff_t)job->head * h.width;
        for (int32_t d = 0; d < h.width; d += 2) {
            const int16_t *value = h.values + (ptrdiff_t)d * h.padded_tokens;
            int32_t mixed[4];
            dot_2x2(h.weights, h.weights + h.padded_tokens, value, value + h.padded_tokens,
                    h.weights + h.padded_tokens, mixed);
            for (int32_t p = 0; p < pair; p++) {
                for (int32_t c = 0; c < 2 && d + c < h.width; c++) {
                    y[(ptrdiff_t)p * job->dim + d + c] = ((float)mixed[2 * p + c] * s_v) * share[p];
                }
            }
        }
        if (i == 0 && job->a != NULL) {
            for (int32_t j = 0; j < h.tokens; j++) {
                job->a[j] = (float)h.weights[j] * share[0];
            }
        }
    }
}

#endif
