/* AVX2: dense ternary matmul. Per 64 outputs the weights are unpacked once to bytes (codes 0..2),
 * arranged so that one vpmaddubsw multiplies four channels of eight outputs; then six tokens by
 * sixteen outputs at a time, 12 accumulators in registers.
 *
 * A 16-bit lane grows by at most 2 * 2 * 127 a step of four channels: 64 steps fit, then lanes are
 * widened. The codes are w + 1: the token's sum of activations is taken off at the end.
 */
#include "avx2.h"

enum { STEPS = 64 };

/* 64 outputs of a block to four panels of 16 outputs: [4][rows / 4][64 bytes]. */
static void unpack(const uint8_t *rows, int32_t stride, int32_t upper, int32_t k_rows,
                   uint8_t *panel) {
    const __m256i mask = _mm256_set1_epi8(3);
    const ptrdiff_t field_bytes = (ptrdiff_t)k_rows / 4 * 64;
    for (int32_t k = 0; k < k_rows; k += 4, rows += 4 * stride, panel += 64) {
        __m256i r[4];
        for (int i = 0; i < 4; i++) {
            if (stride == 32) {
                r[i] = _mm256_load_si256((const __m256i *)(const void *)(rows + 32 * i));
            } else { /* 16 bytes: outputs 0-7 to the low lane, 8-15 to the high one */
                r[i] = _mm256_permute4x64_epi64(
                    _mm256_castsi128_si256(
                        _mm_load_si128((const __m128i *)(const void *)(rows + 16 * i))),
                    0x50);
            }
            r[i] = upper ? _mm256_srli_si256(r[i], 8) : r[i];
        }
        const __m256i ab = _mm256_unpacklo_epi8(r[0], r[1]);
        const __m256i cd = _mm256_unpacklo_epi8(r[2], r[3]);
        const __m256i low = _mm256_unpacklo_epi16(ab, cd);  /* outputs 0-3 and 8-11 */
        const __m256i high = _mm256_unpackhi_epi16(ab, cd); /* outputs 4-7 and 12-15 */
        for (int f = 0; f < 4; f++) {
            uint8_t *to = panel + f * field_bytes;
            _mm256_store_si256((__m256i *)(void *)to,
                               _mm256_and_si256(_mm256_srli_epi16(low, 2 * f), mask));
            _mm256_store_si256((__m256i *)(void *)(to + 32),
                               _mm256_and_si256(_mm256_srli_epi16(high, 2 * f), mask));
        }
    }
}

static inline __m256i four(const int8_t *q) {
    int32_t v;
    __builtin_memcpy(&v, q, sizeof(v));
    return _mm256_set1_epi32(v);
}

#define STEP(t)                                                        \
    x = four(q + (t) * stride + 4 * i);                                \
    a##t = _mm256_add_epi16(a##t, _mm256_maddubs_epi16(w0, x));        \
    b##t = _mm256_add_epi16(b##t, _mm256_maddubs_epi16(w1, x));

#define CLEAR(t)                          \
    __m256i a##t = _mm256_setzero_si256(); \
    __m256i b##t = _mm256_setzero_si256();

#define WIDEN(t)                                                                          \
    acc[2 * (t)] = _mm256_add_epi32(acc[2 * (t)], _mm256_madd_epi16(a##t, ones));         \
    acc[2 * (t) + 1] = _mm256_add_epi32(acc[2 * (t) + 1], _mm256_madd_epi16(b##t, ones));

/* `count` tokens by 16 outputs: acc[2 t] is outputs 0-3 and 8-11, acc[2 t + 1] the others. */
#define KERNEL(name, EACH)                                                                \
    static void name(const int8_t *q, ptrdiff_t stride, const uint8_t *panel, int32_t quads, \
                     __m256i *acc) {                                                      \
        const __m256i ones = _mm256_set1_epi16(1);                                        \
        for (int32_t first = 0; first < quads; first += STEPS) {                          \
            const int32_t end = tatvpr_min_i32(first + STEPS, quads);                     \
            EACH(CLEAR)                                                                   \
            for (int32_t i = first; i < end; i++) {                                       \
                const __m256i *w = (const __m256i *)(const void *)(panel + 64 * (ptrdiff_t)i); \
                const __m256i w0 = _mm256_load_si256(w);                                  \
                const __m256i w1 = _mm256_load_si256(w + 1);                              \
                __m256i x;                                                                \
                EACH(STEP)                                                                \
            }                                                                             \
            EACH(WIDEN)                                                                   \
        }                                                                                 \
    }

#define EACH6(M) M(0) M(1) M(2) M(3) M(4) M(5)
#define EACH4(M) M(0) M(1) M(2) M(3)
#define EACH1(M) M(0)
KERNEL(six_tokens, EACH6)
KERNEL(four_tokens, EACH4)
KERNEL(one_token, EACH1)

/* Columns first .. first + 16 of tokens t .. t + count, from their accumulators. */
static void write(const tatvpr_matmul *job, int32_t t, int32_t count, int32_t first,
                  const __m256i *acc) {
    const int32_t columns = tatvpr_min_i32(16, job->op->n_out - first);
    for (int32_t i = 0; i < count; i++) {
        float *y = job->y + (ptrdiff_t)(t + i) * job->y_stride + first;
        const float *residual =
            job->residual == NULL ? NULL : job->residual + (ptrdiff_t)(t + i) * job->y_stride + first;
        const __m256i sum = _mm256_set1_epi32(job->tile->sum[t + i]);
        const __m256i even = _mm256_sub_epi32(acc[2 * i], sum);
        const __m256i odd = _mm256_sub_epi32(acc[2 * i + 1], sum);
        __m256i part[2];
        part[0] = _mm256_permute2x128_si256(even, odd, 0x20);
        part[1] = _mm256_permute2x128_si256(even, odd, 0x31);
        for (int h = 0; h < 2; h++) {
            tatvpr_avx2_write_8(job, t + i, first + 8 * h, columns - 8 * h, part[h], y + 8 * h,
                                residual == NULL ? NULL : residual + 8 * h);
        }
    }
}

static void sixteen_outputs(const tatvpr_matmul *job, const uint8_t *panel, int32_t quads,
                            int32_t first) {
    const tatvpr_tile *tile = job->tile;
    const ptrdiff_t stride = tile->q_stride;
    int32_t t = 0;
    while (t < tile->tokens) {
        const int8_t *q = tile->q + (ptrdiff_t)t * stride;
        const int32_t left = tile->tokens - t;
        __m256i acc[12];
        for (int i = 0; i < 12; i++) {
            acc[i] = _mm256_setzero_si256();
        }
        int32_t count = 1;
        if (left >= 6 && left != 8) { /* 8 = 4 + 4 beats 6 + 1 + 1 */
            count = 6;
            six_tokens(q, stride, panel, quads, acc);
        } else if (left >= 4) {
            count = 4;
            four_tokens(q, stride, panel, quads, acc);
        } else {
            one_token(q, stride, panel, quads, acc);
        }
        write(job, t, count, first, acc);
        t += count;
    }
}

void tatvpr_avx2_dense(const tatvpr_matmul *job) {
    const int32_t n_out = job->op->n_out;
    const int32_t k_rows = tatvpr_avx2_rows(job->op->k_in);
    int32_t half = 0;
    const int32_t blocks = tatvpr_avx2_blocks(n_out, &half);
    for (int32_t first = 0; first < n_out; first += 64) {
        const int32_t block = first / 128;
        const uint8_t *rows = job->weight + (ptrdiff_t)block * k_rows * 32;
        unpack(rows, block < blocks ? 32 : 16, first % 128 != 0, k_rows, job->panel);
        for (int32_t f = 0; f < 4 && first + 16 * f < n_out; f++) {
            sixteen_outputs(job, job->panel + (ptrdiff_t)f * k_rows / 4 * 64, k_rows / 4,
                            first + 16 * f);
        }
    }
}
