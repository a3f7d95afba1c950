/* AVX-512 VNNI: exact sparse ternary matmul: only the rows of the kept channels are read, four at a
 * time. The rows' packed bytes are transposed four by four; each register then feeds four
 * vpdpbusd: its fields where they lie (factors 1, 4, 16), and the raw byte, from whose sums the
 * other three are taken off to leave the top field (factor 64). Nothing is shifted: the factors,
 * powers of two, are taken into the token's scale, which gives the same bits.
 *
 * Rows of blocks of 128 and 64 outputs are half and a quarter of a register: two or four entries
 * of the list go side by side through the same 36 operations; their sums are added at the end.
 *
 * Where channels are kept in aligned fours, all rows of a block are transposed once, to scratch,
 * and a kept four is read from there: four neighbouring registers. */
#include "avx512_epilogue.h"
#include "avx512_lanes.h"
#include "../common/fetch.h"

/* ---- rows to registers
 *
 * An entry is four channels of the list, or one aligned four. p0 to p3 point at the indices of the
 * entries of a step: one for L = 4, two for L = 2, four for L = 1. */

static inline __m512i whole(const uint8_t *p) { return _mm512_loadu_si512(p); }

static inline __m512i halves(const uint8_t *a, const uint8_t *b) {
    const __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)a);
    const __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)b);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

static inline __m128i sixteen(const uint8_t *p) {
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

static inline __m512i quarters(const uint8_t *a, const uint8_t *b, const uint8_t *c,
                               const uint8_t *d) {
    __m512i v = _mm512_castsi128_si512(sixteen(a));
    v = _mm512_mask_broadcast_i32x4(v, 0x00F0, sixteen(b));
    v = _mm512_mask_broadcast_i32x4(v, 0x0F00, sixteen(c));
    return _mm512_mask_broadcast_i32x4(v, 0xF000, sixteen(d));
}

/* Row (of four channels) or register (of an aligned four) number i of a step's entries. */
#define READ_4(at, i) whole(at(0, i))
#define READ_2(at, i) halves(at(0, i), at(1, i))
#define READ_1(at, i) quarters(at(0, i), at(1, i), at(2, i), at(3, i))

#define CHANNEL_4(entry, i) (rows + (size_t)p##entry[i] * 64)
#define CHANNEL_2(entry, i) (rows + (size_t)p##entry[i] * 32)
#define CHANNEL_1(entry, i) (rows + (size_t)p##entry[i] * 16)
#define FOUR_4(entry, i) (rows + (size_t)p##entry[0] * 256 + 64 * (i))
#define FOUR_2(entry, i) (rows + (size_t)p##entry[0] * 128 + 32 * (i))
#define FOUR_1(entry, i) (rows + (size_t)p##entry[0] * 64 + 16 * (i))

/* To u0 .. u3: four channels an output, in each four neighbouring fields of outputs. */
#define CHANNELS(L)                                                                          \
    const __m512i r0 = READ_##L(CHANNEL_##L, 0), r1 = READ_##L(CHANNEL_##L, 1);              \
    const __m512i r2 = READ_##L(CHANNEL_##L, 2), r3 = READ_##L(CHANNEL_##L, 3);              \
    const __m512i t0 = _mm512_unpacklo_epi8(r0, r1), t1 = _mm512_unpackhi_epi8(r0, r1);      \
    const __m512i t2 = _mm512_unpacklo_epi8(r2, r3), t3 = _mm512_unpackhi_epi8(r2, r3);      \
    const __m512i u0 = _mm512_unpacklo_epi16(t0, t2), u1 = _mm512_unpackhi_epi16(t0, t2);    \
    const __m512i u2 = _mm512_unpacklo_epi16(t1, t3), u3 = _mm512_unpackhi_epi16(t1, t3);

#define FOURS(L)                                                                             \
    const __m512i u0 = READ_##L(FOUR_##L, 0), u1 = READ_##L(FOUR_##L, 1);                    \
    const __m512i u2 = READ_##L(FOUR_##L, 2), u3 = READ_##L(FOUR_##L, 3);

/* The entries' activations, each where its rows lie. */
#define VALUES_4 _mm512_set1_epi32(tatvpr_four_bytes(value))
#define VALUES_2                                                                             \
    _mm512_mask_set1_epi32(VALUES_4, 0xFF00, tatvpr_four_bytes(value + 4))
#define VALUES_1                                                                             \
    _mm512_permutexvar_epi32(_mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0), \
                             _mm512_castsi128_si512(_mm_loadu_si128(                         \
                                 (const __m128i *)(const void *)value)))

/* ---- sums */

/* Sums begin at minus the codes' + 1: once an output, not once for each part of a register. */
#define BEGIN_AT(L, x) _mm512_maskz_set1_epi32(tatvpr_first_lanes(4 * (L)), x)

/* Of register u##i: fields 0, 1 and 2 (times 1, 4, 16), and all four together. */
#define BEGIN(i) __m512i a##i = begin_0, b##i = begin_1, c##i = begin_2, d##i = begin_all;

#define MULTIPLY(i)                                                                          \
    TATVPR_DP512(a##i, _mm512_and_si512(u##i, m0), q);                                       \
    TATVPR_DP512(b##i, _mm512_and_si512(u##i, m1), q);                                       \
    TATVPR_DP512(c##i, _mm512_and_si512(u##i, m2), q);                                       \
    TATVPR_DP512(d##i, u##i, q);

#define LEAVE_FIELD_3(i) \
    d##i = _mm512_sub_epi32(_mm512_sub_epi32(d##i, a##i), _mm512_add_epi32(b##i, c##i));

#define FINISH_4(i)                                                                          \
    tatvpr_write_16(&p, how, 64 * (i), a##i, s0);                                            \
    tatvpr_write_16(&p, how, 64 * (i) + 16, b##i, s1);                                       \
    tatvpr_write_16(&p, how, 64 * (i) + 32, c##i, s2);                                       \
    tatvpr_write_16(&p, how, 64 * (i) + 48, d##i, s3);
#define FINISH_2(i)                                                                          \
    tatvpr_write_16(&p, how, 32 * (i), tatvpr_add_halves(a##i, b##i),                        \
                    _mm512_mask_mov_ps(s0, 0xFF00, s1));                                     \
    tatvpr_write_16(&p, how, 32 * (i) + 16, tatvpr_add_halves(c##i, d##i),                   \
                    _mm512_mask_mov_ps(s2, 0xFF00, s3));
#define FINISH_1(i)                                                                          \
    tatvpr_write_16(&p, how, 16 * (i), tatvpr_add_lanes(a##i, b##i, c##i, d##i),             \
                    _mm512_mask_mov_ps(_mm512_mask_mov_ps(s0, 0x00F0, s1), 0xFF00,           \
                                       _mm512_mask_mov_ps(s2, 0xF000, s3)));

/* ---- one token by one block of 64 L outputs */

/* INDICES: how many the list holds of an entry. */
#define TOKEN(name, L, READ, INDICES)                                                        \
    static void name(const tatvpr_outputs *o, int32_t t, const uint8_t *rows,                \
                     const uint16_t *index, const int8_t *value, int32_t entries) {          \
        enum { at_once = 4 / (L) };                                                          \
        const __m512i m0 = _mm512_set1_epi8(0x03);                                           \
        const __m512i m1 = _mm512_set1_epi8(0x0C);                                           \
        const __m512i m2 = _mm512_set1_epi8(0x30);                                           \
        const int32_t sum = o->job->tile->sum[t];                                            \
        const __m512i begin_0 = BEGIN_AT(L, -sum), begin_1 = BEGIN_AT(L, -4 * sum);          \
        const __m512i begin_2 = BEGIN_AT(L, -16 * sum), begin_all = BEGIN_AT(L, -85 * sum);  \
        EACH_4(BEGIN)                                                                        \
        for (; entries >= at_once; entries -= at_once) {                                     \
            const uint16_t *p0 = index, *p1 = p0 + (INDICES);                                \
            const uint16_t *p2 = p1 + (INDICES), *p3 = p2 + (INDICES);                       \
            (void)p1, (void)p2, (void)p3;                                                    \
            READ(L)                                                                          \
            const __m512i q = VALUES_##L;                                                    \
            EACH_4(MULTIPLY)                                                                 \
            index += at_once * (INDICES);                                                    \
            value += at_once * 4;                                                            \
        }                                                                                    \
        if (at_once > 1 && entries > 0) { /* missing entries: the first one, times zero */   \
            const uint16_t *p0 = index, *p1 = entries > 1 ? p0 + (INDICES) : p0;             \
            const uint16_t *p2 = entries > 2 ? p1 + (INDICES) : p0, *p3 = p0;                \
            (void)p1, (void)p2, (void)p3;                                                    \
            READ(L)                                                                          \
            const __m512i q = _mm512_maskz_mov_epi32(                                        \
                tatvpr_first_lanes(4 * (L) * entries), VALUES_##L);                          \
            EACH_4(MULTIPLY)                                                                 \
        }                                                                                    \
        EACH_4(LEAVE_FIELD_3)                                                                \
        const __m512 s0 = _mm512_set1_ps(o->job->tile->s[t]);                                \
        const __m512 s1 = _mm512_mul_ps(s0, _mm512_set1_ps(0.25f));                          \
        const __m512 s2 = _mm512_mul_ps(s0, _mm512_set1_ps(0.0625f));                        \
        const __m512 s3 = _mm512_mul_ps(s0, _mm512_set1_ps(0.015625f));                      \
        const tatvpr_place p = tatvpr_place_of(o, t);                                        \
        if (p.columns < 64 * (L)) {                                                          \
            enum { how = 0 };                                                                \
            EACH_4(FINISH_##L)                                                               \
        } else if (p.residual == NULL) {                                                     \
            enum { how = TATVPR_WHOLE };                                                     \
            EACH_4(FINISH_##L)                                                               \
        } else {                                                                             \
            enum { how = TATVPR_WHOLE | TATVPR_ADDED };                                      \
            EACH_4(FINISH_##L)                                                               \
        }                                                                                    \
    }

TOKEN(channels_256, 4, CHANNELS, 4)
TOKEN(channels_128, 2, CHANNELS, 4)
TOKEN(channels_64, 1, CHANNELS, 4)
TOKEN(fours_256, 4, FOURS, 1)
TOKEN(fours_128, 2, FOURS, 1)
TOKEN(fours_64, 1, FOURS, 1)

typedef void one_token(const tatvpr_outputs *o, int32_t t, const uint8_t *rows,
                       const uint16_t *index, const int8_t *value, int32_t entries);

/* By L. */
static one_token *const of_channels[5] = {NULL, channels_64, channels_128, NULL, channels_256};
static one_token *const of_fours[5] = {NULL, fours_64, fours_128, NULL, fours_256};

/* ---- a tile by all blocks */

/* Rows of a block, four by four, to the registers that FOURS reads. */
#define TRANSPOSE_BLOCK(V, P, S, L)                                                          \
    for (int32_t k = 0; k < k_rows; k += 4, rows += 64 * (L), to += 64 * (L)) {              \
        const V r0 = P##_loadu_si##S((const void *)rows);                                    \
        const V r1 = P##_loadu_si##S((const void *)(rows + 16 * (L)));                       \
        const V r2 = P##_loadu_si##S((const void *)(rows + 32 * (L)));                       \
        const V r3 = P##_loadu_si##S((const void *)(rows + 48 * (L)));                       \
        const V t0 = P##_unpacklo_epi8(r0, r1), t1 = P##_unpackhi_epi8(r0, r1);              \
        const V t2 = P##_unpacklo_epi8(r2, r3), t3 = P##_unpackhi_epi8(r2, r3);              \
        P##_storeu_si##S((void *)to, P##_unpacklo_epi16(t0, t2));                            \
        P##_storeu_si##S((void *)(to + 16 * (L)), P##_unpackhi_epi16(t0, t2));               \
        P##_storeu_si##S((void *)(to + 32 * (L)), P##_unpacklo_epi16(t1, t3));               \
        P##_storeu_si##S((void *)(to + 48 * (L)), P##_unpackhi_epi16(t1, t3));               \
    }

static void transpose_block(const uint8_t *rows, int32_t k_rows, int32_t lanes, uint8_t *to) {
    if (lanes == 4) {
        TRANSPOSE_BLOCK(__m512i, _mm512, 512, 4)
    } else if (lanes == 2) {
        TRANSPOSE_BLOCK(__m256i, _mm256, 256, 2)
    } else {
        TRANSPOSE_BLOCK(__m128i, _mm, 128, 1)
    }
}

static void multiply(const tatvpr_matmul *job, int fours) {
    const tatvpr_tile *tile = job->tile;
    const int32_t k_rows = tatvpr_avx512_rows(job->op->k_in);
    tatvpr_block_kind kinds[3];
    tatvpr_avx512_blocks(job->op->n_out, kinds);
    const uint8_t *end = job->weight + tatvpr_avx512_prepared_bytes(job->op);
    int32_t first = 0;
    const uint8_t *rows = job->weight;
    for (int k = 0; k < 3; k++) {
        const int32_t lanes = kinds[k].lanes;
        one_token *const multiply_token = fours ? of_fours[lanes] : of_channels[lanes];
        for (int32_t block = 0; block < kinds[k].count; block++) {
            tatvpr_outputs o;
            tatvpr_begin_outputs(&o, job, first, 64 * lanes);
            /* The next block's rows are fetched while this one is multiplied: to the second level,
             * since the first one holds this block. */
            const ptrdiff_t bytes = (ptrdiff_t)k_rows * 16 * lanes;
            tatvpr_fetch next = tatvpr_begin_fetch(rows + bytes, end, bytes, tile->tokens);
            const uint8_t *from = rows;
            if (fours) {
                transpose_block(rows, k_rows, lanes, job->panel);
                from = job->panel;
            }
            for (int32_t t = 0; t < tile->tokens; t++) {
                tatvpr_fetch_share(&next);
                const ptrdiff_t at = (ptrdiff_t)t * tile->list_stride;
                const int32_t count = tile->count[t]; /* single channels: padded to fours */
                multiply_token(&o, t, from, tile->index + at, tile->value + at,
                               fours ? count : (count + 3) / 4);
            }
            first += 64 * lanes;
            rows += bytes;
        }
    }
}

void tatvpr_avx512_sparse(const tatvpr_matmul *job) { multiply(job, 0); }

void tatvpr_avx512_fours(const tatvpr_matmul *job) { multiply(job, 1); }
