/* AVX2: exact sparse ternary matmul where channels are kept in aligned fours (group = 4 and its
 * multiples). Per 64 outputs the weights are unpacked once, as the dense matmul does it, but so that
 * four channels of all 64 outputs are neighbours; then a kept four costs a token one broadcast and
 * eight multiplications, without interleaving or masks. Long rows are worked off in parts whose
 * unpacked weights stay in the first-level cache; sums of the earlier parts wait in 32 bits.
 *
 * A 16-bit lane grows by at most 2 * 2 * 127 a four: 64 of them fit, then lanes are widened, not so
 * with AVX-VNNI (this file's second compilation), whose sums have 32 bits. The codes are w + 1: the
 * token's sum of activations is taken off at the end.
 */
#include "avx2.h"
#include "avx2_dot.h"
#include "avx2_panel.h"
#include "../common/fours_parts.h"

enum { VECTORS = 8, PART_FOURS = 96 }; /* 24 kB of unpacked weights */

/* How many fours the sums of a lane have room for. */
#if defined(TATVPR_AVX_VNNI)
enum { MOST_FOURS = 65536 / 4 };
#else
enum { MOST_FOURS = 64 };
#endif

/* ---- sums */

#define EACH(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7)
#define CLEAR(J) "vpxor %[a" #J "], %[a" #J "], %[a" #J "]\n\t"
#define STEP(J)                                   \
    "vmovdqa 32*" #J "(%[panel],%[at]), %[w]\n\t" \
    TATVPR_DOT_CODES("%[a" #J "]", "%[w]")
#define FOUR(D)                                   \
    "movzwl 2*" #D "(%[index]), %k[at]\n\t"       \
    "vpbroadcastd 4*" #D "(%[value]), %[x]\n\t"   \
    "shl $8, %[at]\n\t"                           \
    EACH(STEP)
#define OUT(J) [a##J] "=&x"(acc[J]),

#define NEXT(COUNT)                   \
    "add $2*" #COUNT ", %[index]\n\t" \
    "add $4*" #COUNT ", %[value]\n\t"

/* Sums of `count` fours, not yet widened: one, two and four of them where the count is odd so, then
 * eights. In assembly, because compilers otherwise delay the additions and spill. `panel` is where
 * the weights of four number 0 are, or would be. */
static inline __attribute__((always_inline)) void sum_fours(uintptr_t panel,
                                                            const uint16_t *index,
                                                            const int8_t *value, int32_t count,
                                                            __m256i *acc /* [VECTORS] */) {
    __m256i x, y, w;
    ptrdiff_t at;
    __asm__ volatile(
        EACH(CLEAR)
        "test $1, %[count]\n\t"
        "jz 1f\n\t"
        FOUR(0) NEXT(1)
        "1:\n\t"
        "test $2, %[count]\n\t"
        "jz 2f\n\t"
        FOUR(0) FOUR(1) NEXT(2)
        "2:\n\t"
        "test $4, %[count]\n\t"
        "jz 3f\n\t"
        FOUR(0) FOUR(1) FOUR(2) FOUR(3) NEXT(4)
        "3:\n\t"
        "sub $8, %[count]\n\t"
        "jl 5f\n\t"
        ".p2align 4\n"
        "4:\n\t"
        FOUR(0) FOUR(1) FOUR(2) FOUR(3) FOUR(4) FOUR(5) FOUR(6) FOUR(7) NEXT(8)
        "sub $8, %[count]\n\t"
        "jge 4b\n\t"
        "5:"
        : EACH(OUT) [x] "=&x"(x), [y] "=&x"(y), [w] "=&x"(w), [at] "=&r"(at),
          [index] "+&r"(index), [value] "+&r"(value), [count] "+&r"(count)
        : [panel] "r"(panel), [ones] "m"(ONES)
        : "cc", "memory");
}

/* Entries from .. end - 1 of a token's list onto `wide`: any number. */
static __attribute__((noinline)) void add_fours(const tatvpr_tile *tile, int32_t t,
                                                uintptr_t panel, int32_t from, int32_t end,
                                                __m256i *wide /* [VECTORS] */) {
    const ptrdiff_t list = (ptrdiff_t)t * tile->list_stride;
    for (; from < end; from += MOST_FOURS) {
        __m256i acc[VECTORS];
        sum_fours(panel, tile->index + list + from, tile->value + list + 4 * (ptrdiff_t)from,
                  tatvpr_min_i32(end - from, MOST_FOURS), acc);
        for (int32_t j = 0; j < VECTORS; j++) {
            wide[j] = _mm256_add_epi32(wide[j], widen(acc[j]));
        }
    }
}

/* ---- outputs */

/* 64 outputs of a job; scales and biases where they lie, or padded. */
typedef struct outputs {
    const tatvpr_matmul *job;
    int32_t first;
    int32_t columns; /* that exist */
    const float *scale;
    const float *bias;
    float padded[128];
} outputs;

static void begin_outputs(outputs *o, const tatvpr_matmul *job, int32_t first) {
    o->job = job;
    o->first = first;
    o->columns = tatvpr_min_i32(64, job->op->n_out - first);
    const int whole = o->columns == 64;
    o->scale = whole && job->op->scale_per_row ? job->scale + first : o->padded;
    o->bias = whole ? job->bias + first : o->padded + 64;
    for (int32_t i = 0; i < 64 && o->scale == o->padded; i++) {
        const int32_t n = first + tatvpr_min_i32(i, o->columns - 1);
        o->padded[i] = job->scale[job->op->scale_per_row ? n : 0];
    }
    for (int32_t i = 0; i < 64 && !whole; i++) {
        o->padded[64 + i] = job->bias[first + tatvpr_min_i32(i, o->columns - 1)];
    }
}

/* (acc * s) * scale + bias of outputs 8 j to 8 j + 7 */
static inline __m256 epilogue(const outputs *o, int32_t j, __m256i acc, __m256i sum, __m256 s) {
    const __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(acc, sum)), s);
    return _mm256_add_ps(_mm256_mul_ps(v, _mm256_loadu_ps(o->scale + 8 * j)),
                         _mm256_loadu_ps(o->bias + 8 * j));
}

/* y = (acc * s) * scale + bias [+ residual] of token t */
static inline __attribute__((always_inline)) void write(const outputs *o, int32_t t,
                                                        const __m256i *acc) {
    const tatvpr_matmul *job = o->job;
    const ptrdiff_t at = (ptrdiff_t)t * job->y_stride + o->first;
    const __m256i sum = _mm256_set1_epi32(job->tile->sum[t]);
    const __m256 s = _mm256_set1_ps(job->tile->s[t]);
    float *y = job->y + at;
    if (job->residual == NULL) {
        for (int32_t j = 0; j < VECTORS; j++) {
            _mm256_storeu_ps(y + 8 * j, epilogue(o, j, acc[j], sum, s));
        }
        return;
    }
    const float *residual = job->residual + at;
    for (int32_t j = 0; j < VECTORS; j++) {
        _mm256_storeu_ps(y + 8 * j,
                         _mm256_add_ps(_mm256_loadu_ps(residual + 8 * j),
                                       epilogue(o, j, acc[j], sum, s)));
    }
}

/* The same for outputs of which some do not exist. */
static __attribute__((noinline)) void write_some(const outputs *o, int32_t t,
                                                 const __m256i *acc) {
    const tatvpr_matmul *job = o->job;
    const ptrdiff_t at = (ptrdiff_t)t * job->y_stride + o->first;
    const __m256i sum = _mm256_set1_epi32(job->tile->sum[t]);
    float lanes[64];
    for (int32_t j = 0; j < VECTORS; j++) {
        _mm256_storeu_ps(lanes + 8 * j,
                         epilogue(o, j, acc[j], sum, _mm256_set1_ps(job->tile->s[t])));
    }
    for (int32_t i = 0; i < o->columns; i++) {
        job->y[at + i] = job->residual != NULL ? job->residual[at + i] + lanes[i] : lanes[i];
    }
}

/* ---- tiles */

/* All tokens by one part of the channels of 64 outputs. `sums` are those of the earlier parts. */
static inline __attribute__((always_inline)) void multiply_part(const outputs *o, const tatvpr_parts *p,
                                                                int32_t part,
                                                                __m256i (*sums)[VECTORS]) {
    const tatvpr_tile *tile = o->job->tile;
    const uintptr_t panel = (uintptr_t)o->job->panel - (uintptr_t)(part * p->fours) * 256;
    const int last = part == p->count - 1;
    for (int32_t t = 0; t < tile->tokens; t++) {
        const int32_t from = tatvpr_part_begin(p, part, t);
        const int32_t count = p->end[part][t] - from;
        __m256i acc[VECTORS];
        if (count <= MOST_FOURS && o->columns == 64) {
            const ptrdiff_t list = (ptrdiff_t)t * tile->list_stride;
            sum_fours(panel, tile->index + list + from, tile->value + list + 4 * (ptrdiff_t)from,
                      count, acc);
            for (int32_t j = 0; j < VECTORS; j++) {
                acc[j] = part == 0 ? widen(acc[j]) : _mm256_add_epi32(sums[t][j], widen(acc[j]));
            }
            if (last) {
                write(o, t, acc);
                continue;
            }
            for (int32_t j = 0; j < VECTORS; j++) {
                sums[t][j] = acc[j];
            }
            continue;
        }
        for (int32_t j = 0; j < VECTORS && part == 0; j++) {
            sums[t][j] = _mm256_setzero_si256();
        }
        add_fours(tile, t, panel, from, from + count, sums[t]);
        if (last) {
            write_some(o, t, sums[t]);
        }
    }
}

void TATVPR_VEX(fours)(const tatvpr_matmul *job) {
    __m256i sums[TATVPR_TILE_TOKENS][VECTORS];
    tatvpr_parts p;
    tatvpr_divide(&p, job->tile, PART_FOURS);
    for (int32_t first = 0; first < job->op->n_out; first += 64) {
        outputs o;
        begin_outputs(&o, job, first);
        for (int32_t part = 0; part < p.count; part++) {
            const int32_t k = part * p.fours * 4;
            const int32_t channels = tatvpr_min_i32(p.fours * 4, job->op->k_in - k);
            tatvpr_avx2_unpack_64(job, first, k, channels, 64, 256);
            if (part == 0) {
                multiply_part(&o, &p, 0, sums);
            } else {
                multiply_part(&o, &p, part, sums);
            }
        }
    }
}
