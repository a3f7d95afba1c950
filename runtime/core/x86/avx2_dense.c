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

/* One token, four channels, sixteen outputs. Written in assembly because compilers otherwise hoist
 * the broadcasts and spill accumulators: 12 accumulators, two weights and two temporaries are all
 * sixteen registers. */
#define STEP(t)                                                                          \
    __asm__("vpbroadcastd %[q], %[x]\n\t"                                                \
            "vpmaddubsw %[x], %[w0], %[y]\n\t"                                           \
            "vpmaddubsw %[x], %[w1], %[x]\n\t"                                           \
            "vpaddw %[y], %[a], %[a]\n\t"                                                \
            "vpaddw %[x], %[b], %[b]"                                                    \
            : [a] "+x"(a##t), [b] "+x"(b##t), [x] "=&x"(x), [y] "=&x"(y)                 \
            : [w0] "x"(w0), [w1] "x"(w1), [q] "m"(*(const int32_t *)(const void *)(q##t + i)));

#define CLEAR(t)                          \
    const int8_t *q##t = q + (t) * stride;  \
    __m256i a##t = _mm256_setzero_si256(); \
    __m256i b##t = _mm256_setzero_si256();

#define WIDEN(t)                                                             \
    acc[2 * (t)] = _mm256_add_epi32(first == 0 ? zero : acc[2 * (t)],        \
                                    _mm256_madd_epi16(a##t, ones));          \
    acc[2 * (t) + 1] = _mm256_add_epi32(first == 0 ? zero : acc[2 * (t) + 1], \
                                        _mm256_madd_epi16(b##t, ones));

/* `count` tokens by 16 outputs: acc[2 t] is outputs 0-3 and 8-11, acc[2 t + 1] the others. */
#define KERNEL(name, EACH)                                                                \
    static void name(const int8_t *q, ptrdiff_t stride, const uint8_t *panel, int32_t quads, \
                     __m256i *acc) {                                                      \
        const __m256i ones = _mm256_set1_epi16(1);                                        \
        const __m256i zero = _mm256_setzero_si256();                                      \
        for (int32_t first = 0; first < quads; first += STEPS) {                          \
            const int32_t end = tatvpr_min_i32(first + STEPS, quads);                     \
            EACH(CLEAR)                                                                   \
            for (ptrdiff_t i = 4 * (ptrdiff_t)first; i < 4 * (ptrdiff_t)end; i += 4) {    \
                const __m256i *w = (const __m256i *)(const void *)(panel + 16 * i);       \
                const __m256i w0 = _mm256_load_si256(w);                                  \
                const __m256i w1 = _mm256_load_si256(w + 1);                              \
                __m256i x;                                                                \
                __m256i y;                                                                \
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

/* A job's 16 columns: what the epilogue needs of them, once. */
typedef struct columns {
    const tatvpr_matmul *job;
    int32_t first;
    int32_t count; /* 1 to 16 */
    __m256 scale[2];
    __m256 bias[2];
} columns;

static columns begin_columns(const tatvpr_matmul *job, int32_t first) {
    columns c;
    float scale[16];
    float bias[16];
    c.job = job;
    c.first = first;
    c.count = tatvpr_min_i32(16, job->op->n_out - first);
    for (int32_t i = 0; i < 16; i++) {
        const int32_t n = first + tatvpr_min_i32(i, c.count - 1);
        scale[i] = job->scale[job->op->scale_per_row ? n : 0];
        bias[i] = job->bias[n];
    }
    c.scale[0] = _mm256_loadu_ps(scale);
    c.scale[1] = _mm256_loadu_ps(scale + 8);
    c.bias[0] = _mm256_loadu_ps(bias);
    c.bias[1] = _mm256_loadu_ps(bias + 8);
    return c;
}

static inline __m256 epilogue(__m256i acc, __m256 s, __m256 scale, __m256 bias) {
    const __m256 v = _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(acc), s), scale);
    return _mm256_add_ps(v, bias);
}

/* y = (acc * s) * scale + bias [+ residual] of one token. */
static inline void write(const columns *c, int32_t t, const __m256i *acc) {
    const tatvpr_matmul *job = c->job;
    const __m256i sum = _mm256_set1_epi32(job->tile->sum[t]);
    const __m256 s = _mm256_set1_ps(job->tile->s[t]);
    const __m256i even = _mm256_sub_epi32(acc[0], sum);
    const __m256i odd = _mm256_sub_epi32(acc[1], sum);
    __m256 low =
        epilogue(_mm256_permute2x128_si256(even, odd, 0x20), s, c->scale[0], c->bias[0]);
    __m256 high =
        epilogue(_mm256_permute2x128_si256(even, odd, 0x31), s, c->scale[1], c->bias[1]);
    const ptrdiff_t at = (ptrdiff_t)t * job->y_stride + c->first;
    if (c->count == 16) {
        if (job->residual != NULL) {
            low = _mm256_add_ps(_mm256_loadu_ps(job->residual + at), low);
            high = _mm256_add_ps(_mm256_loadu_ps(job->residual + at + 8), high);
        }
        _mm256_storeu_ps(job->y + at, low);
        _mm256_storeu_ps(job->y + at + 8, high);
        return;
    }
    float v[16];
    _mm256_storeu_ps(v, low);
    _mm256_storeu_ps(v + 8, high);
    for (int32_t i = 0; i < c->count; i++) {
        job->y[at + i] = job->residual != NULL ? job->residual[at + i] + v[i] : v[i];
    }
}

static void sixteen_outputs(const tatvpr_matmul *job, const uint8_t *panel, int32_t quads,
                            int32_t first) {
    const tatvpr_tile *tile = job->tile;
    const ptrdiff_t stride = tile->q_stride;
    const columns c = begin_columns(job, first);
    for (int32_t t = 0; t < tile->tokens;) {
        const int8_t *q = tile->q + (ptrdiff_t)t * stride;
        const int32_t left = tile->tokens - t;
        __m256i acc[12];
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
        for (int32_t i = 0; i < count; i++) {
            write(&c, t + i, acc + 2 * i);
        }
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
