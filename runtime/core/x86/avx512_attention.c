/* AVX-512 VNNI: QuantAttention, one head, four queries at a time. Both products are vpdpbusd:
 * queries as unsigned bytes (q + 128; sums begin at -128 times the key's sum) by sixteen keys of four
 * elements a register; weights (0..127) by sixteen elements of four values.
 *
 * The largest logit belongs to the largest integer product, since both factors are positive and
 * rounding is monotonic: maxima are taken of integers, on the way. */
#include "avx512_exp.h"

typedef struct head {
    int32_t tokens;        /* T */
    int32_t columns;       /* H */
    int32_t keys_16;       /* registers of 16 keys: T / 16, rounded up */
    int32_t quads;         /* fours of elements: H / 4, rounded up */
    int32_t fours;         /* fours of tokens that are mixed: T / 4, rounded up */
    int32_t parts;         /* registers of 16 elements: H / 16, rounded up */
    int8_t *keys;          /* [quads, keys_16, 16, 4] */
    int32_t *begin;        /* [keys_16, 16]: where a key's sums begin */
    int8_t *values;        /* [fours, parts, 16, 4] */
    uint8_t *query;        /* [4, query_stride] */
    int32_t query_stride;  /* H rounded up to 64 */
    int32_t *dots;         /* [4, keys_16, 16] */
    uint8_t *weights;      /* [4, weight_stride] */
    int32_t weight_stride; /* T rounded up to 64 */
    float s_q[4];
    float s_k;
    float s_v;
} head;

static void take_scratch(head *h, const tatvpr_head_job *job) {
    h->tokens = job->tokens;
    h->columns = job->head_dim;
    h->keys_16 = (h->tokens + 15) / 16;
    h->quads = (h->columns + 3) / 4;
    h->fours = (h->tokens + 3) / 4;
    h->parts = (h->columns + 15) / 16;
    h->query_stride = (h->columns + 63) / 64 * 64;
    h->weight_stride = (h->tokens + 63) / 64 * 64;
    uint8_t *at = job->scratch;
    h->dots = (int32_t *)(void *)at;
    at += (size_t)h->keys_16 * 64 * sizeof(int32_t);
    h->begin = (int32_t *)(void *)at;
    at += (size_t)h->keys_16 * 16 * sizeof(int32_t);
    h->weights = at;
    at += (size_t)h->weight_stride * 4;
    h->query = at;
    at += (size_t)h->query_stride * 4;
    h->keys = (int8_t *)at;
    at += (size_t)h->quads * (size_t)h->keys_16 * 64;
    h->values = (int8_t *)at;
}

/* ---- keys, values and queries to bytes */

/* Lanes a0 + 4 l of 16 registers to the columns of rows: 16 by 16 fours of bytes. */
static inline void transpose_16(__m512i *r) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 4) {
        const __m512i a = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        const __m512i b = _mm512_unpackhi_epi32(r[i], r[i + 1]);
        const __m512i c = _mm512_unpacklo_epi32(r[i + 2], r[i + 3]);
        const __m512i d = _mm512_unpackhi_epi32(r[i + 2], r[i + 3]);
        t[i] = _mm512_unpacklo_epi64(a, c);
        t[i + 1] = _mm512_unpackhi_epi64(a, c);
        t[i + 2] = _mm512_unpacklo_epi64(b, d);
        t[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    for (int i = 0; i < 4; i++) { /* lane l of t[4 g + i]: column 4 l + i of rows 4 g .. 4 g + 3 */
        const __m512i a = _mm512_shuffle_i32x4(t[i], t[4 + i], 0x44);
        const __m512i b = _mm512_shuffle_i32x4(t[i], t[4 + i], 0xEE);
        const __m512i c = _mm512_shuffle_i32x4(t[8 + i], t[12 + i], 0x44);
        const __m512i d = _mm512_shuffle_i32x4(t[8 + i], t[12 + i], 0xEE);
        r[i] = _mm512_shuffle_i32x4(a, c, 0x88);
        r[4 + i] = _mm512_shuffle_i32x4(a, c, 0xDD);
        r[8 + i] = _mm512_shuffle_i32x4(b, d, 0x88);
        r[12 + i] = _mm512_shuffle_i32x4(b, d, 0xDD);
    }
}

static void pack_keys(const head *h, const float *keys, int32_t stride) {
    const __m512 inverse = _mm512_set1_ps(1.0f / h->s_k);
    const __m512i offset = _mm512_set1_epi8(-128); /* 128 as an unsigned byte */
    for (int32_t j = 0; j < h->keys_16; j++) {
        const int32_t count = tatvpr_min_i32(16, h->tokens - 16 * j);
        __m512i surplus = _mm512_setzero_si512();
        for (int32_t first = 0; first < h->columns; first += 64) {
            const float *x = keys + (ptrdiff_t)16 * j * stride + first;
            const int32_t left = tatvpr_min_i32(64, h->columns - first);
            __m512i r[16];
            for (int32_t i = 0; i < 16; i++, x += stride) {
                r[i] = i < count ? tatvpr_quantise_64(x, left, inverse) : _mm512_setzero_si512();
            }
            transpose_16(r);
            int8_t *to = h->keys + ((ptrdiff_t)(first / 4) * h->keys_16 + j) * 64;
            for (int32_t i = 0; 4 * i < left; i++, to += (ptrdiff_t)h->keys_16 * 64) {
                TATVPR_DP512(surplus, offset, r[i]);
                _mm512_storeu_si512(to, r[i]);
            }
        }
        __m512i begin = _mm512_sub_epi32(_mm512_setzero_si512(), surplus);
        if (count < 16) { /* what is no key is never the largest */
            begin = _mm512_mask_set1_epi32(begin, (__mmask16)(0xFFFF << count), -(1 << 30));
        }
        _mm512_storeu_si512(h->begin + 16 * j, begin);
    }
}

static void pack_values(const head *h, const float *values, int32_t stride) {
    const __m512 inverse = _mm512_set1_ps(1.0f / h->s_v);
    for (int32_t f = 0; f < h->fours; f++) {
        int8_t *to = h->values + (ptrdiff_t)f * h->parts * 64;
        for (int32_t first = 0; first < h->columns; first += 64, to += 256) {
            const int32_t left = tatvpr_min_i32(64, h->columns - first);
            __m512i r[4];
            for (int32_t i = 0; i < 4; i++) {
                const float *x = values + (ptrdiff_t)(4 * f + i) * stride + first;
                r[i] = 4 * f + i < h->tokens ? tatvpr_quantise_64(x, left, inverse)
                                             : _mm512_setzero_si512();
            }
            const __m512i a = _mm512_unpacklo_epi8(r[0], r[1]);
            const __m512i b = _mm512_unpackhi_epi8(r[0], r[1]);
            const __m512i c = _mm512_unpacklo_epi8(r[2], r[3]);
            const __m512i d = _mm512_unpackhi_epi8(r[2], r[3]);
            /* lane l of u_i: elements 16 l + 4 i .. + 3, to be put in order */
            const __m512i u0 = _mm512_unpacklo_epi16(a, c), u1 = _mm512_unpackhi_epi16(a, c);
            const __m512i u2 = _mm512_unpacklo_epi16(b, d), u3 = _mm512_unpackhi_epi16(b, d);
            const __m512i low01 = _mm512_shuffle_i32x4(u0, u1, 0x44);
            const __m512i low23 = _mm512_shuffle_i32x4(u2, u3, 0x44);
            const __m512i high01 = _mm512_shuffle_i32x4(u0, u1, 0xEE);
            const __m512i high23 = _mm512_shuffle_i32x4(u2, u3, 0xEE);
            const __m512i v[4] = {_mm512_shuffle_i32x4(low01, low23, 0x88),
                                  _mm512_shuffle_i32x4(low01, low23, 0xDD),
                                  _mm512_shuffle_i32x4(high01, high23, 0x88),
                                  _mm512_shuffle_i32x4(high01, high23, 0xDD)};
            for (int32_t p = 0; 16 * p < left; p++) {
                _mm512_storeu_si512(to + 64 * p, v[p]);
            }
        }
    }
}

/* Four queries from `first` on; a short last four repeats its last query. */
static void pack_queries(head *h, const float *queries, int32_t first, int32_t stride) {
    const __m512i offset = _mm512_set1_epi8(-128);
    const float *row[4];
    __m512 most[4];
    for (int32_t i = 0; i < 4; i++) {
        row[i] = queries + (ptrdiff_t)tatvpr_min_i32(first + i, h->tokens - 1) * stride;
        most[i] = tatvpr_magnitudes(row[i], 1, 0, h->columns);
    }
    const __m128 s = tatvpr_four_scales(most[0], most[1], most[2], most[3]);
    float inverse[4];
    _mm_storeu_ps(h->s_q, s);
    _mm_storeu_ps(inverse, _mm_div_ps(_mm_set1_ps(1.0f), s));
    for (int32_t i = 0; i < 4; i++) {
        const __m512 by = _mm512_set1_ps(inverse[i]);
        uint8_t *q = h->query + (ptrdiff_t)i * h->query_stride;
        for (int32_t c = 0; c < h->columns; c += 64) {
            const __m512i v = tatvpr_quantise_64(row[i] + c, h->columns - c, by);
            _mm512_storeu_si512(q + c, _mm512_xor_si512(v, offset));
        }
    }
}

/* ---- products: four rows of bytes by some registers of columns */

#define STEP(v)                                                 \
    {                                                           \
        const __m512i k = _mm512_loadu_si512(right + 64 * (v)); \
        TATVPR_DP512(a##v, x0, k);                              \
        TATVPR_DP512(b##v, x1, k);                              \
        TATVPR_DP512(c##v, x2, k);                              \
        TATVPR_DP512(d##v, x3, k);                              \
    }

/* `fours` times four elements of rows from `left` on, `row` bytes apart, by registers from `right`
 * on, whose next four elements lie `step` bytes further. */
#define MULTIPLY(EACH, fours, left, row, right, step)                                \
    for (int32_t i = 0; i < (fours); i++, right += step, left += 4) {                \
        const __m512i x0 = _mm512_set1_epi32(tatvpr_four_bytes(left));               \
        const __m512i x1 = _mm512_set1_epi32(tatvpr_four_bytes(left + row));         \
        const __m512i x2 = _mm512_set1_epi32(tatvpr_four_bytes(left + 2 * row));     \
        const __m512i x3 = _mm512_set1_epi32(tatvpr_four_bytes(left + 3 * row));     \
        EACH(STEP)                                                                   \
    }

/* ---- queries by keys: four queries by up to six registers of keys */

#define DOTS_BEGIN(v)                                                                        \
    __m512i a##v = _mm512_loadu_si512(begin + 16 * (v)), b##v = a##v, c##v = a##v, d##v = a##v;

#define DOTS_END(v)                                       \
    _mm512_storeu_si512(dots + 16 * (v), a##v);           \
    _mm512_storeu_si512(dots + row + 16 * (v), b##v);     \
    _mm512_storeu_si512(dots + 2 * row + 16 * (v), c##v); \
    _mm512_storeu_si512(dots + 3 * row + 16 * (v), d##v); \
    most[0] = _mm512_max_epi32(most[0], a##v);            \
    most[1] = _mm512_max_epi32(most[1], b##v);            \
    most[2] = _mm512_max_epi32(most[2], c##v);            \
    most[3] = _mm512_max_epi32(most[3], d##v);

#define DOTS(name, EACH)                                                             \
    static void name(const head *h, int32_t j, __m512i *most /* [4] */) {            \
        const ptrdiff_t row = 16 * (ptrdiff_t)h->keys_16;                            \
        const ptrdiff_t stride = h->query_stride;                                    \
        const int32_t *begin = h->begin + 16 * j;                                    \
        const int8_t *right = h->keys + 64 * j;                                      \
        const uint8_t *q = h->query;                                                 \
        EACH(DOTS_BEGIN)                                                             \
        MULTIPLY(EACH, h->quads, q, stride, right, 4 * row)                          \
        int32_t *dots = h->dots + 16 * j;                                            \
        EACH(DOTS_END)                                                               \
    }

DOTS(dots_1, EACH_1)
DOTS(dots_2, EACH_2)
DOTS(dots_3, EACH_3)
DOTS(dots_4, EACH_4)
DOTS(dots_5, EACH_5)
DOTS(dots_6, EACH_6)

/* Products of four queries with all keys, and each query's largest. */
static void four_by_all(const head *h, int32_t *largest /* [4] */) {
    static void (*const some[7])(const head *, int32_t, __m512i *) = {
        NULL, dots_1, dots_2, dots_3, dots_4, dots_5, dots_6};
    __m512i most[4];
    TATVPR_EACH(i, 4) most[i] = _mm512_set1_epi32(-(1 << 30));
    for (int32_t j = 0; j < h->keys_16;) {
        const int32_t left = h->keys_16 - j;
        const int32_t n = left > 6 && left < 12 ? (left + 1) / 2 : tatvpr_min_i32(left, 6);
        some[n](h, j, most);
        j += n;
    }
    TATVPR_EACH(i, 4) largest[i] = _mm512_reduce_max_epi32(most[i]);
}

/* ---- logits to weights */

/* One query's products to logits: ((dot * s_q) * s_k) / root, less the largest. */
typedef struct scaling {
    __m512 s_q;
    __m512 s_k;
    __m512 root;
    __m512 highest;
    __m512i lowest; /* products below weigh nothing: taken as this one, whose logit lies 20 below */
    int exact;      /* the root, a power of two, has been taken into s_k, which gives the same bits */
    int slow;       /* logits lie too far apart for `lowest` */
} scaling;

static inline __m512 to_logits(__m512i dots, const scaling *by) {
    const __m512 v = _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(dots), by->s_q), by->s_k);
    return by->exact ? v : _mm512_div_ps(v, by->root);
}

static inline __m512 below_highest(__m512i dots, const scaling *by) {
    return _mm512_sub_ps(to_logits(dots, by), by->highest);
}

static scaling scaling_by(float s_q, float s_k, float root, int32_t largest) {
    const float span = 20.0f * root / (s_q * s_k);
    scaling by;
    by.exact = tatvpr_is_power_of_two(root);
    by.s_q = _mm512_set1_ps(s_q);
    by.s_k = _mm512_set1_ps(by.exact ? s_k / root : s_k);
    by.root = _mm512_set1_ps(root);
    by.highest = to_logits(_mm512_set1_epi32(largest), &by);
    by.slow = !(span >= 2.0f);
    by.lowest =
        _mm512_set1_epi32(largest - (by.slow || !(span < 1e9f) ? 1000000000 : (int32_t)span));
    return by;
}

/* `n` registers of one query's products the long way, to the form of tatvpr_exp_127. */
static __attribute__((noinline)) void weigh_exactly(const int32_t *dots, const scaling *by, int n,
                                                    __m512i *e) {
    TATVPR_EACH(i, n) {
        const __m512 x = below_highest(_mm512_loadu_si512(dots + 16 * i), by);
        e[i] = _mm512_slli_epi32(tatvpr_exact_exp_127(x), 16);
    }
}

static inline __m512 logits_at(const int32_t *dots, const scaling *by) {
    return below_highest(_mm512_max_epi32(_mm512_loadu_si512(dots), by->lowest), by);
}

/* Two queries by 64 keys. */
static inline void weigh_64(const head *h, const scaling *by, int slow, int32_t query, int32_t key,
                            __m512i *sums) {
    const ptrdiff_t row = 16 * (ptrdiff_t)h->keys_16;
    const int32_t *dots = h->dots + query * row + key;
    __m512 x[8];
    __m512i e[8];
    __m512i nearest = _mm512_set1_epi32(-1);
    TATVPR_EACH(i, 4) {
        x[i] = logits_at(dots + 16 * i, by);
        x[4 + i] = logits_at(dots + row + 16 * i, by + 1);
    }
    tatvpr_exp_127(x, e, &nearest);
    tatvpr_exp_127(x + 4, e + 4, &nearest);
    if (__builtin_expect(slow || !tatvpr_exp_clear(nearest), 0)) {
        weigh_exactly(dots, by, 4, e);
        weigh_exactly(dots + row, by + 1, 4, e + 4);
    }
    if (key + 64 > h->tokens) { /* the last register holds what is no key */
        const __mmask16 there = tatvpr_first_lanes(h->tokens - key - 48);
        e[3] = _mm512_maskz_mov_epi32(there, e[3]);
        e[7] = _mm512_maskz_mov_epi32(there, e[7]);
    }
    const __m512i ones = _mm512_set1_epi8(1);
    const __m512i first = tatvpr_third_bytes(e[0], e[1], e[2], e[3]);
    const __m512i second = tatvpr_third_bytes(e[4], e[5], e[6], e[7]);
    TATVPR_DP512(sums[0], first, ones);
    TATVPR_DP512(sums[1], second, ones);
    uint8_t *to = h->weights + query * (ptrdiff_t)h->weight_stride + key;
    _mm512_storeu_si512(to, first);
    _mm512_storeu_si512(to + h->weight_stride, second);
}

/* Four queries by 16 keys. */
static inline void weigh_16(const head *h, const scaling *by, int slow, int32_t key,
                            __m512i *sums) {
    const ptrdiff_t row = 16 * (ptrdiff_t)h->keys_16;
    const int32_t *dots = h->dots + key;
    __m512 x[4];
    __m512i e[4];
    __m512i nearest = _mm512_set1_epi32(-1);
    TATVPR_EACH(q, 4) x[q] = logits_at(dots + q * row, by + q);
    tatvpr_exp_127(x, e, &nearest);
    if (__builtin_expect(slow || !tatvpr_exp_clear(nearest), 0)) {
        TATVPR_EACH(q, 4) weigh_exactly(dots + q * row, by + q, 1, e + q);
    }
    const __mmask16 there = tatvpr_first_lanes(h->tokens - key);
    TATVPR_EACH(q, 4) {
        e[q] = _mm512_srli_epi32(_mm512_maskz_mov_epi32(there, e[q]), 16);
        sums[q] = _mm512_add_epi32(sums[q], e[q]);
        _mm_storeu_si128((__m128i *)(void *)(h->weights + q * (ptrdiff_t)h->weight_stride + key),
                         _mm512_cvtusepi32_epi8(e[q]));
    }
}

/* Four queries' weights 0..127, zeros beyond T, and 1 / their sums. */
static void weigh(const head *h, const scaling *by, float *shares /* [4] */) {
    __m512i sums[4];
    TATVPR_EACH(q, 4) sums[q] = _mm512_setzero_si512();
    const int slow = by[0].slow | by[1].slow | by[2].slow | by[3].slow;
    const int32_t whole = h->keys_16 / 4 * 4;
    for (int32_t q = 0; q < 4; q += 2) {
        for (int32_t j = 0; j < whole; j += 4) {
            weigh_64(h, by + q, slow, q, 16 * j, sums + q);
        }
    }
    for (int32_t j = whole; j < h->keys_16; j++) {
        weigh_16(h, by, slow, 16 * j, sums);
    }
    TATVPR_EACH(q, 4) {
        shares[q] = 1.0f / (float)tatvpr_max_i32(_mm512_reduce_add_epi32(sums[q]), 1);
    }
}

/* ---- weights by values: four queries by up to four registers of elements */

#define MIX_BEGIN(v) __m512i a##v = _mm512_setzero_si512(), b##v = a##v, c##v = a##v, d##v = a##v;

#define MIX_END(v)                                                       \
    write_16(h, y, part + (v), a##v, shares[0]);                         \
    if (count > 1) {                                                     \
        write_16(h, y + dim, part + (v), b##v, shares[1]);               \
    }                                                                    \
    if (count > 2) {                                                     \
        write_16(h, y + 2 * dim, part + (v), c##v, shares[2]);           \
    }                                                                    \
    if (count > 3) {                                                     \
        write_16(h, y + 3 * dim, part + (v), d##v, shares[3]);           \
    }

static inline void write_16(const head *h, float *y, int32_t part, __m512i mixed, float share) {
    const __m512 v = _mm512_mul_ps(
        _mm512_mul_ps(_mm512_cvtepi32_ps(mixed), _mm512_set1_ps(h->s_v)), _mm512_set1_ps(share));
    _mm512_mask_storeu_ps(y + 16 * part, tatvpr_first_lanes(h->columns - 16 * part), v);
}

/* Registers from number `part` on of `count` queries' outputs, rows `dim` floats apart. */
#define MIX(name, EACH)                                                              \
    static void name(const head *h, int32_t part, float *y, ptrdiff_t dim,           \
                     int32_t count, const float *shares) {                           \
        const ptrdiff_t row = h->weight_stride;                                      \
        const int8_t *right = h->values + 64 * part;                                 \
        const ptrdiff_t step = 64 * (ptrdiff_t)h->parts;                             \
        const uint8_t *e = h->weights;                                               \
        EACH(MIX_BEGIN)                                                              \
        MULTIPLY(EACH, h->fours, e, row, right, step)                                \
        EACH(MIX_END)                                                                \
    }

MIX(mix_1, EACH_1)
MIX(mix_2, EACH_2)
MIX(mix_3, EACH_3)
MIX(mix_4, EACH_4)

static void mix_all(const head *h, float *y, ptrdiff_t dim, int32_t count, const float *shares) {
    static void (*const some[5])(const head *, int32_t, float *, ptrdiff_t, int32_t,
                                 const float *) = {NULL, mix_1, mix_2, mix_3, mix_4};
    for (int32_t part = 0; part < h->parts; part += 4) {
        some[tatvpr_min_i32(4, h->parts - part)](h, part, y, dim, count, shares);
    }
}

/* ---- one head */

/* A head's rows lie a whole row of Q, K and V apart: no stream that a CPU would see. While four
 * queries are worked on, the next four come to the first level and four rows of the next head to the
 * second. */
static void prefetch_next(const tatvpr_head_job *job, int32_t first, int32_t count) {
    const int32_t column = job->head * job->head_dim;
    const int32_t next = column + job->head_dim;
    for (int32_t i = first; i < first + count; i++) {
        const float *row = job->qkv + (ptrdiff_t)i * 3 * job->dim;
        if (i + 4 < job->tokens) {
            const float *query = row + (ptrdiff_t)12 * job->dim + column;
            for (int32_t c = 0; c < job->head_dim; c += 16) {
                __builtin_prefetch(query + c, 0, 3);
            }
        }
        for (int32_t part = 0; part < 3 && next < job->dim; part++, row += job->dim) {
            for (int32_t c = next; c < next + job->head_dim; c += 16) {
                __builtin_prefetch(row + c, 0, 2);
            }
        }
    }
}

void tatvpr_avx512_attention(const tatvpr_head_job *job) {
    head h;
    take_scratch(&h, job);
    const int32_t stride = 3 * job->dim;
    const float *queries = job->qkv + (ptrdiff_t)job->head * h.columns;
    const float *keys = queries + job->dim;
    const float *values = keys + job->dim;
    h.s_k = tatvpr_scale(tatvpr_magnitudes(keys, h.tokens, stride, h.columns));
    h.s_v = tatvpr_scale(tatvpr_magnitudes(values, h.tokens, stride, h.columns));
    pack_keys(&h, keys, stride);
    pack_values(&h, values, stride);
    const float root = tatvpr_sqrt((float)h.columns);
    for (int32_t first = 0; first < h.tokens; first += 4) {
        const int32_t count = tatvpr_min_i32(4, h.tokens - first);
        int32_t largest[4];
        scaling by[4];
        float shares[4];
        pack_queries(&h, queries, first, stride);
        prefetch_next(job, first, count);
        four_by_all(&h, largest);
        TATVPR_EACH(i, 4) by[i] = scaling_by(h.s_q[i], h.s_k, root, largest[i]);
        weigh(&h, by, shares);
        float *y = job->y + (ptrdiff_t)first * job->dim + (ptrdiff_t)job->head * h.columns;
        mix_all(&h, y, job->dim, count, shares);
        if (first == 0 && job->a != NULL) {
            for (int32_t j = 0; j < h.tokens; j++) {
                job->a[j] = (float)h.weights[j] * shares[0];
            }
        }
    }
}
