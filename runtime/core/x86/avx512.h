/* What the AVX-512 VNNI kernels share. They need F, BW, VL, DQ, VNNI, VBMI and VBMI2 (Ice Lake,
 * Zen 4 and later).
 *
 * Prepared weights: blocks of 256 outputs, then at most one of 128, then at most one of 64. Inside
 * a block of 64 L outputs (L = 4, 2, 1), rows by input channel: 16 L bytes with four 2-bit codes
 * w + 1 each. Rows are padded to a multiple of 4, missing outputs are code 1.
 *
 * Output n of a block is field f of byte 16 l + 4 i + d, where n / (4 L) = 4 i + f,
 * n % (4 L) = 4 l + d. Interleaving four rows' bytes by lanes then gives registers i = 0..3 of four
 * channels an output, in each of which field f is 4 L neighbouring outputs.
 *
 * TATVPR_SIMDE (tests on machines without these instructions) spells them in plain C.
 */
#ifndef TATVPR_AVX512_H
#define TATVPR_AVX512_H

#include "../common/core.h"

#if defined(TATVPR_SIMDE)
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

static inline __m512 tatvpr_to_floats(__m512i v) {
    int32_t from[16];
    float to[16];
    _mm512_storeu_si512(from, v);
    for (int i = 0; i < 16; i++) {
        to[i] = (float)from[i];
    }
    return _mm512_loadu_ps(to);
}

static inline __m512i tatvpr_shift_right(__m512i v, int bits) {
    int32_t lanes[16];
    _mm512_storeu_si512(lanes, v);
    for (int i = 0; i < 16; i++) {
        lanes[i] >>= bits;
    }
    return _mm512_loadu_si512(lanes);
}
#define _mm512_srai_epi32 tatvpr_shift_right /* what this SIMDe lacks */

static inline __m512i tatvpr_bytes_to_words(__m256i v) {
    uint8_t from[32];
    uint16_t to[32];
    _mm256_storeu_si256((__m256i *)(void *)from, v);
    for (int i = 0; i < 32; i++) {
        to[i] = from[i];
    }
    return _mm512_loadu_si512(to);
}
#else
#include <immintrin.h>

static inline __m512 tatvpr_to_floats(__m512i v) { return _mm512_cvtepi32_ps(v); }
static inline __m512i tatvpr_bytes_to_words(__m256i v) { return _mm512_cvtepu8_epi16(v); }
#endif

enum { TATVPR_MOST_BLOCKS = 3 };

typedef struct tatvpr_block_kind {
    int32_t lanes;  /* L */
    int32_t count;  /* blocks of this kind: all of L = 4 come first, then L = 2, then L = 1 */
} tatvpr_block_kind;

static inline int32_t tatvpr_avx512_rows(int32_t k_in) { return (k_in + 3) / 4 * 4; }

static inline void tatvpr_avx512_blocks(int32_t n_out, tatvpr_block_kind kinds[3]) {
    const int32_t left = n_out % 256;
    kinds[0].lanes = 4;
    kinds[1].lanes = 2;
    kinds[2].lanes = 1;
    kinds[0].count = n_out / 256 + (left > 192);
    kinds[1].count = left <= 192 && left > 64;
    kinds[2].count = (left > 0 && left <= 64) || (left > 128 && left <= 192);
}

size_t tatvpr_avx512_prepared_bytes(const tatvpr_ternary *op);
void tatvpr_avx512_prepare(const tatvpr_ternary *op, const uint8_t *stored, uint8_t *prepared);
void tatvpr_avx512_select(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t group, int32_t list);
void tatvpr_avx512_dense(const tatvpr_matmul *job);
void tatvpr_avx512_sparse(const tatvpr_matmul *job);
void tatvpr_avx512_fours(const tatvpr_matmul *job);

/* acc += four products of u8 codes and s8 activations a lane. Assembly where it can be, because
 * compilers spill accumulators around the intrinsic. */
#if defined(TATVPR_SIMDE)
#define TATVPR_DP512(acc, w, q) acc = _mm512_dpbusd_epi32(acc, w, q)
#define TATVPR_DP256(acc, w, q) acc = _mm256_dpbusd_epi32(acc, w, q)
#define TATVPR_DP128(acc, w, q) acc = _mm_dpbusd_epi32(acc, w, q)
#else
#define TATVPR_DP512(acc, w, q) __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(q))
#define TATVPR_DP256 TATVPR_DP512
#define TATVPR_DP128 TATVPR_DP512
#endif

static inline int32_t tatvpr_four_bytes(const void *p) {
    int32_t v;
    __builtin_memcpy(&v, p, sizeof(v));
    return v;
}

/* The epilogue's constants of 256 outputs, in the job's scratch after an unpacked panel's 64 K. */
typedef struct tatvpr_outputs {
    const tatvpr_matmul *job;
    int32_t first;
    int32_t columns;       /* that exist */
    float scale[256];
    float bias[256];
} tatvpr_outputs;

static inline void tatvpr_begin_outputs(tatvpr_outputs *o, const tatvpr_matmul *job, int32_t first,
                                        int32_t count) {
    o->job = job;
    o->first = first;
    o->columns = tatvpr_min_i32(count, job->op->n_out - first);
    for (int32_t i = 0; i < count; i++) {
        const int32_t n = first + tatvpr_min_i32(i, o->columns - 1);
        o->scale[i] = job->scale[job->op->scale_per_row ? n : 0];
        o->bias[i] = job->bias[n];
    }
}

/* 16 outputs from number `at` of the block on, for token t: y = (acc * s) * scale + bias
 * [+ residual], from sums that still carry the codes' + 1. */
static inline void tatvpr_finish_16(const tatvpr_outputs *o, int32_t t, int32_t at, __m512i acc) {
    const tatvpr_matmul *job = o->job;
    const ptrdiff_t to = (ptrdiff_t)t * job->y_stride + o->first + at;
    const __m512i sum = _mm512_set1_epi32(job->tile->sum[t]);
    __m512 v = tatvpr_to_floats(_mm512_sub_epi32(acc, sum));
    v = _mm512_mul_ps(_mm512_mul_ps(v, _mm512_set1_ps(job->tile->s[t])),
                      _mm512_loadu_ps(o->scale + at));
    v = _mm512_add_ps(v, _mm512_loadu_ps(o->bias + at));
    if (at + 16 <= o->columns) {
        if (job->residual != NULL) {
            v = _mm512_add_ps(_mm512_loadu_ps(job->residual + to), v);
        }
        _mm512_storeu_ps(job->y + to, v);
        return;
    }
    float lanes[16];
    _mm512_storeu_ps(lanes, v);
    for (int32_t i = 0; i < o->columns - at; i++) { /* negative: nothing is left */
        job->y[to + i] = job->residual != NULL ? job->residual[to + i] + lanes[i] : lanes[i];
    }
}

#endif
