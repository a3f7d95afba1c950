/* AVX2: QuantAttention, one head. Keys as 16-bit pairs, eight keys a register; values as bytes,
 * four tokens by eight elements a register; four queries by sixteen keys or elements at a time. */
#include "avx2.h"
#include "avx2_dot.h"

#define LEAST_LOGIT (-3.0e38f)

typedef struct head {
    int32_t tokens;     /* T */
    int32_t padded;     /* T rounded up to 16 */
    int32_t fours;      /* T rounded up to 4, / 4 */
    int32_t width;      /* H rounded up to 32 */
    int16_t *keys;      /* [width / 2, padded, 2] */
    int8_t *values;     /* [fours, width, 4] */
    int16_t *query;     /* [4, width] */
    float *logits;      /* [4, padded] */
    uint8_t *weights;   /* [4, padded] */
    int8_t *bytes;      /* [4, width]: rows on their way */
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

static void take_scratch(head *h, const tatvpr_head_job *job) {
    const int32_t t = job->tokens;
    const int32_t width = (job->head_dim + 31) / 32 * 32;
    h->tokens = t;
    h->padded = (t + 15) / 16 * 16;
    h->fours = (t + 3) / 4;
    h->width = width;
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
    at += (size_t)h->padded * 4;
    h->bytes = (int8_t *)at;
}

/* One row of scale 1 / inverse as int16, zeros up to h->width. */
static void quantise_row(const head *h, const float *x, int32_t columns, float inverse,
                         int16_t *q) {
    tatvpr_quantise_with(x, columns, h->width, inverse, h->bytes);
    for (int32_t i = 0; i < h->width; i += 16) {
        const __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(h->bytes + i));
        _mm256_storeu_si256((__m256i *)(void *)(q + i), _mm256_cvtepi8_epi16(b));
    }
}

/* Four rows of bytes to columns of fours. */
static inline void interleave_rows(const int8_t *rows, int32_t width, int8_t *to) {
    for (int32_t i = 0; i < width; i += 16, to += 64) {
        __m128i r[4];
        for (int32_t j = 0; j < 4; j++) {
            r[j] = _mm_loadu_si128((const __m128i *)(const void *)(rows + j * width + i));
        }
        const __m128i a = _mm_unpacklo_epi8(r[0], r[1]), b = _mm_unpackhi_epi8(r[0], r[1]);
        const __m128i c = _mm_unpacklo_epi8(r[2], r[3]), d = _mm_unpackhi_epi8(r[2], r[3]);
        const __m128i parts[4] = {_mm_unpacklo_epi16(a, c), _mm_unpackhi_epi16(a, c),
                                  _mm_unpacklo_epi16(b, d), _mm_unpackhi_epi16(b, d)};
        for (int32_t j = 0; j < 4; j++) {
            _mm_storeu_si128((__m128i *)(void *)(to + 16 * j), parts[j]);
        }
    }
}

static void pack_keys_and_values(head *h, const tatvpr_head_job *job) {
    const int32_t stride = 3 * job->dim;
    const int32_t width = h->width;
    const float *keys = job->qkv + job->dim + (ptrdiff_t)job->head * job->head_dim;
    const float *values = keys + job->dim;
    int16_t *row = h->query; /* not yet in use */
    h->s_k = scale_of(keys, h->tokens, stride, job->head_dim);
    h->s_v = scale_of(values, h->tokens, stride, job->head_dim);
    const float inverse_k = 1.0f / h->s_k;
    const float inverse_v = 1.0f / h->s_v;
    for (int32_t j = 0; j < h->padded; j++) {
        if (j < h->tokens) {
            quantise_row(h, keys + (ptrdiff_t)j * stride, job->head_dim, inverse_k, row);
        } else {
            tatvpr_zero(row, (size_t)width * sizeof(*row));
        }
        for (int32_t p = 0; p < width / 2; p++) {
            __builtin_memcpy(h->keys + ((ptrdiff_t)p * h->padded + j) * 2, row + 2 * p, 4);
        }
    }
    for (int32_t j = 0; j < h->tokens; j += 4) {
        for (int32_t i = 0; i < 4; i++) {
            int8_t *to = h->bytes + i * width;
            if (j + i < h->tokens) {
                tatvpr_quantise_with(values + (ptrdiff_t)(j + i) * stride, job->head_dim, width,
                                     inverse_v, to);
            } else {
                tatvpr_zero(to, (size_t)width);
            }
        }
        interleave_rows(h->bytes, width, h->values + (ptrdiff_t)j * width);
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
    int exact; /* the root, a power of two, has been taken into s_k, which gives the same bits */
} scaling;

static scaling scaling_by(float s_k, float root) {
    scaling by;
    by.exact = tatvpr_is_power_of_two(root);
    by.s_k = _mm256_set1_ps(by.exact ? s_k / root : s_k);
    by.root = _mm256_set1_ps(root);
    return by;
}

static inline __m256 to_logits(__m256i dots, float s_q, const scaling *by) {
    const __m256 v = _mm256_mul_ps(
        _mm256_mul_ps(_mm256_cvtepi32_ps(dots), _mm256_set1_ps(s_q)), by->s_k);
    return by->exact ? v : _mm256_div_ps(v, by->root);
}

/* One query by sixteen keys, two elements. */
#define DOTS(i)                                                         \
    x = two(q + (i) * row);                                             \
    __asm__(TATVPR_DOTS_I16                                             \
            : [a] "+x"(a##i), [b] "+x"(b##i), [x] "+x"(x), [y] "=&x"(y) \
            : [v0] "x"(k0), [v1] "x"(k1));

/* Logits of four queries. */
static void four_logits(const head *h, const float *s_q, float root) {
    const scaling by = scaling_by(h->s_k, root);
    const ptrdiff_t row = h->width;
    const ptrdiff_t padded = h->padded;
    for (int32_t j = 0; j < h->padded; j += 16) {
        __m256i a0 = _mm256_setzero_si256(), a1 = a0, a2 = a0, a3 = a0;
        __m256i b0 = a0, b1 = a0, b2 = a0, b3 = a0;
        const __m256i *keys = (const __m256i *)(const void *)(h->keys + (ptrdiff_t)j * 2);
        for (int32_t p = 0; p < h->width / 2; p++, keys += padded / 8) {
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

/* tatvpr_exp(x) * 127, rounded, of eight vectors of arguments up to 0; below TATVPR_EXP_LOWEST, and
 * for what is not a number, it is 0. 2^n joins by an addition to the exponent: the result is a
 * normal number, so that this is exact. Conversion to integers rounds to even by itself. */
static inline void exp_127(__m256 *x /* [8], overwritten */, __m256i *e /* [8] */) {
    static const float c[6] = TATVPR_EXP_POLY;
    const __m256 magic = _mm256_set1_ps(TATVPR_RINT_MAGIC);
    __m256 shifted[8], y[8];
    TATVPR_EIGHT(i) x[i] = _mm256_max_ps(x[i], _mm256_set1_ps(TATVPR_EXP_LOWEST));
    TATVPR_EIGHT(i) shifted[i] = _mm256_mul_ps(x[i], _mm256_set1_ps(TATVPR_LOG2_E));
    TATVPR_EIGHT(i) shifted[i] = _mm256_add_ps(shifted[i], magic);
    TATVPR_EIGHT(i) { /* the low bits are n */
        e[i] = _mm256_slli_epi32(_mm256_castps_si256(shifted[i]), 23);
        y[i] = _mm256_sub_ps(shifted[i], magic);
    }
    TATVPR_TOGETHER(y);
    TATVPR_EIGHT(i) {
        x[i] = _mm256_sub_ps(x[i], _mm256_mul_ps(y[i], _mm256_set1_ps(TATVPR_LN2_HIGH)));
    }
    TATVPR_EIGHT(i) {
        x[i] = _mm256_sub_ps(x[i], _mm256_mul_ps(y[i], _mm256_set1_ps(TATVPR_LN2_LOW)));
    }
    TATVPR_EIGHT(i) y[i] = _mm256_mul_ps(x[i], _mm256_set1_ps(c[0]));
    for (int j = 1; j < 5; j++) {
        TATVPR_EIGHT(i) y[i] = _mm256_mul_ps(_mm256_add_ps(y[i], _mm256_set1_ps(c[j])), x[i]);
        TATVPR_TOGETHER(y);
    }
    TATVPR_EIGHT(i) y[i] = _mm256_add_ps(y[i], _mm256_set1_ps(c[5]));
    TATVPR_EIGHT(i) y[i] = _mm256_mul_ps(y[i], _mm256_mul_ps(x[i], x[i]));
    TATVPR_TOGETHER(y);
    TATVPR_EIGHT(i) y[i] = _mm256_add_ps(_mm256_add_ps(y[i], x[i]), _mm256_set1_ps(1.0f));
    TATVPR_TOGETHER(y);
    TATVPR_EIGHT(i) {
        e[i] = _mm256_add_epi32(_mm256_castps_si256(y[i]), e[i]);
        y[i] = _mm256_mul_ps(_mm256_castsi256_ps(e[i]), _mm256_set1_ps(TATVPR_QUANT_MAX));
        e[i] = _mm256_cvtps_epi32(y[i]);
    }
}

/* Two rows' sixteen weights to bytes, stored; answers their sums by eights: the first row's are
 * numbers 0 and 2. */
static inline __m256i store_weights(const __m256i *e, uint8_t *first, uint8_t *second) {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i bytes = _mm256_packus_epi16(_mm256_packs_epi32(e[0], e[1]),
                                        _mm256_packs_epi32(e[2], e[3]));
    bytes = _mm256_min_epu8(bytes, _mm256_set1_epi8(127)); /* changes only what is not finite */
    const __m256i sums = _mm256_sad_epu8(bytes, _mm256_setzero_si256());
    bytes = _mm256_permutevar8x32_epi32(bytes, order);
    _mm_storeu_si128((__m128i *)(void *)first, _mm256_castsi256_si128(bytes));
    _mm_storeu_si128((__m128i *)(void *)second, _mm256_extracti128_si256(bytes, 1));
    return sums;
}

/* Logits of four queries to weights 0..127, zeros beyond T, and 1 / their sums. */
static void weigh_four(const head *h, float *shares /* [4] */) {
    const ptrdiff_t row = h->padded;
    float *logits = h->logits;
    __m256 highest[4];
    for (ptrdiff_t i = 0; i < 4; i++) {
        for (int32_t j = h->tokens; j < h->padded; j++) {
            logits[i * row + j] = LEAST_LOGIT; /* neutral for the maximum, weighs nothing */
        }
        highest[i] = _mm256_loadu_ps(logits + i * row);
    }
    for (ptrdiff_t j = 8; j < row; j += 8) {
        for (ptrdiff_t i = 0; i < 4; i++) {
            highest[i] = _mm256_max_ps(highest[i], _mm256_loadu_ps(logits + i * row + j));
        }
    }
    for (int i = 0; i < 4; i++) {
        highest[i] = _mm256_set1_ps(tatvpr_max_ps(highest[i]));
    }
    __m256i sums[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (ptrdiff_t j = 0; j < row; j += 16) {
        __m256 x[8];
        __m256i e[8];
        TATVPR_EIGHT(i) {
            const float *from = logits + (i / 2) * row + j + 8 * (i % 2);
            x[i] = _mm256_sub_ps(_mm256_loadu_ps(from), highest[i / 2]);
        }
        exp_127(x, e);
        uint8_t *to = h->weights + j;
        sums[0] = _mm256_add_epi64(sums[0], store_weights(e, to, to + row));
        sums[1] = _mm256_add_epi64(sums[1], store_weights(e + 4, to + 2 * row, to + 3 * row));
    }
    for (int i = 0; i < 2; i++) {
        const __m128i two = _mm_add_epi64(_mm256_castsi256_si128(sums[i]),
                                          _mm256_extracti128_si256(sums[i], 1));
        shares[2 * i] = 1.0f / (float)tatvpr_max_i32(_mm_cvtsi128_si32(two), 1);
        shares[2 * i + 1] = 1.0f / (float)tatvpr_max_i32(_mm_extract_epi32(two, 2), 1);
    }
}

/* One query's weights by sixteen elements of four tokens. */
#define MIX(i)                                                          \
    x = two(e + (i) * (row / 2));                                       \
    __asm__(TATVPR_DOTS_U7                                              \
            : [a] "+x"(a##i), [b] "+x"(b##i), [x] "+x"(x), [y] "=&x"(y) \
            : [v0] "x"(v0), [v1] "x"(v1), [ones] "x"(ones));

/* Sixteen elements of the values, mixed by four queries' weights: mixed[2 i] and [2 i + 1]. */
static void mix_sixteen(const head *h, int32_t part, __m256i *mixed) {
    const __m256i ones = _mm256_set1_epi16(1);
    const ptrdiff_t row = h->padded;
    const ptrdiff_t stride = h->width / 8;
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
                        __m256i mixed, float share) {
    const __m256 v = _mm256_mul_ps(
        _mm256_mul_ps(_mm256_cvtepi32_ps(mixed), _mm256_set1_ps(h->s_v)), _mm256_set1_ps(share));
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

void TATVPR_VEX(attention)(const tatvpr_head_job *job) {
    head h;
    take_scratch(&h, job);
    pack_keys_and_values(&h, job);
    const float root = tatvpr_sqrt((float)job->head_dim);
    const float *queries = job->qkv + (ptrdiff_t)job->head * job->head_dim;
    for (int32_t first = 0; first < h.tokens; first += 4) {
        const int32_t count = tatvpr_min_i32(4, h.tokens - first);
        float s_q[4];
        float shares[4];
        for (int32_t i = 0; i < 4; i++) { /* a short last round repeats its last query */
            const int32_t token = first + tatvpr_min_i32(i, count - 1);
            const float *x = queries + (ptrdiff_t)token * 3 * job->dim;
            s_q[i] = scale_of(x, 1, 0, job->head_dim);
            quantise_row(&h, x, job->head_dim, 1.0f / s_q[i],
                         h.query + (ptrdiff_t)i * h.width);
        }
        four_logits(&h, s_q, root);
        weigh_four(&h, shares);
        for (int32_t part = 0; 8 * part < job->head_dim; part += 2) {
            __m256i mixed[8];
            mix_sixteen(&h, part, mixed);
            for (int32_t i = 0; i < count; i++) {
                write_eight(&h, job, first + i, part, mixed[2 * i], shares[i]);
                write_eight(&h, job, first + i, part + 1, mixed[2 * i + 1], shares[i]);
            }
        }
        if (first == 0 && job->a != NULL) {
            for (int32_t j = 0; j < h.tokens; j++) {
                job->a[j] = (float)h.weights[j] * shares[0];
            }
        }
    }
}
