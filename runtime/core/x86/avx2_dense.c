/* AVX2: dense ternary matmul. Per 64 outputs the weights are unpacked once to bytes (codes 0..2),
 * arranged so that one vpmaddubsw multiplies four channels of eight outputs; then six tokens by
 * sixteen outputs at a time, 12 accumulators in registers.
 *
 * A 16-bit lane grows by at most 2 * 2 * 127 a step of four channels: 64 steps fit, then lanes are
 * widened; not where the activations themselves are small enough for the whole row, as they are as
 * a rule, nor with AVX-VNNI (this file's second compilation), whose sums have 32 bits. The codes
 * are w + 1: the token's sum of activations is taken off at the end.
 */
#include "avx2.h"
#include "avx2_dot.h"
#include "avx2_panel.h"

enum { STEPS = 64, UNROLL = 4 };

static inline __m256i load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* Quads of a row, rounded up to what the loops take at once: activations beyond K are zero. */
static int32_t quads_of(int32_t k_in) {
    return (k_in + 4 * UNROLL - 1) / (4 * UNROLL) * UNROLL;
}

/* Sixteen columns of a job: what the epilogue needs of them. */
typedef struct columns {
    const float *s;
    const int32_t *sum;
    const float *residual; /* at the first column, or null */
    float *y;              /* likewise */
    ptrdiff_t y_stride;
    int32_t count; /* 1 to 16 */
    __m256 scale[2];
    __m256 bias[2];
} columns;

static columns begin_columns(const tatvpr_matmul *job, int32_t first) {
    columns c;
    float scale[16];
    float bias[16];
    c.s = job->tile->s;
    c.sum = job->tile->sum;
    c.residual = job->residual == NULL ? NULL : job->residual + first;
    c.y = job->y + first;
    c.y_stride = job->y_stride;
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

static inline __m256 epilogue(__m256i acc, __m256i sum, __m256 s, __m256 scale, __m256 bias) {
    const __m256 v = _mm256_cvtepi32_ps(_mm256_sub_epi32(acc, sum));
    return _mm256_add_ps(_mm256_mul_ps(_mm256_mul_ps(v, s), scale), bias);
}

/* y = (acc * s) * scale + bias [+ residual] of `tokens` tokens from number `token` on; acc[2 t] is
 * outputs 0-7, acc[2 t + 1] the others. */
static inline void write(const columns *c, int32_t token, int32_t tokens, const __m256i *acc) {
    const float *s = c->s + token;
    const int32_t *sum = c->sum + token;
    const ptrdiff_t stride = c->y_stride;
    const float *residual = c->residual == NULL ? NULL : c->residual + token * stride;
    float *y = c->y + token * stride;
    __m256 v[12];
    for (int32_t t = 0; t < tokens; t++) {
        const __m256i sums = _mm256_set1_epi32(sum[t]);
        const __m256 ss = _mm256_set1_ps(s[t]);
        v[2 * t] = epilogue(acc[2 * t], sums, ss, c->scale[0], c->bias[0]);
        v[2 * t + 1] = epilogue(acc[2 * t + 1], sums, ss, c->scale[1], c->bias[1]);
    }
    if (c->count == 16) {
        for (int32_t t = 0; residual != NULL && t < tokens; t++) {
            v[2 * t] = _mm256_add_ps(_mm256_loadu_ps(residual + t * stride), v[2 * t]);
            v[2 * t + 1] = _mm256_add_ps(_mm256_loadu_ps(residual + t * stride + 8), v[2 * t + 1]);
        }
        for (int32_t t = 0; t < tokens; t++) {
            _mm256_storeu_ps(y + t * stride, v[2 * t]);
            _mm256_storeu_ps(y + t * stride + 8, v[2 * t + 1]);
        }
        return;
    }
    for (int32_t t = 0; t < tokens; t++) {
        float lanes[16];
        _mm256_storeu_ps(lanes, v[2 * t]);
        _mm256_storeu_ps(lanes + 8, v[2 * t + 1]);
        for (int32_t i = 0; i < c->count; i++) {
            y[t * stride + i] =
                residual != NULL ? residual[t * stride + i] + lanes[i] : lanes[i];
        }
    }
}

/* Quad number D after q and w: one token at Q, four channels, sixteen outputs. The loops are
 * written in assembly because compilers otherwise spill accumulators: 12 accumulators, two weights
 * and two temporaries are all sixteen registers. */
#define STEP(D, Q, T)                   \
    "vpbroadcastd 4*" #D Q ", %[x]\n\t" \
    TATVPR_DOTS_CODES("%[a" #T "]", "%[b" #T "]")
#define CLEAR(D, Q, T)                                \
    "vpxor %[a" #T "], %[a" #T "], %[a" #T "]\n\t"    \
    "vpxor %[b" #T "], %[b" #T "], %[b" #T "]\n\t"

/* Rows 0-2 lie `stride` bytes apart from q on, rows 3-5 from r on. */
#define TOKENS1(M, D) M(D, "(%[q])", 0)
#define TOKENS4(M, D) \
    TOKENS1(M, D) M(D, "(%[q],%[stride])", 1) M(D, "(%[q],%[stride],2)", 2) M(D, "(%[r])", 3)
#define TOKENS6(M, D) \
    TOKENS4(M, D) M(D, "(%[r],%[stride])", 4) M(D, "(%[r],%[stride],2)", 5)
#define OUT(T) [a##T] "=&x"(acc[2 * (T)]), [b##T] "=&x"(acc[2 * (T) + 1])
#define OUT1 OUT(0)
#define OUT4 OUT(0), OUT(1), OUT(2), OUT(3)
#define OUT6 OUT4, OUT(4), OUT(5)

#define QUAD(count, D)                    \
    "vmovdqa 64*" #D "(%[w]), %[w0]\n\t"    \
    "vmovdqa 64*" #D "+32(%[w]), %[w1]\n\t" \
    TOKENS##count(STEP, D)

/* Sums of 16 bits of `count` tokens by the panel's bytes up to `end`, UNROLL quads a round. */
#define SUMS(count)                                                                      \
    __asm__ volatile(TOKENS##count(CLEAR, 0)                                             \
            "1:\n\t"                                                                     \
            QUAD(count, 0) QUAD(count, 1) QUAD(count, 2) QUAD(count, 3)                  \
            "add $4*4, %[q]\n\t"                                                         \
            "add $4*4, %[r]\n\t"                                                         \
            "add $64*4, %[w]\n\t"                                                        \
            "cmp %[end], %[w]\n\t"                                                       \
            "jb 1b"                                                                      \
            : OUT##count, [w0] "=&x"(w0), [w1] "=&x"(w1), [x] "=&x"(x), [y] "=&x"(y),    \
              [q] "+r"(q), [r] "+r"(r), [w] "+r"(w)                                      \
            : [stride] "r"(stride), [end] "r"(end), [ones] "m"(ONES)                     \
            : "cc", "memory")

/* `count` tokens from number `token` on by 16 outputs, widened every `steps` quads. */
#define KERNEL(name, count)                                                                  \
    static void name(const tatvpr_tile *tile, const columns *c, int32_t token,               \
                     const uint8_t *panel, int32_t quads, int32_t steps) {                   \
        const ptrdiff_t stride = tile->q_stride;                                             \
        const int8_t *q = tile->q + (ptrdiff_t)token * stride;                               \
        const int8_t *r = (count) > 3 ? q + 3 * stride : q;                                  \
        const uint8_t *w = panel;                                                            \
        const uint8_t *const stop = panel + (ptrdiff_t)quads * 64;                           \
        __m256i acc[2 * (count)], w0, w1, x, y;                                              \
        if (steps >= quads) {                                                                \
            const uint8_t *const end = stop;                                                 \
            SUMS(count);                                                                     \
            for (int32_t j = 0; j < 2 * (count); j++) {                                      \
                acc[j] = widen(acc[j]);                                                      \
            }                                                                                \
            write(c, token, count, acc);                                                     \
            return;                                                                          \
        }                                                                                    \
        __m256i wide[2 * (count)];                                                           \
        for (int32_t j = 0; j < 2 * (count); j++) {                                          \
            wide[j] = _mm256_setzero_si256();                                                \
        }                                                                                    \
        while (w < stop) {                                                                   \
            const ptrdiff_t left = stop - w;                                                 \
            const uint8_t *const end = left > 64 * (ptrdiff_t)steps ? w + 64 * steps : stop; \
            SUMS(count);                                                                     \
            for (int32_t j = 0; j < 2 * (count); j++) {                                      \
                wide[j] = _mm256_add_epi32(wide[j], widen(acc[j]));                          \
            }                                                                                \
        }                                                                                    \
        write(c, token, count, wide);                                                        \
    }

KERNEL(six_tokens, 6)
KERNEL(four_tokens, 4)
KERNEL(one_token, 1)

/* How many quads 16-bit lanes can add before they must be widened: all of them where, for every
 * token, twice the sum of |q| over a lane's channels (two of every four) fits. */
static int32_t steps_of(const tatvpr_tile *tile) {
    const int32_t quads = quads_of(tile->k_in);
#if defined(TATVPR_AVX_VNNI)
    return quads;
#endif
    if (quads <= STEPS || tile->k_in > 4096) { /* the sums here have 16 bits too */
        return STEPS;
    }
    const __m256i ones = _mm256_set1_epi8(1);
    __m256i most = _mm256_setzero_si256();
    for (int32_t t = 0; t < tile->tokens; t++) {
        const int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
        __m256i sums = _mm256_setzero_si256();
        for (int32_t i = 0; i < tile->k_in; i += 32) {
            const __m256i v = load(q + i);
            sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(_mm256_abs_epi8(v), ones));
        }
        /* Each half: eight sums of even (or odd) lanes, added across the register. */
        __m256i even = _mm256_and_si256(sums, _mm256_set1_epi32(0xFFFF));
        __m256i odd = _mm256_srli_epi32(sums, 16);
        __m256i both = _mm256_hadd_epi32(even, odd);
        both = _mm256_add_epi32(both, _mm256_shuffle_epi32(both, 0xB1));
        both = _mm256_add_epi32(both, _mm256_permute2x128_si256(both, both, 0x01));
        most = _mm256_max_epi32(most, both);
    }
    int32_t lanes[8];
    _mm256_storeu_si256((__m256i *)(void *)lanes, most);
    const int32_t largest = tatvpr_max_i32(lanes[0], lanes[2]);
    return 2 * largest <= INT16_MAX ? quads : STEPS;
}

static void sixteen_outputs(const tatvpr_matmul *job, const uint8_t *panel, int32_t quads,
                            int32_t steps, int32_t first) {
    const int32_t tokens = job->tile->tokens;
    const columns c = begin_columns(job, first);
    for (int32_t t = 0; t < tokens;) {
        const int32_t left = tokens - t;
        if (left >= 6 && left != 8) { /* 8 = 4 + 4 beats 6 + 1 + 1 */
            six_tokens(job->tile, &c, t, panel, quads, steps);
            t += 6;
        } else if (left >= 4) {
            four_tokens(job->tile, &c, t, panel, quads, steps);
            t += 4;
        } else {
            one_token(job->tile, &c, t, panel, quads, steps);
            t += 1;
        }
    }
}

void TATVPR_VEX(dense)(const tatvpr_matmul *job) {
    const int32_t n_out = job->op->n_out;
    const int32_t quads = quads_of(job->op->k_in);
    const int32_t steps = steps_of(job->tile);
    const ptrdiff_t sixteen = (ptrdiff_t)quads * 64; /* bytes of a panel of 16 outputs */
    for (int32_t first = 0; first < n_out; first += 64) {
        tatvpr_avx2_unpack_64(job, first, 0, job->op->k_in, sixteen, 64);
        for (int32_t f = 0; f < 4 && first + 16 * f < n_out; f++) {
            sixteen_outputs(job, job->panel + f * sixteen, quads, steps, first + 16 * f);
        }
    }
}
