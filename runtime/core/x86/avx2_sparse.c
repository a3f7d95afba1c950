/* AVX2: exact sparse ternary matmul: only the rows of the kept channels are read, two at a time.
 *
 * Two rows' bytes are interleaved, so that a vpmaddubsw of one 2-bit field with the pair's
 * activations adds two channels of 16 neighbouring outputs. Fields 1 and 3 are not shifted down:
 * they carry a factor 4, taken off 16 pairs later (16 * 2 * 4 * 2 * 127 fits 16 bits), when they
 * join the sums of the other fields, which are widened every 64 pairs.
 */
#include "avx2.h"

enum { PAIRS = 16, ROUNDS = 4 };

static inline __m256i pair_of(const int8_t *value) {
    int16_t v;
    __builtin_memcpy(&v, value, sizeof(v));
    return _mm256_set1_epi16(v);
}

/* Assembly, so that sums stay in registers: compilers delay the additions and spill. */
#define ADD(sum, field)                                                          \
    do {                                                                         \
        __m256i product;                                                         \
        __asm__("vpmaddubsw %[x], %[f], %[p]\n\t"                                \
                "vpaddw %[p], %[s], %[s]"                                        \
                : [s] "+x"(sum), [p] "=&x"(product)                              \
                : [f] "x"(field), [x] "x"(x));                                   \
    } while (0)
#define FIELDS(u, s0, s1, s2, s3)                      \
    do {                                               \
        const __m256i h = _mm256_srli_epi16(u, 4);     \
        ADD(s0, _mm256_and_si256(u, one_field));       \
        ADD(s1, _mm256_and_si256(u, other_field));     \
        ADD(s2, _mm256_and_si256(h, one_field));       \
        ADD(s3, _mm256_and_si256(h, other_field));     \
    } while (0)

static inline __m256i quarter(__m256i sums) { return _mm256_srai_epi16(sums, 2); }

/* Outputs of one block, and what their epilogue needs: 128 scales and biases, padded. */
typedef struct outputs {
    const tatvpr_matmul *job;
    int32_t first;
    int32_t columns;    /* that exist: at most 128 */
    const float *scale; /* [128] */
    const float *bias;  /* [128] */
    float *staged;      /* [128]: a short block is finished here, then copied */
} outputs;

/* One token's place in it. */
typedef struct target {
    __m256 s;
    __m256i sum;
    __m256i sum_16;
    const float *scale;
    const float *bias;
    const float *residual; /* or null */
    float *y;
} target;

/* Outputs 0-7 and 8-15 of 16 sums of 16 bits, with 32 bits. */
static inline __m256i low_half(__m256i sums) {
    return _mm256_srai_epi32(_mm256_unpacklo_epi16(sums, sums), 16);
}
static inline __m256i high_half(__m256i sums) {
    return _mm256_srai_epi32(_mm256_unpackhi_epi16(sums, sums), 16);
}

/* 16 outputs from number 16 g on: y = (acc * s) * scale + bias [+ residual]. `wide` holds sums of
 * earlier rounds, less the token's sum, or is null: then the sums are of at most 128 channels, and
 * the token's sum comes off in 16 bits. */
static inline void finish(const target *to, int32_t g, __m256i sums, const __m256i *wide) {
    if (wide == NULL) {
        sums = _mm256_sub_epi16(sums, to->sum_16);
    }
    __m256i acc[2] = {low_half(sums), high_half(sums)};
    for (int32_t h = 0; h < 2; h++) {
        const ptrdiff_t at = 16 * (ptrdiff_t)g + 8 * h;
        if (wide != NULL) {
            acc[h] = _mm256_add_epi32(acc[h], wide[2 * g + h]);
        }
        __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(acc[h]), to->s);
        v = _mm256_mul_ps(v, _mm256_loadu_ps(to->scale + at));
        v = _mm256_add_ps(v, _mm256_loadu_ps(to->bias + at));
        if (to->residual != NULL) {
            v = _mm256_add_ps(_mm256_loadu_ps(to->residual + at), v);
        }
        _mm256_storeu_ps(to->y + at, v);
    }
}

/* 16 sums of 16 bits onto 16 of 32 bits, which begin at minus the token's sum. */
static inline void widen(const target *to, __m256i sums, __m256i *wide, int first) {
    wide[0] = first ? _mm256_sub_epi32(low_half(sums), to->sum)
                    : _mm256_add_epi32(wide[0], low_half(sums));
    wide[1] = first ? _mm256_sub_epi32(high_half(sums), to->sum)
                    : _mm256_add_epi32(wide[1], high_half(sums));
}

static inline __m256i row_32(const uint8_t *rows, int32_t channel) {
    return _mm256_load_si256((const __m256i *)(const void *)(rows + (ptrdiff_t)channel * 32));
}

/* One token by a block of 128 outputs. */
static void token_128(const uint8_t *rows, const uint16_t *index, const int8_t *value,
                      int32_t pairs, const target *to) {
    const __m256i one_field = _mm256_set1_epi8(0x03);
    const __m256i other_field = _mm256_set1_epi8(0x0C);
    __m256i wide[16];
    const __m256i *earlier = NULL;
    int32_t p = 0;
    for (;;) {
        __m256i a0 = _mm256_setzero_si256(), a1 = a0, a2 = a0, a3 = a0;
        __m256i b0 = a0, b1 = a0, b2 = a0, b3 = a0;
        for (int32_t round = 0; round < ROUNDS && p < pairs; round++) {
            __m256i c1 = _mm256_setzero_si256(), c3 = c1, d1 = c1, d3 = c1;
            const int32_t end = tatvpr_min_i32(p + PAIRS, pairs);
            for (; p < end; p++) {
                const __m256i r0 = row_32(rows, index[2 * p]);
                const __m256i r1 = row_32(rows, index[2 * p + 1]);
                const __m256i x = pair_of(value + 2 * p);
                const __m256i low = _mm256_unpacklo_epi8(r0, r1);
                const __m256i high = _mm256_unpackhi_epi8(r0, r1);
                FIELDS(low, a0, c1, a2, c3);
                FIELDS(high, b0, d1, b2, d3);
            }
            a1 = _mm256_add_epi16(a1, quarter(c1));
            a3 = _mm256_add_epi16(a3, quarter(c3));
            b1 = _mm256_add_epi16(b1, quarter(d1));
            b3 = _mm256_add_epi16(b3, quarter(d3));
        }
        const __m256i sums[8] = {a0, a1, a2, a3, b0, b1, b2, b3};
        if (p >= pairs) {
            for (int32_t g = 0; g < 8; g++) {
                finish(to, g, sums[g], earlier);
            }
            return;
        }
        for (int32_t g = 0; g < 8; g++) {
            widen(to, sums[g], wide + 2 * g, earlier == NULL);
        }
        earlier = wide;
    }
}

/* One token by a block of 64 outputs, whose rows are 16 bytes. */
static void token_64(const uint8_t *rows, const uint16_t *index, const int8_t *value,
                     int32_t pairs, const target *to) {
    const __m256i one_field = _mm256_set1_epi8(0x03);
    const __m256i other_field = _mm256_set1_epi8(0x0C);
    __m256i wide[8];
    const __m256i *earlier = NULL;
    int32_t p = 0;
    for (;;) {
        __m256i a0 = _mm256_setzero_si256(), a1 = a0, a2 = a0, a3 = a0;
        for (int32_t round = 0; round < ROUNDS && p < pairs; round++) {
            __m256i c1 = _mm256_setzero_si256(), c3 = c1;
            const int32_t end = tatvpr_min_i32(p + PAIRS, pairs);
            for (; p < end; p++) {
                const __m128i r0 = _mm_load_si128(
                    (const __m128i *)(const void *)(rows + (ptrdiff_t)index[2 * p] * 16));
                const __m128i r1 = _mm_load_si128(
                    (const __m128i *)(const void *)(rows + (ptrdiff_t)index[2 * p + 1] * 16));
                const __m256i x = pair_of(value + 2 * p);
                const __m256i u =
                    _mm256_set_m128i(_mm_unpackhi_epi8(r0, r1), _mm_unpacklo_epi8(r0, r1));
                FIELDS(u, a0, c1, a2, c3);
            }
            a1 = _mm256_add_epi16(a1, quarter(c1));
            a3 = _mm256_add_epi16(a3, quarter(c3));
        }
        const __m256i sums[4] = {a0, a1, a2, a3};
        if (p >= pairs) {
            for (int32_t g = 0; g < 4; g++) {
                finish(to, g, sums[g], earlier);
            }
            return;
        }
        for (int32_t g = 0; g < 4; g++) {
            widen(to, sums[g], wide + 2 * g, earlier == NULL);
        }
        earlier = wide;
    }
}

/* Scales and biases of a block: where they lie, or in the job's scratch, padded. */
static outputs begin_outputs(const tatvpr_matmul *job, int32_t first) {
    float *const scale = (float *)(void *)job->panel;
    float *const bias = scale + 128;
    outputs o;
    o.job = job;
    o.first = first;
    o.columns = tatvpr_min_i32(128, job->op->n_out - first);
    o.scale = scale;
    o.bias = bias;
    o.staged = bias + 128;
    if (job->op->scale_per_row && o.columns == 128) {
        o.scale = job->scale + first;
    } else {
        for (int32_t i = 0; i < 128; i++) {
            scale[i] = job->scale[job->op->scale_per_row
                                      ? first + tatvpr_min_i32(i, o.columns - 1)
                                      : 0];
        }
    }
    if (o.columns == 128) {
        o.bias = job->bias + first;
    } else {
        for (int32_t i = 0; i < 128; i++) {
            bias[i] = job->bias[first + tatvpr_min_i32(i, o.columns - 1)];
        }
    }
    return o;
}

static void one_token(const outputs *o, int32_t t, const uint8_t *rows, int wide_rows) {
    const tatvpr_matmul *job = o->job;
    const tatvpr_tile *tile = job->tile;
    const ptrdiff_t list = (ptrdiff_t)t * tile->list_stride;
    const ptrdiff_t at = (ptrdiff_t)t * job->y_stride + o->first;
    const int32_t pairs = (tile->count[t] + 1) / 2; /* the list is padded with zeros */
    const int whole = o->columns == (wide_rows ? 128 : 64);
    target to;
    to.s = _mm256_set1_ps(tile->s[t]);
    to.sum = _mm256_set1_epi32(tile->sum[t]);
    to.sum_16 = _mm256_set1_epi16((int16_t)tile->sum[t]);
    to.scale = o->scale;
    to.bias = o->bias;
    to.residual = whole && job->residual != NULL ? job->residual + at : NULL;
    to.y = whole ? job->y + at : o->staged;
    if (wide_rows) {
        token_128(rows, tile->index + list, tile->value + list, pairs, &to);
    } else {
        token_64(rows, tile->index + list, tile->value + list, pairs, &to);
    }
    for (int32_t i = 0; !whole && i < o->columns; i++) {
        job->y[at + i] = job->residual != NULL ? job->residual[at + i] + o->staged[i]
                                               : o->staged[i];
    }
}

void tatvpr_avx2_sparse(const tatvpr_matmul *job) {
    const tatvpr_tile *tile = job->tile;
    const int32_t k_rows = tatvpr_avx2_rows(job->op->k_in);
    int32_t half = 0;
    const int32_t blocks = tatvpr_avx2_blocks(job->op->n_out, &half);
    for (int32_t block = 0; block < blocks + half; block++) {
        const uint8_t *rows = job->weight + (ptrdiff_t)block * k_rows * 32;
        const outputs o = begin_outputs(job, block * 128);
        /* The next block's rows are fetched while this one is multiplied, a share each token. */
        const ptrdiff_t block_lines = (ptrdiff_t)k_rows * 32 / 64;
        const ptrdiff_t share = block_lines / tile->tokens + 1;
        const uint8_t *next = rows + block_lines * 64;
        const uint8_t *stop = block + 1 < blocks ? next + block_lines * 64 : next;
        for (int32_t t = 0; t < tile->tokens; t++) {
            for (ptrdiff_t line = 0; line < share && next < stop; line++, next += 64) {
                _mm_prefetch((const char *)next, _MM_HINT_T0);
            }
            one_token(&o, t, rows, block < blocks);
        }
    }
}
