/* AVX2: QuantAttention, one head. Keys as 16-bit pairs, eight keys a register; values as bytes,
 * four tokens by eight elements a register; four queries by sixteen keys or elements at a time. */
#include "avx2.h"

typedef struct head {
    int32_t tokens;     /* T */
    int32_t padded;     /* T rounded up to 16 */
    int32_t fours;      /* T rounded up to 4, / 4 */
    int32_t pairs;      /* H rounded up to 16, / 2 */
    int32_t eights;     /* H rounded up to 16, / 8 */
    int16_t *keys;      /* [pairs, padded, 2] */
    int8_t *values;     /* [fours, 8 * eights, 4] */
    int16_t *query;     /* [4, 2 * pairs] */
    float *logits;      /* [4, padded] */
    uint8_t *weights;   /* [4, padded] */
    float s_k;
    float s_v;
} head;

static float scale_of(const float *x, int32_t rows, int32_t stride, int32_t columns) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 most = _mm256_set1_ps(TATVPR_MIN_ABS_MAX);
    float largest = TATVPR_MIN_ABS_MAX;
    const int32_t whole = columns / 8 * 8;
    for (int32_t t = 0; t < rows; t++) {
        const float *row = x + (ptrdiff_t)t * stride;
        for (int32_t i = 0; i < whole; i += 8) {
            most = _mm256_max_ps(_mm256_andnot_ps(sign, _mm256_loadu_ps(row + i)), most);
        }
        for (int32_t i = whole; i < columns; i++) {
            const float a = row[i] < 0.0f ? -row[i] : row[i];
            largest = a > largest ? a : largest;
        }
    }
    const float vector = tatvpr_max_ps(most);
    return (vector > largest ? vector : largest) / TATVPR_QUANT_MAX;
}

/* One row as int16, clipped to +-127, zeros up to `padded` (a multiple of 8 >= columns). */
static void quantise_row(const float *x, int32_t columns, int32_t padded, float s, int16_t *q) {
    const __m256 scale = _mm256_set1_ps(s);
    const int32_t whole = columns / 8 * 8;
    const __m128i most = _mm_set1_epi16(127);
    const __m128i least = _mm_set1_epi16(-127);
    for (int32_t i = 0; i < whole; i += 8) {
        const __m256i v = _mm256_cvtps_epi32(
            _mm256_round_ps(_mm256_div_ps(_mm256_loadu_ps(x + i), scale),
                            _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        __m128i n = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
        n = _mm_max_epi16(_mm_min_epi16(n, most), least);
        _mm_storeu_si128((__m128i *)(void *)(q + i), n);
    }
    for (int32_t i = whole; i < padded; i++) {
        q[i] = i < columns ? (int16_t)tatvpr_clip(tatvpr_rint(x[i] / s), -TATVPR_QUANT_MAX,
                                                  TATVPR_QUANT_MAX)
                           : 0;
    }
}

static void take_scratch(head *h, const tatvpr_head_job *job) {
    const int32_t t = job->tokens;
    const int32_t width = (job->head_dim + 15) / 16 * 16;
    h->tokens = t;
    h->padded = (t + 15) / 16 * 16;
    h->fours = (t + 3) / 4;
    h->pairs = width / 2;
    h->eights = width / 8;
    uint8_t *at = job->scratch;
    h->keys = (int16_t *)(void *)at;
    at += (size_t)h->padded * (size_t)width * 2;
    h->values = (int8_t *)at;
    at += (size_t)h->fours * 4 * (size_t)width;
    at = job->scratch + tatvpr_round_up((size_t)(at - job->scratch), 64);
    h->query = (int16_t *)(void *)at;
    at += tatvpr_round_up((size_t)width * 2 * 4, 64);
    h->logits = (float *)(void *)at;
    at += (size_t)h->padded * 4 * sizeof(float);
    h->weights = at;
}

static void pack_keys_and_values(head *h, const tatvpr_head_job *job) {
    const int32_t stride = 3 * job->dim;
    const int32_t width = 8 * h->eights;
    const float *keys = job->qkv + job->dim + (ptrdiff_t)job->head * job->head_dim;
    const float *values = keys + job->dim;
    int16_t *row = h->query; /* room for one row, not yet in use */
    h->s_k = scale_of(keys, h->tokens, stride, job->head_dim);
    h->s_v = scale_of(values, h->tokens, stride, job->head_dim);
    for (int32_t j = 0; j < h->padded; j++) {
        for (int32_t i = 0; j >= h->tokens && i < width; i++) {
            row[i] = 0;
        }
        if (j < h->tokens) {
            quantise_row(keys + (ptrdiff_t)j * stride, job->head_dim, width, h->s_k, row);
        }
        for (int32_t p = 0; p < h->pairs; p++) {
            __builtin_memcpy(h->keys + ((ptrdiff_t)p * h->padded + j) * 2, row + 2 * p, 4);
        }
    }
    for (int32_t j = 0; j < 4 * h->fours; j++) {
        for (int32_t i = 0; j >= h->tokens && i < width; i++) {
            row[i] = 0;
        }
        if (j < h->tokens) {
            quantise_row(values + (ptrdiff_t)j * stride, job->head_dim, width, h->s_v, row);
        }
        int8_t *to = h->values + (ptrdiff_t)(j / 4) * width * 4 + j % 4;
        for (int32_t i = 0; i < width; i++) {
            to[4 * i] = (int8_t)row[i];
        }
    }
}

static inline __m256i two(const int16_t *p) {
    int32_t v;
    __builtin_memcpy(&v, p, sizeof(v));
    return _mm256_set1_epi32(v);
}

/* Eight dot products to logits: ((dot * s_q) * s_k) / sqrt(H). */
typedef struct scaling {
    __m256 s_k;
    __m256 root;
    __m256 inverse;
    int exact; /* the root is a power of two: multiplying by its inverse gives the same bits */
} scaling;

static inline __m256 to_logits(__m256i dots, float s_q, const scaling *by) {
    const __m256 v = _mm256_mul_ps(
        _mm256_mul_ps(_mm256_cvtepi32_ps(dots), _mm256_set1_ps(s_q)), by->s_k);
    return by->exact ? _mm256_mul_ps(v, by->inverse) : _mm256_div_ps(v, by->root);
}

/* One query by sixteen keys, two elements. Assembly here and in MIX, because compilers otherwise
 * delay the additions and spill. */
#define DOTS(i)                                                         \
    x = two(q + (i) * row);                                             \
    __asm__("vpmaddwd %[k0], %[x], %[y]\n\t"                            \
            "vpmaddwd %[k1], %[x], %[x]\n\t"                            \
            "vpaddd %[y], %[a], %[a]\n\t"                               \
            "vpaddd %[x], %[b], %[b]"                                   \
            : [a] "+x"(a##i), [b] "+x"(b##i), [x] "+x"(x), [y] "=&x"(y) \
            : [k0] "x"(k0), [k1] "x"(k1));

/* Logits of four queries. */
static void four_logits(const head *h, const float *s_q, float root) {
    scaling by;
    by.s_k = _mm256_set1_ps(h->s_k);
    by.root = _mm256_set1_ps(root);
    by.inverse = _mm256_set1_ps(1.0f / root);
    by.exact = (tatvpr_float_bits(root) & 0x007FFFFFu) == 0;
    const ptrdiff_t row = 2 * (ptrdiff_t)h->pairs;
    const ptrdiff_t padded = h->padded;
    for (int32_t j = 0; j < h->padded; j += 16) {
        __m256i a0 = _mm256_setzero_si256(), a1 = a0, a2 = a0, a3 = a0;
        __m256i b0 = a0, b1 = a0, b2 = a0, b3 = a0;
        const __m256i *keys = (const __m256i *)(const void *)(h->keys + (ptrdiff_t)j * 2);
        for (int32_t p = 0; p < h->pairs; p++, keys += padded / 8) {
            const __m256i k0 = _mm256_loadu_si256(keys);
            const __m256i k1 = _mm256_loadu_si256(keys + 1);
            const int16_t *q = h->query + 2 * p;
            __m256i x;
            __m256i y;
            DOTS(0) DOTS(1) DOTS(2) DOTS(3)
        }
        const __m256i a[4] = {a0, a1, a2, a3};
        const __m256i b[4] = {b0, b1, b2, b3};
        for (int i = 0; i < 4; i++) {
            float *to = h->logits + i * padded + j;
            _mm256_storeu_ps(to, to_logits(a[i], s_q[i], &by));
            _mm256_storeu_ps(to + 8, to_logits(b[i], s_q[i], &by));
        }
    }
}

/* Logits of one query to weights 0..127, zeros beyond T; answers their sum. */
static int32_t weigh(const head *h, float *logits, uint8_t *weights) {
    for (int32_t j = h->tokens; j < h->padded; j++) {
        logits[j] = logits[0]; /* neutral for the maximum */
    }
    __m256 most = _mm256_loadu_ps(logits);
    for (int32_t j = 8; j < h->padded; j += 8) {
        most = _mm256_max_ps(most, _mm256_loadu_ps(logits + j));
    }
    const __m256 highest = _mm256_set1_ps(tatvpr_max_ps(most));
    const __m256 full = _mm256_set1_ps(TATVPR_QUANT_MAX);
    __m256i total = _mm256_setzero_si256();
    const __m256i iota = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (int32_t j = 0; j < h->padded; j += 8) {
        const __m256 e =
            tatvpr_exp_ps(_mm256_sub_ps(_mm256_loadu_ps(logits + j), highest));
        __m256i w = _mm256_cvtps_epi32(
            _mm256_round_ps(_mm256_mul_ps(full, e), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        w = _mm256_and_si256(w, _mm256_cmpgt_epi32(_mm256_set1_epi32(h->tokens - j), iota));
        w = _mm256_and_si256(w, _mm256_set1_epi32(127)); /* changes only what is not finite */
        total = _mm256_add_epi32(total, w);
        const __m128i half =
            _mm_packs_epi32(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
        _mm_storel_epi64((__m128i *)(void *)(weights + j), _mm_packus_epi16(half, half));
    }
    return tatvpr_max_i32(tatvpr_sum_epi32(total), 1);
}

/* One query's weights by sixteen elements of four tokens. */
#define MIX(i)                                                          \
    x = two(e + (i) * (row / 2));                                       \
    __asm__("vpmaddubsw %[v0], %[x], %[y]\n\t"                          \
            "vpmaddubsw %[v1], %[x], %[x]\n\t"                          \
            "vpmaddwd %[ones], %[y], %[y]\n\t"                          \
            "vpmaddwd %[ones], %[x], %[x]\n\t"                          \
            "vpaddd %[y], %[a], %[a]\n\t"                               \
            "vpaddd %[x], %[b], %[b]"                                   \
            : [a] "+x"(a##i), [b] "+x"(b##i), [x] "+x"(x), [y] "=&x"(y) \
            : [v0] "x"(v0), [v1] "x"(v1), [ones] "x"(ones));

/* Sixteen elements of the values, mixed by four queries' weights: mixed[2 i] and [2 i + 1]. */
static void mix_sixteen(const head *h, int32_t part, __m256i *mixed) {
    const __m256i ones = _mm256_set1_epi16(1);
    const ptrdiff_t row = h->padded;
    const ptrdiff_t stride = h->eights;
    const __m256i *values = (const __m256i *)(const void *)h->values + part;
    __m256i a0 = _mm256_setzero_si256(), a1 = a0, a2 = a0, a3 = a0;
    __m256i b0 = a0, b1 = a0, b2 = a0, b3 = a0;
    for (int32_t f = 0; f < h->fours; f++, values += stride) {
        const __m256i v0 = _mm256_loadu_si256(values);
        const __m256i v1 = _mm256_loadu_si256(values + 1);
        const int16_t *e = (const int16_t *)(const void *)(h->weights + 4 * (ptrdiff_t)f);
        __m256i x;
        __m256i y;
        MIX(0) MIX(1) MIX(2) MIX(3)
    }
    const __m256i all[8] = {a0, b0, a1, b1, a2, b2, a3, b3};
    for (int i = 0; i < 8; i++) {
        mixed[i] = all[i];
    }
}

static void write_eight(const head *h, const tatvpr_head_job *job, int32_t token, int32_t part,
                        __m256i mixed, float total) {
    const __m256 v = _mm256_div_ps(
        _mm256_mul_ps(_mm256_cvtepi32_ps(mixed), _mm256_set1_ps(h->s_v)), _mm256_set1_ps(total));
    float *y = job->y + (ptrdiff_t)token * job->dim + (ptrdiff_t)job->head * job->head_dim +
               8 * part;
    const int32_t columns = job->head_dim - 8 * part;
    if (columns >= 8) {
        _mm256_storeu_ps(y, v);
        return;
    }
    float lanes[8];
    _mm256_storeu_ps(lanes, v);
    for (int32_t i = 0; i < columns; i++) {
        y[i] = lanes[i];
    }
}

void tatvpr_avx2_attention(const tatvpr_head_job *job) {
    head h;
    take_scratch(&h, job);
    pack_keys_and_values(&h, job);
    const float root = tatvpr_sqrt((float)job->head_dim);
    const int32_t width = 8 * h.eights;
    const float *queries = job->qkv + (ptrdiff_t)job->head * job->head_dim;
    for (int32_t first = 0; first < h.tokens; first += 4) {
        const int32_t count = tatvpr_min_i32(4, h.tokens - first);
        float s_q[4];
        float totals[4];
        for (int32_t i = 0; i < 4; i++) { /* a short last round repeats its last query */
            const int32_t token = first + tatvpr_min_i32(i, count - 1);
            const float *x = queries + (ptrdiff_t)token * 3 * job->dim;
            s_q[i] = scale_of(x, 1, 0, job->head_dim);
            quantise_row(x, job->head_dim, width, s_q[i], h.query + (ptrdiff_t)i * width);
        }
        four_logits(&h, s_q, root);
        for (int32_t i = 0; i < 4; i++) {
            const ptrdiff_t at = (ptrdiff_t)i * h.padded;
            totals[i] = (float)weigh(&h, h.logits + at, h.weights + at);
        }
        for (int32_t part = 0; part < h.eights; part += 2) {
            __m256i mixed[8];
            mix_sixteen(&h, part, mixed);
            for (int32_t i = 0; i < count; i++) {
                write_eight(&h, job, first + i, part, mixed[2 * i], totals[i]);
                write_eight(&h, job, first + i, part + 1, mixed[2 * i + 1], totals[i]);
            }
        }
        if (first == 0 && job->a != NULL) {
            for (int32_t j = 0; j < h.tokens; j++) {
                job->a[j] = (float)h.weights[j] / totals[0];
            }
        }
    }
}
