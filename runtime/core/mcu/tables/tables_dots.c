/* Integer dot products on cores without vectors or packed arithmetic: PatchEmbed and QuantAttention.
 *
 * Both reduce to four rows of int8 against four others, sixteen sums in registers: eight loads serve
 * sixteen multiply-accumulates. Four rows lie interleaved, [elements][4], so that one pointer walks
 * through all of them.
 */
#include "../../common/core.h"

#if defined(TATVPR_MCU_TABLES)

#include "../mcu.h"
#include "../quantise.h"

#define ROWS 4

/* sums[i][j] = row i of a . row j of b, of `count` elements. */
static void dots(const int8_t *a, const int8_t *b, int32_t count, int32_t sums[ROWS][ROWS]) {
    int32_t s00 = 0, s01 = 0, s02 = 0, s03 = 0, s10 = 0, s11 = 0, s12 = 0, s13 = 0;
    int32_t s20 = 0, s21 = 0, s22 = 0, s23 = 0, s30 = 0, s31 = 0, s32 = 0, s33 = 0;
    const int8_t *end = a + ROWS * (ptrdiff_t)count;
    for (; a != end; a += ROWS, b += ROWS) { /* not unrolled: that takes a register too many */
        const int32_t b0 = b[0], b1 = b[1], b2 = b[2], b3 = b[3];
        int32_t v = a[0];
        s00 += v * b0;
        s01 += v * b1;
        s02 += v * b2;
        s03 += v * b3;
        v = a[1];
        s10 += v * b0;
        s11 += v * b1;
        s12 += v * b2;
        s13 += v * b3;
        v = a[2];
        s20 += v * b0;
        s21 += v * b1;
        s22 += v * b2;
        s23 += v * b3;
        v = a[3];
        s30 += v * b0;
        s31 += v * b1;
        s32 += v * b2;
        s33 += v * b3;
    }
    const int32_t all[ROWS][ROWS] = {
        {s00, s01, s02, s03}, {s10, s11, s12, s13}, {s20, s21, s22, s23}, {s30, s31, s32, s33}};
    for (int i = 0; i < ROWS; i++) {
        for (int j = 0; j < ROWS; j++) {
            sums[i][j] = all[i][j];
        }
    }
}

static int32_t round_rows(int32_t rows) { return (rows + ROWS - 1) / ROWS * ROWS; }

/* ---- PatchEmbed */

/* Patches of one row of the image as int8 p - 128: [side / 4 rounded up][depth][4]. */
static void interleave_patches(const tatvpr_patch_job *job, int32_t row, int32_t depth,
                               int8_t *to) {
    const tatvpr_patch_embed *op = job->op;
    const int32_t run = op->patch * 3;
    const ptrdiff_t line = (ptrdiff_t)op->image_size * 3;
    for (int32_t column = 0; column < op->image_size / op->patch; column++) {
        const uint8_t *p = job->pixels + row * op->patch * line + (ptrdiff_t)column * run;
        int8_t *at = to + (ptrdiff_t)(column / ROWS) * ROWS * depth + column % ROWS;
        for (int32_t r = 0; r < op->patch; r++, p += line) {
#pragma GCC unroll 4
            for (int32_t c = 0; c < run; c++, at += ROWS) {
                *at = (int8_t)(p[c] - 128);
            }
        }
    }
}

/* Rows d .. d + 3 of the weights, the last one again for those past the end: [depth][4]. */
static void interleave_weights(const tatvpr_patch_job *job, int32_t d, int32_t depth, int8_t *to) {
    const int8_t *w[ROWS];
    for (int32_t j = 0; j < ROWS; j++) {
        w[j] = job->weight + (ptrdiff_t)tatvpr_min_i32(d + j, job->op->dim - 1) * depth;
    }
#pragma GCC unroll 2
    for (int32_t i = 0; i < depth; i++, to += ROWS) {
        to[0] = w[0][i];
        to[1] = w[1][i];
        to[2] = w[2][i];
        to[3] = w[3][i];
    }
}

void tatvpr_tables_patch_embed(const tatvpr_patch_job *job) {
    const tatvpr_patch_embed *op = job->op;
    const int32_t side = op->image_size / op->patch;
    const int32_t depth = op->patch * op->patch * 3;
    if (side < 2) { /* the scratch is too small for four patches and four rows of weights */
        tatvpr_portable_patch_embed(job);
        return;
    }
    int8_t *patches = (int8_t *)job->scratch;
    int8_t *weights = patches + (ptrdiff_t)round_rows(side) * depth;
    for (int32_t row = job->first_row; row < job->first_row + job->rows; row++) {
        interleave_patches(job, row, depth, patches);
        float *y = job->y + (ptrdiff_t)row * side * op->dim;
        for (int32_t d = 0; d < op->dim; d += ROWS) {
            interleave_weights(job, d, depth, weights);
            for (int32_t column = 0; column < side; column += ROWS) {
                int32_t sums[ROWS][ROWS];
                dots(patches + (ptrdiff_t)column * depth, weights, depth, sums);
                for (int32_t i = 0; i < ROWS && column + i < side; i++) {
                    for (int32_t j = 0; j < ROWS && d + j < op->dim; j++) {
                        y[(ptrdiff_t)(column + i) * op->dim + d + j] =
                            (float)sums[i][j] * job->scale[d + j] + job->bias[d + j];
                    }
                }
            }
        }
    }
}

/* ---- QuantAttention */

/* to[i * step] = x[i] * inverse, rounded */
static void quantise_to(const float *x, int32_t count, float inverse, int8_t *to, int32_t step) {
#pragma GCC unroll 4
    for (int32_t i = 0; i < count; i++, to += step) {
        *to = tatvpr_round_to_int(x[i] * inverse);
    }
}

typedef struct head {
    int32_t tokens;
    int32_t width;   /* H */
    int8_t *keys;    /* [T / 4 rounded up][H][4] */
    int8_t *values;  /* [H / 4 rounded up][T][4] */
    int8_t *queries; /* [H][4] */
    int8_t *weights; /* [T][4] */
    float *logits;   /* [4][T rounded up to 4] */
    float s_k;
    float root;
} head;

static head lay_out(const tatvpr_head_job *job) {
    head h;
    h.tokens = job->tokens;
    h.width = job->head_dim;
    const ptrdiff_t tokens = round_rows(h.tokens);
    h.logits = (float *)(void *)job->scratch;
    h.keys = (int8_t *)(h.logits + ROWS * tokens);
    h.values = h.keys + tokens * h.width;
    h.queries = h.values + (ptrdiff_t)round_rows(h.width) * h.tokens;
    h.weights = h.queries + (ptrdiff_t)ROWS * h.width;
    h.root = tatvpr_sqrt((float)h.width);
    return h;
}

/* Logits of four queries of scales s_q against every key: ((dot * s_q) * s_k) / sqrt(H). */
static void score_keys(const head *h, const float *s_q) {
    const int32_t tokens = round_rows(h->tokens);
    const int exact = tatvpr_is_power_of_two(h->root); /* then s_k takes the root in: the same bits */
    const float s_k = exact ? h->s_k / h->root : h->s_k;
    for (int32_t j = 0; j < h->tokens; j += ROWS) {
        int32_t sums[ROWS][ROWS];
        dots(h->queries, h->keys + (ptrdiff_t)j * h->width, h->width, sums);
        for (int32_t p = 0; p < ROWS; p++) {
            float *l = h->logits + (ptrdiff_t)p * tokens + j;
            for (int32_t i = 0; i < ROWS; i++) {
                const float v = ((float)sums[p][i] * s_q[p]) * s_k;
                l[i] = exact ? v : v / h->root;
            }
        }
    }
}

/* Weights E of one query, 0 to 127, every ROWS bytes; answers their sum. */
static int32_t weigh(const float *logits, int32_t tokens, int8_t *weights) {
    float highest = logits[0];
    for (int32_t j = 1; j < tokens; j++) {
        highest = logits[j] > highest ? logits[j] : highest;
    }
    int32_t total = 0;
    for (int32_t j = 0; j < tokens; j++, weights += ROWS) {
        const int32_t e = tatvpr_round_to_int(TATVPR_QUANT_MAX * tatvpr_exp(logits[j] - highest));
        *weights = (int8_t)(e & 127); /* changes only what is not finite */
        total += *weights;
    }
    return tatvpr_max_i32(total, 1);
}

/* Keys and values as integers, where `dots` wants them. */
static float pack(head *h, const float *keys, const float *values, int32_t stride) {
    h->s_k = tatvpr_abs_max(keys, h->tokens, stride, h->width) / TATVPR_QUANT_MAX;
    const float s_v = tatvpr_abs_max(values, h->tokens, stride, h->width) / TATVPR_QUANT_MAX;
    const float inverse_k = 1.0f / h->s_k;
    const float inverse_v = 1.0f / s_v;
    for (int32_t t = 0; t < h->tokens; t++) {
        quantise_to(keys + (ptrdiff_t)t * stride, h->width, inverse_k,
                    h->keys + (ptrdiff_t)(t / ROWS) * ROWS * h->width + t % ROWS, ROWS);
        const float *x = values + (ptrdiff_t)t * stride;
        for (int32_t d = 0; d < h->width; d += ROWS) {
            quantise_to(x + d, tatvpr_min_i32(ROWS, h->width - d), inverse_v,
                        h->values + ((ptrdiff_t)(d / ROWS) * h->tokens + t) * ROWS, 1);
        }
    }
    return s_v;
}

void tatvpr_tables_attention(const tatvpr_head_job *job) {
    const int32_t stride = 3 * job->dim;
    const float *queries = job->qkv + (ptrdiff_t)job->head * job->head_dim;
    head h = lay_out(job);
    const float s_v = pack(&h, queries + job->dim, queries + 2 * job->dim, stride);
    for (int32_t first = 0; first < h.tokens; first += ROWS) {
        const int32_t here = tatvpr_min_i32(ROWS, h.tokens - first);
        float s_q[ROWS];
        float share[ROWS];
        for (int32_t p = 0; p < ROWS; p++) { /* past the end: the last query again */
            const float *x =
                queries + (ptrdiff_t)tatvpr_min_i32(first + p, h.tokens - 1) * stride;
            s_q[p] = tatvpr_abs_max(x, 1, stride, h.width) / TATVPR_QUANT_MAX;
            quantise_to(x, h.width, 1.0f / s_q[p], h.queries + p, ROWS);
        }
        score_keys(&h, s_q);
        for (int32_t p = 0; p < ROWS; p++) {
            const float *logits = h.logits + (ptrdiff_t)p * round_rows(h.tokens);
            share[p] = p < here ? 1.0f / (float)weigh(logits, h.tokens, h.weights + p) : share[0];
        }
        float *y = job->y + (ptrdiff_t)first * job->dim + (ptrdiff_t)job->head * h.width;
        for (int32_t d = 0; d < h.width; d += ROWS) {
            int32_t mixed[ROWS][ROWS];
            dots(h.weights, h.values + (ptrdiff_t)d * h.tokens, h.tokens, mixed);
            for (int32_t p = 0; p < here; p++) {
                for (int32_t c = 0; c < ROWS && d + c < h.width; c++) {
                    y[(ptrdiff_t)p * job->dim + d + c] = ((float)mixed[p][c] * s_v) * share[p];
                }
            }
        }
        for (int32_t j = 0; first == 0 && job->a != NULL && j < h.tokens; j++) {
            job->a[j] = (float)h.weights[ROWS * j] * share[0];
        }
    }
}

#endif
