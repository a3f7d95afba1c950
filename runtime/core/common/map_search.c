/* The best places of a map for one descriptor.
 *
 * Rows are compared in blocks, elements in chunks, so that a query of any dimension needs about
 * 3 kB of stack; up to CHUNK elements (every descriptor in practice) it is quantised once. */
#include "core.h"
#include "floats.h"
#include "map.h"

enum { BLOCK = 256, CHUNK = 1024 };

typedef struct query {
    const float *descriptor;
    int32_t dim;
    uint32_t kind;
    float inverse; /* int8: 1 / scale */
    float norm;   /* int8: 1 / sqrt(sum q^2) */
    int32_t held; /* first element of the chunk that `part` holds; -1: none */
    int8_t part[CHUNK];
} query;

static int8_t quantised(const query *q, int32_t i) {
    return tatvpr_quantise_one(q->descriptor[i], q->inverse);
}

static tatvpr_status begin_query(query *q, const tatvpr_map *map, const float *descriptor) {
    q->descriptor = descriptor;
    q->dim = (int32_t)map->dim;
    q->kind = map->kind;
    q->held = -1;
    float largest = TATVPR_MIN_ABS_MAX;
    for (int32_t i = 0; i < q->dim; i++) {
        const float a = descriptor[i] < 0.0f ? -descriptor[i] : descriptor[i];
        if (!(a - a == 0.0f)) {
            return TATVPR_ERR_NOT_FINITE;
        }
        largest = a > largest ? a : largest;
    }
    q->inverse = 1.0f / (largest / TATVPR_QUANT_MAX);
    if (q->kind == TATVPR_MAP_BINARY) {
        return TATVPR_OK;
    }
    int32_t squares = 0;
    for (int32_t i = 0; i < q->dim; i++) {
        const int32_t v = quantised(q, i);
        squares += v * v;
    }
    if (squares == 0) {
        return TATVPR_ERR_ARGUMENT; /* a descriptor of zeros looks like nothing */
    }
    q->norm = 1.0f / tatvpr_sqrt((float)squares);
    return TATVPR_OK;
}

/* Elements first .. first + count of the query, as the map stores them. */
static void hold(query *q, int32_t first, int32_t count) {
    if (q->held == first) {
        return;
    }
    q->held = first;
    if (q->kind == TATVPR_MAP_INT8) {
        for (int32_t i = 0; i < count; i++) {
            q->part[i] = quantised(q, first + i);
        }
        return;
    }
    for (int32_t i = 0; i < count; i += 8) {
        uint32_t bits = 0;
        for (int32_t j = 0; j < 8; j++) {
            bits |= (q->descriptor[first + i + j] > 0.0f ? 1u : 0u) << j;
        }
        q->part[i / 8] = (int8_t)bits;
    }
}

/* Dot products or distances of `count` rows, beginning at row `first`. */
static void compare(query *q, const tatvpr_kernels *kernels, const uint8_t *rows, uint64_t first,
                    int32_t count, int32_t *result /* [BLOCK] */) {
    const int32_t per_byte = q->kind == TATVPR_MAP_INT8 ? 1 : 8;
    const int32_t row_bytes = q->dim / per_byte;
    for (int32_t at = 0; at < q->dim; at += CHUNK) {
        const int32_t elements = tatvpr_min_i32(CHUNK, q->dim - at);
        const uint8_t *from = rows + (size_t)first * (size_t)row_bytes + at / per_byte;
        int32_t more[BLOCK];
        int32_t *piece = at == 0 ? result : more;
        hold(q, at, elements);
        if (q->kind == TATVPR_MAP_INT8) {
            kernels->dot_i8(q->part, (const int8_t *)from, elements, row_bytes, count, piece);
        } else {
            kernels->hamming((const uint8_t *)q->part, from, elements / 8, row_bytes, count,
                             piece);
        }
        for (int32_t i = 0; at > 0 && i < count; i++) {
            result[i] += more[i];
        }
    }
}

/* The least of `count` distances; plain enough for a compiler to vectorise. */
static int32_t nearest(const int32_t *distance, int32_t count) {
    int32_t least = INT32_MAX;
    for (int32_t i = 0; i < count; i++) {
        least = distance[i] < least ? distance[i] : least;
    }
    return least;
}

/* Matches may be larger than this library knows: they are `stride` bytes apart. */
static tatvpr_match *match_at(tatvpr_match *matches, size_t stride, int32_t i) {
    return (tatvpr_match *)(void *)((uint8_t *)(void *)matches + stride * (size_t)i);
}

/* Puts (place, score) in its rank among the `*held` matches so far; equal scores stay behind. */
static void insert(tatvpr_match *matches, size_t stride, int32_t count, int32_t *held,
                   uint64_t place, float score) {
    int32_t at = *held < count ? (*held)++ : count - 1;
    for (; at > 0 && score > match_at(matches, stride, at - 1)->score; at--) {
        match_at(matches, stride, at)->place = match_at(matches, stride, at - 1)->place;
        match_at(matches, stride, at)->score = match_at(matches, stride, at - 1)->score;
    }
    match_at(matches, stride, at)->place = place;
    match_at(matches, stride, at)->score = score;
}

tatvpr_status tatvpr_map_search(const tatvpr_map *map, const tatvpr_model *model,
                                const float *descriptor, float k, float tokens,
                                tatvpr_match *matches, int32_t count, int32_t *found) {
    if (map == NULL || map->base == NULL || descriptor == NULL || matches == NULL ||
        found == NULL) {
        return TATVPR_ERR_NULL;
    }
    if (count < 1) {
        return TATVPR_ERR_ARGUMENT;
    }
    const size_t stride = matches->size;
    if (map->size < sizeof(tatvpr_map) || stride < sizeof(tatvpr_match)) {
        return TATVPR_ERR_ABI;
    }
    if (!(k > 0.0f && k <= 1.0f)) {
        return TATVPR_ERR_K;
    }
    if (!(tokens > 0.0f && tokens <= 1.0f)) {
        return TATVPR_ERR_TOKENS;
    }
    if (map->places == 0) {
        return TATVPR_ERR_MAP_EMPTY;
    }
    query q;
    const tatvpr_status status = begin_query(&q, map, descriptor);
    if (status != TATVPR_OK) {
        return status;
    }
    const tatvpr_kernels *kernels =
        model != NULL && model->kernels != NULL ? model->kernels : &tatvpr_kernels_portable;
    const tatvpr_map_band band = tatvpr_map_nearest(map, k, tokens);
    int32_t held = 0;
    float worst = 0.0f;
    int32_t farthest = 0; /* of the matches held, in a binary map */
    int32_t result[BLOCK] = {0};
    for (uint64_t first = 0; first < map->places; first += BLOCK) {
        const uint64_t left = map->places - first;
        const int32_t rows = left < BLOCK ? (int32_t)left : BLOCK;
        compare(&q, kernels, band.rows, first, rows, result);
        if (q.kind == TATVPR_MAP_BINARY && held == count && nearest(result, rows) >= farthest) {
            continue; /* scores order as distances do: most blocks hold nothing nearer */
        }
        for (int32_t i = 0; i < rows; i++) {
            float score;
            if (q.kind == TATVPR_MAP_BINARY && held == count && result[i] >= farthest) {
                continue;
            }
            if (q.kind == TATVPR_MAP_INT8) {
                score = ((float)result[i] * q.norm) * band.norms[first + (uint64_t)i];
            } else {
                score = 1.0f - (2.0f * (float)result[i]) / (float)q.dim;
            }
            if (held < count || score > worst) {
                insert(matches, stride, count, &held, first + (uint64_t)i, score);
                worst = match_at(matches, stride, held - 1)->score;
                farthest = (int32_t)((1.0f - worst) * (float)q.dim * 0.5f + 0.5f);
            }
        }
    }
    for (int32_t i = 0; i < held; i++) {
        tatvpr_match *match = match_at(matches, stride, i);
        match->size = (uint32_t)stride;
        match->band = band.index;
        match->accepted = band.threshold - band.threshold == 0.0f
                              ? (match->score >= band.threshold ? 1 : 0)
                              : -1;
        tatvpr_map_pose(map, match->place, match->pose);
    }
    *found = held;
    return TATVPR_OK;
}
