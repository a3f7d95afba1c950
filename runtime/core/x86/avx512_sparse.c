/* AVX-512 VNNI: exact sparse ternary matmul: only the rows of the kept channels are read, four at a
 * time. The rows' packed bytes are transposed four by four; each register then feeds four
 * vpdpbusd: its fields where they lie (factors 1, 4, 16), and the raw byte, from whose sums the
 * other three are taken off to leave the top field (factor 64). Nothing is shifted in the loop.
 *
 * Where channels are kept in aligned fours, all rows of a block are transposed once, to scratch, and
 * a kept four is read from there: four neighbouring registers. */
#include "avx512.h"

/* Sums to outputs 4 L g .. 4 L g + 4 L - 1, stored in order. */
#define STORE(P, S, i)                                                                       \
    P##_storeu_si##S((void *)(acc + (4 * (i)) * width), f0[i]);                              \
    P##_storeu_si##S((void *)(acc + (4 * (i) + 1) * width), P##_srai_epi32(f1[i], 2));       \
    P##_storeu_si##S((void *)(acc + (4 * (i) + 2) * width), P##_srai_epi32(f2[i], 4));       \
    P##_storeu_si##S((void *)(acc + (4 * (i) + 3) * width),                                  \
                     P##_srai_epi32(P##_sub_epi32(all[i], P##_add_epi32(f0[i],               \
                                                  P##_add_epi32(f1[i], f2[i]))), 6));

/* Four rows, whose bytes begin at r0 to r3, to registers of four channels an output. */
#define TRANSPOSE(V, P, S, p0, p1, p2, p3, u)                                                \
    const V r0 = P##_loadu_si##S((const void *)(p0));                                        \
    const V r1 = P##_loadu_si##S((const void *)(p1));                                        \
    const V r2 = P##_loadu_si##S((const void *)(p2));                                        \
    const V r3 = P##_loadu_si##S((const void *)(p3));                                        \
    const V t0 = P##_unpacklo_epi8(r0, r1), t1 = P##_unpackhi_epi8(r0, r1);                  \
    const V t2 = P##_unpacklo_epi8(r2, r3), t3 = P##_unpackhi_epi8(r2, r3);                  \
    const V u[4] = {P##_unpacklo_epi16(t0, t2), P##_unpackhi_epi16(t0, t2),                  \
                    P##_unpacklo_epi16(t1, t3), P##_unpackhi_epi16(t1, t3)};

/* Of a list of channels: four rows anywhere, transposed. */
#define CHANNELS(V, P, S, LANES)                                                             \
    const ptrdiff_t row = 16 * (LANES);                                                      \
    TRANSPOSE(V, P, S, rows + index[0] * row, rows + index[1] * row, rows + index[2] * row,  \
              rows + index[3] * row, u)                                                      \
    index += 4;

/* Of a list of fours: transposed rows. */
#define FOURS(V, P, S, LANES)                                                                \
    const uint8_t *const at = rows + (ptrdiff_t)index[0] * 64 * (LANES);                     \
    const V u[4] = {P##_loadu_si##S((const void *)at),                                       \
                    P##_loadu_si##S((const void *)(at + 16 * (LANES))),                      \
                    P##_loadu_si##S((const void *)(at + 32 * (LANES))),                      \
                    P##_loadu_si##S((const void *)(at + 48 * (LANES)))};                     \
    index += 1;

#define TOKEN(name, V, P, S, DP, LANES, READ)                                                \
    static void name(const uint8_t *rows, const uint16_t *index, const int8_t *value,        \
                     int32_t quads, int32_t *acc) {                                          \
        enum { width = 4 * (LANES) };                                                        \
        const V m0 = P##_set1_epi8(0x03);                                                    \
        const V m1 = P##_set1_epi8(0x0C);                                                    \
        const V m2 = P##_set1_epi8(0x30);                                                    \
        V f0[4], f1[4], f2[4], all[4];                                                       \
        for (int i = 0; i < 4; i++) {                                                        \
            f0[i] = P##_setzero_si##S();                                                     \
            f1[i] = f0[i];                                                                   \
            f2[i] = f0[i];                                                                   \
            all[i] = f0[i];                                                                  \
        }                                                                                    \
        for (int32_t k = 0; k < quads; k++, value += 4) {                                    \
            READ(V, P, S, LANES)                                                             \
            const V q = P##_set1_epi32(tatvpr_four_bytes(value));                            \
            for (int i = 0; i < 4; i++) {                                                    \
                DP(f0[i], P##_and_si##S(u[i], m0), q);                                       \
                DP(f1[i], P##_and_si##S(u[i], m1), q);                                       \
                DP(f2[i], P##_and_si##S(u[i], m2), q);                                       \
                DP(all[i], u[i], q);                                                         \
            }                                                                                \
        }                                                                                    \
        for (int i = 0; i < 4; i++) {                                                        \
            STORE(P, S, i)                                                                   \
        }                                                                                    \
    }

TOKEN(token_256, __m512i, _mm512, 512, TATVPR_DP512, 4, CHANNELS)
TOKEN(token_128, __m256i, _mm256, 256, TATVPR_DP256, 2, CHANNELS)
TOKEN(token_64, __m128i, _mm, 128, TATVPR_DP128, 1, CHANNELS)
TOKEN(fours_256, __m512i, _mm512, 512, TATVPR_DP512, 4, FOURS)
TOKEN(fours_128, __m256i, _mm256, 256, TATVPR_DP256, 2, FOURS)
TOKEN(fours_64, __m128i, _mm, 128, TATVPR_DP128, 1, FOURS)

/* Rows of a block, four by four. */
#define TRANSPOSE_BLOCK(V, P, S, LANES)                                                      \
    for (int32_t k = 0; k < k_rows; k += 4, rows += 64 * (LANES), to += 64 * (LANES)) {      \
        TRANSPOSE(V, P, S, rows, rows + 16 * (LANES), rows + 32 * (LANES),                   \
                  rows + 48 * (LANES), u)                                                    \
        for (int i = 0; i < 4; i++) {                                                        \
            P##_storeu_si##S((void *)(to + 16 * (LANES) * i), u[i]);                         \
        }                                                                                    \
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

typedef void sum_token(const uint8_t *rows, const uint16_t *index, const int8_t *value,
                       int32_t quads, int32_t *acc);

/* Blocks of 64, 128 and 256 outputs. */
static sum_token *const of_channels[5] = {NULL, token_64, token_128, NULL, token_256};
static sum_token *const of_fours[5] = {NULL, fours_64, fours_128, NULL, fours_256};

static void one_token(const tatvpr_outputs *o, int32_t t, const uint8_t *rows, int32_t lanes,
                      int fours) {
    const tatvpr_tile *tile = o->job->tile;
    const ptrdiff_t at = (ptrdiff_t)t * tile->list_stride;
    const int32_t count = tile->count[t];
    int32_t acc[256];
    if (fours) {
        of_fours[lanes](rows, tile->index + at, tile->value + at, count, acc);
    } else { /* the list is padded with zeros */
        of_channels[lanes](rows, tile->index + at, tile->value + at, (count + 3) / 4, acc);
    }
    for (int32_t n = 0; n < 64 * lanes && n < o->columns; n += 16) {
        tatvpr_finish_16(o, t, n, _mm512_loadu_si512((const void *)(acc + n)));
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
        for (int32_t block = 0; block < kinds[k].count; block++) {
            tatvpr_outputs o;
            tatvpr_begin_outputs(&o, job, first, 64 * lanes);
            /* The next block's rows are fetched while this one is multiplied. */
            const ptrdiff_t bytes = (ptrdiff_t)k_rows * 16 * lanes;
            const ptrdiff_t share = bytes / 64 / tile->tokens + 1;
            const uint8_t *next = rows + bytes;
            if (fours) {
                transpose_block(rows, k_rows, lanes, job->panel);
            }
            for (int32_t t = 0; t < tile->tokens; t++) {
                for (ptrdiff_t line = 0; line < share && next < end; line++, next += 64) {
                    __builtin_prefetch(next);
                }
                one_token(&o, t, fours ? job->panel : rows, lanes, fours);
            }
            first += 64 * lanes;
            rows += bytes;
        }
    }
}

void tatvpr_avx512_sparse(const tatvpr_matmul *job) { multiply(job, 0); }

void tatvpr_avx512_fours(const tatvpr_matmul *job) { multiply(job, 1); }
