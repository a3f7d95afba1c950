/* Portable QuantAttention, one head at a time, and the dot products of map search. */
#include "core.h"
#include "floats.h"

static float abs_max(const float *x, int32_t rows, int32_t stride, int32_t columns) {
    float largest = TATVPR_MIN_ABS_MAX;
    for (int32_t t = 0; t < rows; t++) {
        const float *row = x + (ptrdiff_t)t * stride;
        for (int32_t i = 0; i < columns; i++) {
            const float a = row[i] < 0.0f ? -row[i] : row[i];
            largest = a > largest ? a : largest;
        }
    }
    return largest;
}

static void quantise_rows(const float *x, int32_t rows, int32_t stride, int32_t columns, float s,
                          int8_t *q /* [rows, columns] */) {
    const float inverse = 1.0f / s;
    for (int32_t t = 0; t < rows; t++) {
        for (int32_t i = 0; i < columns; i++) {
            q[(ptrdiff_t)t * columns + i] =
                tatvpr_quantise_one(x[(ptrdiff_t)t * stride + i], inverse);
        }
    }
}

static int32_t dot(const int8_t *a, const int8_t *b, int32_t n) {
    int32_t sum = 0;
    for (int32_t i = 0; i < n; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

/* One token's query against all keys: logits, then weights E in 0..127. Answers sum E. */
static int32_t weigh(const int8_t *q, const int8_t *keys, int32_t tokens, int32_t h, float s_q,
                     float s_k, float *logits, uint8_t *weights) {
    const float root = tatvpr_sqrt((float)h);
    float highest = 0.0f;
    for (int32_t j = 0; j < tokens; j++) {
        logits[j] = (((float)dot(q, keys + (ptrdiff_t)j * h, h) * s_q) * s_k) / root;
        highest = j == 0 || logits[j] > highest ? logits[j] : highest;
    }
    int32_t total = 0;
    for (int32_t j = 0; j < tokens; j++) {
        const float e = TATVPR_QUANT_MAX * tatvpr_exp(logits[j] - highest);
        weights[j] = (uint8_t)tatvpr_clip(tatvpr_rint(e), 0.0f, TATVPR_QUANT_MAX);
        total += weights[j];
    }
    return tatvpr_max_i32(total, 1); /* never 0 with finite input: the highest weighs 127 */
}

void tatvpr_portable_attention(const tatvpr_head_job *job) {
    const int32_t t = job->tokens;
    const int32_t h = job->head_dim;
    const int32_t stride = 3 * job->dim;
    const float *queries = job->qkv + (ptrdiff_t)job->head * h;
    const float *keys_f = queries + job->dim;
    const float *values_f = keys_f + job->dim;
    float *logits = (float *)(void *)job->scratch;                  /* [T] */
    int8_t *keys = (int8_t *)(logits + t);                          /* [T, H] */
    int8_t *values = keys + (ptrdiff_t)t * h;                       /* [T, H] */
    int8_t *query = values + (ptrdiff_t)t * h;                      /* [H] */
    uint8_t *weights = (uint8_t *)(query + h);                      /* [T] */

    const float s_k = abs_max(keys_f, t, stride, h) / TATVPR_QUANT_MAX;
    const float s_v = abs_max(values_f, t, stride, h) / TATVPR_QUANT_MAX;
    quantise_rows(keys_f, t, stride, h, s_k, keys);
    quantise_rows(values_f, t, stride, h, s_v, values);
    for (int32_t i = 0; i < t; i++) {
        const float *x = queries + (ptrdiff_t)i * stride;
        const float s_q = abs_max(x, 1, stride, h) / TATVPR_QUANT_MAX;
        quantise_rows(x, 1, stride, h, s_q, query);
        const float share = 1.0f / (float)weigh(query, keys, t, h, s_q, s_k, logits, weights);
        float *y = job->y + (ptrdiff_t)i * job->dim + (ptrdiff_t)job->head * h;
        for (int32_t d = 0; d < h; d++) {
            int32_t mixed = 0;
            for (int32_t j = 0; j < t; j++) {
                mixed += weights[j] * values[(ptrdiff_t)j * h + d];
            }
            y[d] = ((float)mixed * s_v) * share;
        }
        if (i == 0 && job->a != NULL) {
            for (int32_t j = 0; j < t; j++) {
                job->a[j] = (float)weights[j] * share;
            }
        }
    }
}

void tatvpr_portable_dot_i8(const int8_t *query, const int8_t *rows, int32_t dim, int32_t stride,
                            int32_t count, int32_t *result) {
    for (int32_t i = 0; i < count; i++) {
        result[i] = dot(query, rows + (ptrdiff_t)i * stride, dim);
    }
}

void tatvpr_portable_hamming(const uint8_t *query, const uint8_t *rows, int32_t bytes,
                             int32_t stride, int32_t count, int32_t *distance) {
    static const uint8_t ones[16] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};
    for (int32_t i = 0; i < count; i++) {
        int32_t sum = 0;
        for (int32_t j = 0; j < bytes; j++) {
            const uint32_t x = (uint32_t)(query[j] ^ rows[(ptrdiff_t)i * stride + j]);
            sum += ones[x & 15u] + ones[x >> 4];
        }
        distance[i] = sum;
    }
}

void tatvpr_portable_dot_bits(const int8_t *query, const uint8_t *rows, int32_t bytes,
                              int32_t stride, int32_t count, int32_t *dot) {
    for (int32_t n = 0; n < count; n++) {
        const uint8_t *row = rows + (ptrdiff_t)n * stride;
        int32_t sum = 0;
        for (int32_t i = 0; i < bytes; i++) {
            for (int32_t bit = 0; bit < 8; bit++) {
                sum += (row[i] >> bit & 1) != 0 ? query[8 * i + bit] : 0;
            }
        }
        dot[n] = sum;
    }
}
