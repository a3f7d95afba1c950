/* AVX-512 VNNI: dense ternary matmul. Per 64 outputs the weights are unpacked once to bytes (codes
 * 0..2, four channels of 16 outputs a register); then six tokens by 64 outputs, 24 sums.
 *
 * - Sums begin at minus the token's sum of activations, so that the codes' + 1 needs nothing
 *   afterwards.
 * - A tail of one to five tokens runs in one go, each with a kernel of its own: one token alone has
 *   four chains of additions and waits for their latency. */
#include "avx512_epilogue.h"
#include "avx512_unpack.h"

#define BEGIN(t)                                                              \
    const __m512i minus##t = _mm512_set1_epi32(-tile->sum[token + (t)]);      \
    __m512i a##t = minus##t, b##t = minus##t, c##t = minus##t, d##t = minus##t;

#define STEP(t)                                                             \
    x = _mm512_set1_epi32(tatvpr_four_bytes(q + (t) * tile->q_stride + i)); \
    TATVPR_DP512(a##t, w0, x);                                              \
    TATVPR_DP512(b##t, w1, x);                                              \
    TATVPR_DP512(c##t, w2, x);                                              \
    TATVPR_DP512(d##t, w3, x);

#define FINISH(t)                                                 \
    {                                                             \
        const tatvpr_place p = tatvpr_place_of(o, token + (t));   \
        const __m512 s = _mm512_set1_ps(tile->s[token + (t)]);    \
        tatvpr_write_16(&p, how, at, a##t, s);                    \
        tatvpr_write_16(&p, how, at + 16, b##t, s);               \
        tatvpr_write_16(&p, how, at + 32, c##t, s);               \
        tatvpr_write_16(&p, how, at + 48, d##t, s);               \
    }

#define KERNEL(name, EACH)                                                                   \
    static void name(const tatvpr_outputs *o, int32_t token, int32_t at, int32_t k_rows) {   \
        const tatvpr_tile *tile = o->job->tile;                                              \
        const int8_t *q = tile->q + (ptrdiff_t)token * tile->q_stride;                       \
        const uint8_t *w = o->job->panel;                                                    \
        EACH(BEGIN)                                                                          \
        for (ptrdiff_t i = 0; i < k_rows; i += 4, w += 256) {                                \
            const __m512i w0 = _mm512_loadu_si512(w);                                        \
            const __m512i w1 = _mm512_loadu_si512(w + 64);                                   \
            const __m512i w2 = _mm512_loadu_si512(w + 128);                                  \
            const __m512i w3 = _mm512_loadu_si512(w + 192);                                  \
            __m512i x;                                                                       \
            EACH(STEP)                                                                       \
        }                                                                                    \
        if (at + 64 > o->columns) {                                                          \
            enum { how = 0 };                                                                \
            EACH(FINISH)                                                                     \
        } else if (o->job->residual == NULL) {                                               \
            enum { how = TATVPR_WHOLE };                                                     \
            EACH(FINISH)                                                                     \
        } else {                                                                             \
            enum { how = TATVPR_WHOLE | TATVPR_ADDED };                                      \
            EACH(FINISH)                                                                     \
        }                                                                                    \
    }

#define EACH_1(M) M(0)
#define EACH_2(M) EACH_1(M) M(1)
#define EACH_3(M) EACH_2(M) M(2)
#define EACH_4(M) EACH_3(M) M(3)
#define EACH_5(M) EACH_4(M) M(4)
#define EACH_6(M) EACH_5(M) M(5)
KERNEL(tokens_1, EACH_1)
KERNEL(tokens_2, EACH_2)
KERNEL(tokens_3, EACH_3)
KERNEL(tokens_4, EACH_4)
KERNEL(tokens_5, EACH_5)
KERNEL(tokens_6, EACH_6)

typedef void some_tokens(const tatvpr_outputs *o, int32_t token, int32_t at, int32_t k_rows);
static some_tokens *const tail[6] = {NULL, tokens_1, tokens_2, tokens_3, tokens_4, tokens_5};

/* All tokens by the 64 outputs that the panel holds, number `at` of the block on. */
static void all_tokens(const tatvpr_outputs *o, int32_t at, int32_t k_rows) {
    const int32_t tokens = o->job->tile->tokens;
    int32_t t = 0;
    for (; t + 6 <= tokens; t += 6) {
        tokens_6(o, t, at, k_rows);
    }
    if (t < tokens) {
        tail[tokens - t](o, t, at, k_rows);
    }
}

void tatvpr_avx512_dense(const tatvpr_matmul *job) {
    const int32_t k_rows = tatvpr_avx512_rows(job->op->k_in);
    tatvpr_block_kind kinds[3];
    tatvpr_avx512_blocks(job->op->n_out, kinds);
    int32_t first = 0;
    const uint8_t *rows = job->weight;
    for (int k = 0; k < 3; k++) {
        const int32_t lanes = kinds[k].lanes;
        for (int32_t block = 0; block < kinds[k].count; block++) {
            tatvpr_outputs o;
            tatvpr_begin_outputs(&o, job, first, 64 * lanes);
            for (int32_t part = 0; part < lanes && 64 * part < o.columns; part++) {
                tatvpr_unpack(rows, lanes, part, k_rows, job->panel);
                all_tokens(&o, 64 * part, k_rows);
            }
            first += 64 * lanes;
            rows += (ptrdiff_t)k_rows * 16 * lanes;
        }
    }
}
