/* AVX-512 VNNI: dense ternary matmul, six tokens by 64 outputs, 24 sums. Weights are bytes (codes
 * 0..2, four channels of 16 outputs a register): the first six tokens unpack them as they go, which
 * takes no time of the multiplier's ports, and leave them in a panel for the others.
 *
 * - Sums begin at minus the token's sum of activations, so that the codes' + 1 needs nothing
 *   afterwards.
 * - A tail of one to five tokens runs in one go, each with a kernel of its own: one token alone has
 *   four chains of additions and waits for their latency. */
#include "avx512_epilogue.h"
#include "avx512_unpack.h"
#include "../common/fetch.h"

#define BEGIN(t)                                                              \
    const __m512i minus##t = _mm512_set1_epi32(-tile->sum[token + (t)]);      \
    __m512i a##t = minus##t, b##t = minus##t, c##t = minus##t, d##t = minus##t;

#define STEP(t)                                                             \
    x = _mm512_set1_epi32(tatvpr_four_bytes(q + (t) * tile->q_stride + i)); \
    TATVPR_DP512(a##t, w0, x);                                              \
    TATVPR_DP512(b##t, w1, x);                                              \
    TATVPR_DP512(c##t, w2, x);                                              \
    TATVPR_DP512(d##t, w3, x);

/* Outputs of a block that ends within these 64. */
#define FINISH(t)                                               \
    {                                                           \
        const tatvpr_place p = tatvpr_place_of(o, token + (t)); \
        const __m512 s = _mm512_set1_ps(tile->s[token + (t)]);  \
        tatvpr_write_16(&p, 0, at, a##t, s);                    \
        tatvpr_write_16(&p, 0, at + 16, b##t, s);               \
        tatvpr_write_16(&p, 0, at + 32, c##t, s);               \
        tatvpr_write_16(&p, 0, at + 48, d##t, s);               \
    }

/* Sixteen outputs of all tokens: their constants are read once. */
#define OUTPUTS(sums, t)                                                                     \
    _mm512_add_ps(_mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums##t),                   \
                                              _mm512_set1_ps(tile->s[token + (t)])),         \
                                by_scale), plus_bias)
#define WRITE(sums, n, t) _mm512_storeu_ps(y + (t) * stride + (n), OUTPUTS(sums, t));
#define WRITE_A(t) WRITE(a, 0, t)
#define WRITE_B(t) WRITE(b, 16, t)
#define WRITE_C(t) WRITE(c, 32, t)
#define WRITE_D(t) WRITE(d, 48, t)
#define ADD(sums, n, t)                                                                      \
    _mm512_storeu_ps(y + (t) * stride + (n),                                                 \
                     _mm512_add_ps(_mm512_loadu_ps(residual + (t) * stride + (n)),           \
                                   OUTPUTS(sums, t)));
#define ADD_A(t) ADD(a, 0, t)
#define ADD_B(t) ADD(b, 16, t)
#define ADD_C(t) ADD(c, 32, t)
#define ADD_D(t) ADD(d, 48, t)

#define SIXTEEN(n, EACH, M)                                                                  \
    {                                                                                        \
        const __m512 by_scale = _mm512_loadu_ps(o->scale + at + (n));                        \
        const __m512 plus_bias = _mm512_loadu_ps(o->bias + at + (n));                        \
        EACH(M)                                                                              \
    }

/* w0 to w3 of four channels, and on to the next ones: from the panel, or from packed rows, which
 * fills it. */
#define FROM_PANEL                                     \
    const __m512i w0 = _mm512_loadu_si512(w);          \
    const __m512i w1 = _mm512_loadu_si512(w + 64);     \
    const __m512i w2 = _mm512_loadu_si512(w + 128);    \
    const __m512i w3 = _mm512_loadu_si512(w + 192);

#define FROM_ROWS(L)                    \
    TATVPR_UNPACK_##L(rows)             \
    _mm512_storeu_si512(w, w0);         \
    _mm512_storeu_si512(w + 64, w1);    \
    _mm512_storeu_si512(w + 128, w2);   \
    _mm512_storeu_si512(w + 192, w3);   \
    rows += 64 * (L);

#define KERNEL(name, EACH, READ)                                                             \
    static void name(const tatvpr_outputs *o, int32_t token, int32_t at, int32_t k_rows,     \
                     const uint8_t *rows) {                                                  \
        const tatvpr_tile *tile = o->job->tile;                                              \
        const int8_t *q = tile->q + (ptrdiff_t)token * tile->q_stride;                       \
        uint8_t *w = o->job->panel;                                                          \
        (void)rows;                                                                          \
        EACH(BEGIN)                                                                          \
        for (ptrdiff_t i = 0; i < k_rows; i += 4, w += 256) {                                \
            READ                                                                             \
            __m512i x;                                                                       \
            EACH(STEP)                                                                       \
        }                                                                                    \
        const tatvpr_matmul *job = o->job;                                                   \
        const ptrdiff_t stride = job->y_stride;                                              \
        const ptrdiff_t to = token * stride + o->first + at;                                 \
        float *y = job->y + to;                                                              \
        if (at + 64 > o->columns) {                                                          \
            EACH(FINISH)                                                                     \
        } else if (job->residual == NULL) {                                                  \
            SIXTEEN(0, EACH, WRITE_A) SIXTEEN(16, EACH, WRITE_B)                             \
            SIXTEEN(32, EACH, WRITE_C) SIXTEEN(48, EACH, WRITE_D)                            \
        } else {                                                                             \
            const float *residual = job->residual + to;                                      \
            SIXTEEN(0, EACH, ADD_A) SIXTEEN(16, EACH, ADD_B)                                 \
            SIXTEEN(32, EACH, ADD_C) SIXTEEN(48, EACH, ADD_D)                                \
        }                                                                                    \
    }

KERNEL(tokens_1, EACH_1, FROM_PANEL)
KERNEL(tokens_2, EACH_2, FROM_PANEL)
KERNEL(tokens_3, EACH_3, FROM_PANEL)
KERNEL(tokens_4, EACH_4, FROM_PANEL)
KERNEL(tokens_5, EACH_5, FROM_PANEL)
KERNEL(tokens_6, EACH_6, FROM_PANEL)
KERNEL(unpack_256, EACH_6, FROM_ROWS(4))
KERNEL(unpack_128, EACH_6, FROM_ROWS(2))
KERNEL(unpack_64, EACH_6, FROM_ROWS(1))

/* Of a tile with fewer than six tokens. */
#define UNPACK_ALONE(name, L)                                              \
    static void name(const uint8_t *rows, int32_t k_rows, uint8_t *w) {    \
        for (int32_t i = 0; i < k_rows; i += 4, w += 256) {                \
            FROM_ROWS(L)                                                   \
        }                                                                  \
    }
UNPACK_ALONE(alone_256, 4)
UNPACK_ALONE(alone_128, 2)
UNPACK_ALONE(alone_64, 1)

typedef void some_tokens(const tatvpr_outputs *o, int32_t token, int32_t at, int32_t k_rows,
                         const uint8_t *rows);
static some_tokens *const tail[6] = {NULL, tokens_1, tokens_2, tokens_3, tokens_4, tokens_5};

/* By L. */
static some_tokens *const first_six[5] = {NULL, unpack_64, unpack_128, NULL, unpack_256};
typedef void unpack(const uint8_t *rows, int32_t k_rows, uint8_t *panel);
static unpack *const unpack_alone[5] = {NULL, alone_64, alone_128, NULL, alone_256};

/* All tokens by 64 outputs, number `at` of a block of 64 * lanes on. */
static void all_tokens(const tatvpr_outputs *o, int32_t lanes, int32_t at, int32_t k_rows,
                       const uint8_t *rows, tatvpr_fetch *next) {
    const int32_t tokens = o->job->tile->tokens;
    const uint8_t *part = rows + at / 4 / lanes;
    int32_t t = 0;
    if (tokens >= 6) {
        first_six[lanes](o, 0, at, k_rows, part);
        t = 6;
    } else {
        unpack_alone[lanes](part, k_rows, o->job->panel);
    }
    for (; t + 6 <= tokens; t += 6) {
        tatvpr_fetch_share(next);
        tokens_6(o, t, at, k_rows, NULL);
    }
    tatvpr_fetch_share(next);
    if (t < tokens) {
        tail[tokens - t](o, t, at, k_rows, NULL);
    }
}

void tatvpr_avx512_dense(const tatvpr_matmul *job) {
    const int32_t k_rows = tatvpr_avx512_rows(job->op->k_in);
    tatvpr_block_kind kinds[3];
    tatvpr_avx512_blocks(job->op->n_out, kinds);
    int32_t first = 0;
    const uint8_t *rows = job->weight;
    const uint8_t *end = rows + tatvpr_avx512_prepared_bytes(job->op);
    const int32_t groups = tatvpr_max_i32(job->tile->tokens / 6, 1); /* a share each, by parts */
    for (int k = 0; k < 3; k++) {
        const int32_t lanes = kinds[k].lanes;
        const ptrdiff_t bytes = (ptrdiff_t)k_rows * 16 * lanes;
        for (int32_t block = 0; block < kinds[k].count; block++) {
            tatvpr_outputs o;
            /* The next block's rows: all have come when this one is done. */
            tatvpr_fetch next = tatvpr_begin_fetch(rows + bytes, end, bytes, lanes * groups);
            tatvpr_begin_outputs(&o, job, first, 64 * lanes);
            for (int32_t at = 0; at < o.columns; at += 64) {
                all_tokens(&o, lanes, at, k_rows, rows, &next);
            }
            first += 64 * lanes;
            rows += bytes;
        }
    }
}
