/* AVX-512 VNNI: dense ternary matmul. Per 64 outputs the weights are unpacked once to bytes (codes
 * 0..2, four channels of 16 outputs a register); then six tokens by 64 outputs, 24 accumulators. */
#include "avx512.h"

/* Bytes of four rows, four channels an output: registers of a block of 256, 128 or 64 outputs. */
static void unpack_256(const uint8_t *rows, int32_t part, int32_t k_rows, uint8_t *panel) {
    const __m512i mask = _mm512_set1_epi8(3);
    for (int32_t k = 0; k < k_rows; k += 4, rows += 256, panel += 256) {
        const __m512i r0 = _mm512_loadu_si512(rows);
        const __m512i r1 = _mm512_loadu_si512(rows + 64);
        const __m512i r2 = _mm512_loadu_si512(rows + 128);
        const __m512i r3 = _mm512_loadu_si512(rows + 192);
        const __m512i a = part < 2 ? _mm512_unpacklo_epi8(r0, r1) : _mm512_unpackhi_epi8(r0, r1);
        const __m512i b = part < 2 ? _mm512_unpacklo_epi8(r2, r3) : _mm512_unpackhi_epi8(r2, r3);
        const __m512i u =
            part % 2 == 0 ? _mm512_unpacklo_epi16(a, b) : _mm512_unpackhi_epi16(a, b);
        _mm512_storeu_si512(panel, _mm512_and_si512(u, mask));
        _mm512_storeu_si512(panel + 64, _mm512_and_si512(_mm512_srli_epi16(u, 2), mask));
        _mm512_storeu_si512(panel + 128, _mm512_and_si512(_mm512_srli_epi16(u, 4), mask));
        _mm512_storeu_si512(panel + 192, _mm512_and_si512(_mm512_srli_epi16(u, 6), mask));
    }
}

/* The smaller blocks, at most one of each in a matrix: plain C. */
static void unpack_small(const uint8_t *rows, int32_t lanes, int32_t half, int32_t k_rows,
                         uint8_t *panel) {
    const int32_t width = 4 * lanes; /* outputs of one field of one part */
    for (int32_t k = 0; k < k_rows; k++, rows += 16 * lanes) {
        for (int32_t m = 0; m < 64; m++) {
            const int32_t n = 64 * half + m;
            const int32_t g = n / width;
            const int32_t byte = n % width / 4 * 16 + g / 4 * 4 + n % 4;
            panel[(ptrdiff_t)(k / 4) * 256 + 4 * m + k % 4] =
                (uint8_t)(rows[byte] >> (2 * (g % 4)) & 3);
        }
    }
}

#define CLEAR(t)                                                      \
    __m512i a##t = _mm512_setzero_si512(), b##t = a##t, c##t = a##t, d##t = a##t;

#define STEP(t)                                                          \
    x = _mm512_set1_epi32(tatvpr_four_bytes(q + (t) * stride + 4 * i));  \
    TATVPR_DP512(a##t, w0, x);                                           \
    TATVPR_DP512(b##t, w1, x);                                           \
    TATVPR_DP512(c##t, w2, x);                                           \
    TATVPR_DP512(d##t, w3, x);

#define FINISH(t)                                       \
    tatvpr_finish_16(o, token + (t), at, a##t);         \
    tatvpr_finish_16(o, token + (t), at + 16, b##t);    \
    tatvpr_finish_16(o, token + (t), at + 32, c##t);    \
    tatvpr_finish_16(o, token + (t), at + 48, d##t);

#define KERNEL(name, EACH)                                                                    \
    static void name(const tatvpr_outputs *o, int32_t token, int32_t at, const uint8_t *panel, \
                     int32_t quads) {                                                         \
        const ptrdiff_t stride = o->job->tile->q_stride;                                      \
        const int8_t *q = o->job->tile->q + (ptrdiff_t)token * stride;                        \
        EACH(CLEAR)                                                                           \
        for (ptrdiff_t i = 0; i < quads; i++, panel += 256) {                                 \
            const __m512i w0 = _mm512_loadu_si512(panel);                                     \
            const __m512i w1 = _mm512_loadu_si512(panel + 64);                                \
            const __m512i w2 = _mm512_loadu_si512(panel + 128);                               \
            const __m512i w3 = _mm512_loadu_si512(panel + 192);                               \
            __m512i x;                                                                        \
            EACH(STEP)                                                                        \
        }                                                                                     \
        EACH(FINISH)                                                                          \
    }

#define EACH6(M) M(0) M(1) M(2) M(3) M(4) M(5)
#define EACH4(M) M(0) M(1) M(2) M(3)
#define EACH1(M) M(0)
KERNEL(six_tokens, EACH6)
KERNEL(four_tokens, EACH4)
KERNEL(one_token, EACH1)

static void sixty_four(const tatvpr_outputs *o, int32_t at, int32_t quads) {
    const int32_t tokens = o->job->tile->tokens;
    const uint8_t *panel = o->job->panel;
    for (int32_t t = 0; t < tokens;) {
        const int32_t left = tokens - t;
        if (left >= 6 && left != 8) { /* 8 = 4 + 4 beats 6 + 1 + 1 */
            six_tokens(o, t, at, panel, quads);
            t += 6;
        } else if (left >= 4) {
            four_tokens(o, t, at, panel, quads);
            t += 4;
        } else {
            one_token(o, t, at, panel, quads);
            t += 1;
        }
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
                if (lanes == 4) {
                    unpack_256(rows, part, k_rows, job->panel);
                } else {
                    unpack_small(rows, lanes, part, k_rows, job->panel);
                }
                sixty_four(&o, 64 * part, k_rows / 4);
            }
            first += 64 * lanes;
            rows += (ptrdiff_t)k_rows * 16 * lanes;
        }
    }
}
