/* One descriptor against the rows of a map: quantised once, compared in blocks.
 *
 * Rows are compared in blocks and elements in chunks, so that a query of any dimension needs about
 * 3 kB of stack. */
#include "core.h"
#include "floats.h"
#include "map.h"

enum { BLOCK = TATVPR_MAP_BLOCK, CHUNK = TATVPR_MAP_CHUNK };

static int8_t quantised(const tatvpr_map_query *q, float x) {
    return tatvpr_quantise_one(x, q->inverse);
}

tatvpr_status tatvpr_map_query_begin(tatvpr_map_query *q, uint32_t kind, uint32_t dim,
                                     const float *mean, const tatvpr_kernels *kernels,
                                     const float *descriptor) {
    q->descriptor = descriptor;
    q->mean = mean;
    q->kernels = kernels;
    q->dim = (int32_t)dim;
    q->kind = kind;
    q->held = -1;
    float largest = 0.0f;
    for (int32_t i = 0; i < q->dim; i++) {
        const float a = descriptor[i] < 0.0f ? -descriptor[i] : descriptor[i];
        if (!(a - a == 0.0f)) {
            return TATVPR_ERR_NOT_FINITE;
        }
        largest = a > largest ? a : largest;
    }
    const float bound = largest > TATVPR_MIN_ABS_MAX ? largest : TATVPR_MIN_ABS_MAX;
    q->inverse = 1.0f / (bound / TATVPR_QUANT_MAX);
    if (quantised(q, largest) == 0) {
        return TATVPR_ERR_ARGUMENT;
    }
    if (kind != TATVPR_MAP_INT8) {
        return TATVPR_OK;
    }
    int32_t squares = 0;
    for (int32_t i = 0; i < q->dim; i++) {
        const int32_t v = quantised(q, descriptor[i]);
        squares += v * v;
    }
    q->norm = 1.0f / tatvpr_sqrt((float)squares);
    return TATVPR_OK;
}

/* What a bit of element `i` is taken around. */
static float cut_at(const tatvpr_map_query *q, int32_t i) {
    return q->mean == NULL ? 0.0f : q->mean[i];
}

/* Half of how far element `i` lies above that: the halves of two floats differ by a float. */
static float above_mean(const tatvpr_map_query *q, int32_t i) {
    return 0.5f * q->descriptor[i] - 0.5f * cut_at(q, i);
}

/* Elements first .. first + count of the query, as the map stores them. */
static void hold(tatvpr_map_query *q, int32_t first, int32_t count) {
    if (q->held == first) {
        return;
    }
    q->held = first;
    if (q->kind == TATVPR_MAP_INT8) {
        for (int32_t i = 0; i < count; i++) {
            q->part[i] = quantised(q, q->descriptor[first + i]);
        }
        return;
    }
    for (int32_t i = 0; i < count; i += 8) {
        uint32_t bits = 0;
        for (int32_t j = 0; j < 8; j++) {
            const int32_t at = first + i + j;
            bits |= (q->descriptor[at] > cut_at(q, at) ? 1u : 0u) << j;
        }
        q->part[i / 8] = (int8_t)bits;
    }
}

/* Dot products or distances of `count` rows, beginning at row `first`. */
static void compare(tatvpr_map_query *q, const uint8_t *rows, uint64_t first, int32_t count,
                    int32_t *result /* [BLOCK] */) {
    const int32_t per_byte = q->kind == TATVPR_MAP_INT8 ? 1 : 8;
    const int32_t row_bytes = q->dim / per_byte;
    for (int32_t at = 0; at < q->dim; at += CHUNK) {
        const int32_t elements = tatvpr_min_i32(CHUNK, q->dim - at);
        const uint8_t *from = rows + (size_t)first * (size_t)row_bytes + at / per_byte;
        int32_t more[BLOCK];
        int32_t *piece = at == 0 ? result : more;
        hold(q, at, elements);
        if (q->kind == TATVPR_MAP_INT8) {
            q->kernels->dot_i8(q->part, (const int8_t *)from, elements, row_bytes, count, piece);
        } else {
            q->kernels->hamming((const uint8_t *)q->part, from, elements / 8, row_bytes, count,
                                piece);
        }
        for (int32_t i = 0; at > 0 && i < count; i++) {
            result[i] += more[i];
        }
    }
}

/* The least of `count` distances; plain enough for a compiler to vectorise. */
static int32_t nearest(const tatvpr_likeness *block, int32_t count) {
    int32_t least = INT32_MAX;
    for (int32_t i = 0; i < count; i++) {
        least = block[i].sum < least ? block[i].sum : least;
    }
    return least;
}

int tatvpr_map_query_block(tatvpr_map_query *q, const tatvpr_rows *rows, uint64_t first,
                           int32_t count, float worst, tatvpr_likeness *block) {
    compare(q, rows->data, first, count, &block[0].sum);
    if (q->kind == TATVPR_MAP_INT8) {
        const float *norms = rows->norms + first;
        for (int32_t i = 0; i < count; i++) {
            const float score = ((float)block[i].sum * q->norm) * norms[i];
            const float below = score > 1.0f ? 1.0f : score;
            block[i].score = below < -1.0f ? -1.0f : below;
        }
        return 1;
    }
    /* Scores order as distances do: most blocks hold nothing nearer, and need no division. */
    const float dim = (float)q->dim;
    const int32_t least = nearest(block, count);
    if (1.0f - (2.0f * (float)least) / dim < worst) {
        return 0;
    }
    for (int32_t i = 0; i < count; i++) {
        block[i].score = 1.0f - (2.0f * (float)block[i].sum) / dim;
    }
    return 1;
}

void tatvpr_map_query_weigh(const tatvpr_map_query *q, const uint8_t *const *rows, int32_t count,
                            float *scores) {
    int32_t differing[TATVPR_MAP_WEIGHED_BEST] = {0};
    int32_t total = 0;
    float largest = 0.0f;
    for (int32_t i = 0; i < q->dim; i++) {
        const float off = above_mean(q, i);
        const float size = off < 0.0f ? -off : off;
        largest = size > largest ? size : largest;
    }
    const float bound = largest > TATVPR_MIN_ABS_MAX ? largest : TATVPR_MIN_ABS_MAX;
    const float inverse = 1.0f / (bound / TATVPR_QUANT_MAX);
    for (int32_t i = 0; i < q->dim; i++) {
        const int32_t value = tatvpr_quantise_one(above_mean(q, i), inverse);
        const int32_t weight = value < 0 ? -value : value;
        const uint32_t mine = q->descriptor[i] > cut_at(q, i) ? 1u : 0u;
        total += weight;
        for (int32_t r = 0; r < count; r++) {
            const uint32_t theirs = (uint32_t)rows[r][i / 8] >> (i % 8) & 1u;
            differing[r] += theirs == mine ? 0 : weight;
        }
    }
    for (int32_t r = 0; total > 0 && r < count; r++) {
        scores[r] = 1.0f - (2.0f * (float)differing[r]) / (float)total;
    }
}
