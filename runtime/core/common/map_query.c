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

/* What a bit of element `i` is taken around. */
static float cut_at(const tatvpr_map_query *q, int32_t i) {
    return q->mean == NULL ? 0.0f : q->mean[i];
}

/* Half of how far element `i` lies above that: the halves of two floats differ by a float. */
static float above_mean(const tatvpr_map_query *q, int32_t i) {
    return 0.5f * q->descriptor[i] - 0.5f * cut_at(q, i);
}

static float inverse_of(float largest) {
    const float bound = largest > TATVPR_MIN_ABS_MAX ? largest : TATVPR_MIN_ABS_MAX;
    return 1.0f / (bound / TATVPR_QUANT_MAX);
}

/* What each bit of a weighed map counts, added up. */
static void begin_weights(tatvpr_map_query *q) {
    float largest = 0.0f;
    for (int32_t i = 0; i < q->dim; i++) {
        const float off = above_mean(q, i);
        const float size = off < 0.0f ? -off : off;
        largest = size > largest ? size : largest;
    }
    q->inverse = inverse_of(largest);
    q->weights = 0;
    q->set_weights = 0;
    for (int32_t i = 0; i < q->dim; i++) {
        const int32_t value = quantised(q, above_mean(q, i));
        q->weights += value < 0 ? -value : value;
        q->set_weights += value < 0 ? 0 : value;
    }
}

/* Elements first .. first + count of the query as they are compared: int8, bits, or, WEIGHED, how far
 * they lie above the mean. */
static void hold(tatvpr_map_query *q, uint32_t as, int32_t first, int32_t count) {
    if (q->held == first && q->held_as == as) {
        return;
    }
    q->held = first;
    q->held_as = as;
    if (as == TATVPR_MAP_INT8 && count == q->dim) { /* a row like any other */
        (void)q->kernels->quantise(q->descriptor, count, q->part);
        return;
    }
    for (int32_t i = 0; as == TATVPR_MAP_INT8 && i < count; i++) {
        q->part[i] = quantised(q, q->descriptor[first + i]);
    }
    for (int32_t i = 0; as == TATVPR_MAP_WEIGHED && i < count; i++) {
        q->part[i] = quantised(q, above_mean(q, first + i));
    }
    for (int32_t i = 0; as == TATVPR_MAP_BINARY && i < count; i += 8) {
        uint32_t bits = 0;
        for (int32_t j = 0; j < 8; j++) {
            const int32_t at = first + i + j;
            bits |= (q->descriptor[at] > cut_at(q, at) ? 1u : 0u) << j;
        }
        q->part[i / 8] = (int8_t)bits;
    }
}

tatvpr_status tatvpr_map_query_begin(tatvpr_map_query *q, uint32_t kind, uint32_t dim,
                                     const float *mean, const tatvpr_kernels *kernels,
                                     const float *descriptor) {
    q->descriptor = descriptor;
    q->mean = mean;
    q->kernels = kernels;
    q->ahead = 0;
    q->dim = (int32_t)dim;
    q->kind = kind;
    q->held = -1;
    q->held_as = 0;
    /* Without the sign, bits order as the sizes that they stand for. */
    int32_t bits = 0;
    for (int32_t i = 0; i < q->dim; i++) {
        const int32_t size = (int32_t)(tatvpr_float_bits(descriptor[i]) & 0x7FFFFFFFu);
        bits = size > bits ? size : bits;
    }
    if (bits >= 0x7F800000) {
        return TATVPR_ERR_NOT_FINITE;
    }
    const float largest = tatvpr_bits_float((uint32_t)bits);
    q->inverse = inverse_of(largest);
    if (quantised(q, largest) == 0) {
        return TATVPR_ERR_ARGUMENT;
    }
    if (kind == TATVPR_MAP_WEIGHED) {
        begin_weights(q);
    }
    if (kind != TATVPR_MAP_INT8) {
        return TATVPR_OK;
    }
    int32_t squares = 0;
    for (int32_t at = 0; at < q->dim; at += CHUNK) {
        const int32_t count = tatvpr_min_i32(CHUNK, q->dim - at);
        hold(q, kind, at, count);
        for (int32_t i = 0; i < count; i++) {
            squares += (int32_t)q->part[i] * q->part[i];
        }
    }
    q->norm = 1.0f / tatvpr_sqrt((float)squares);
    return TATVPR_OK;
}

/* What `count` rows from row `first` on give, the query held `as` hold() says: dot products, distances,
 * or the sum of what lies above the mean where a row has a bit set. */
static void compare(tatvpr_map_query *q, uint32_t as, const uint8_t *rows, uint64_t first,
                    int32_t count, int32_t *result /* [BLOCK] */) {
    const int32_t per_byte = as == TATVPR_MAP_INT8 ? 1 : 8;
    const int32_t row_bytes = q->dim / per_byte;
    for (int32_t at = 0; at < q->dim; at += CHUNK) {
        const int32_t elements = tatvpr_min_i32(CHUNK, q->dim - at);
        const uint8_t *from = rows + (size_t)first * (size_t)row_bytes + at / per_byte;
        int32_t more[BLOCK];
        int32_t *piece = at == 0 ? result : more;
        hold(q, as, at, elements);
        if (as == TATVPR_MAP_INT8) {
            q->kernels->dot_i8(q->part, (const int8_t *)from, elements, row_bytes, count, piece);
        } else if (as == TATVPR_MAP_WEIGHED) {
            q->kernels->dot_bits(q->part, from, elements / 8, row_bytes, count, piece);
#if defined(TATVPR_WIDE)
        } else if (q->ahead) {
            q->kernels->hamming_ahead((const uint8_t *)q->part, from, elements / 8, row_bytes,
                                      count, piece);
#endif
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
    const uint32_t as = q->kind == TATVPR_MAP_INT8 ? TATVPR_MAP_INT8 : TATVPR_MAP_BINARY;
    compare(q, as, rows->data, first, count, &block[0].sum);
    if (as == TATVPR_MAP_INT8) {
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

int tatvpr_map_query_weigh(tatvpr_map_query *q, const tatvpr_rows *rows, uint64_t first,
                           int32_t count, tatvpr_likeness *block) {
    if (q->weights == 0) {
        return 0;
    }
    compare(q, TATVPR_MAP_WEIGHED, rows->data, first, count, &block[0].sum);
    for (int32_t i = 0; i < count; i++) {
        /* Weights above the mean where the row has no bit, and those below where it has one. */
        const int32_t differing = q->set_weights - block[i].sum;
        block[i].score = 1.0f - (2.0f * (float)differing) / (float)q->weights;
    }
    return 1;
}
