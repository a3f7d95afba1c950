/* What the AVX2 kernels share: the layout of prepared weights, and float functions by eights.
 *
 * Prepared weights: blocks of 128 outputs, then (where 1 to 64 are left) one block of 64. Inside a
 * block, rows by input channel: 32 (or 16) bytes with four 2-bit codes w + 1 each, so that the
 * kernels, which read whole rows, touch only the kept channels. Rows are padded to a multiple of 4,
 * missing outputs are code 1 (weight zero).
 *
 * Output n of a block: field f = n / 16 % 4 (bits 2f, 2f + 1) of byte
 * (n % 16 / 8) * 16 + (n / 64) * 8 + n % 8 in a block of 128, of byte n % 16 in a block of 64.
 * Interleaving two rows' bytes by lanes then gives 16 neighbouring outputs an instruction.
 */
#ifndef TATVPR_AVX2_H
#define TATVPR_AVX2_H

#include <immintrin.h>

#include "../common/core.h"
#include "../common/floats.h"

static inline int32_t tatvpr_avx2_rows(int32_t k_in) { return (k_in + 3) / 4 * 4; }

/* Blocks of 128, and 1 if a block of 64 follows them. */
static inline int32_t tatvpr_avx2_blocks(int32_t n_out, int32_t *half) {
    const int32_t left = n_out % 128;
    *half = left > 0 && left <= 64;
    return n_out / 128 + (left > 64);
}

/* Codes of the four outputs `step` apart that share a byte, `output` first, for all channels: one
 * byte every `stride`. Outputs beyond the matrix and rows beyond K are code 1. */
void tatvpr_x86_write_four(const tatvpr_ternary *op, const uint8_t *stored, int32_t output,
                           int32_t step, uint8_t *to, int32_t stride);

size_t tatvpr_avx2_prepared_bytes(const tatvpr_ternary *op);
void tatvpr_avx2_prepare(const tatvpr_ternary *op, const uint8_t *stored, uint8_t *prepared);
float tatvpr_avx2_quantise(const float *x, int32_t k_in, int8_t *q);
void tatvpr_avx2_select(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t group, int32_t list);
void tatvpr_avx2_layer_norm(const float *x, const float *gamma, const float *beta, float eps,
                            int32_t dim, float *y);
void tatvpr_avx2_gelu(const float *x, int32_t count, float *y);
void tatvpr_avx2_dense(const tatvpr_matmul *job);
void tatvpr_avx2_sparse(const tatvpr_matmul *job);
float tatvpr_avx2_sparse_below(const tatvpr_ternary *op, int32_t group);
void tatvpr_avx2_patch_embed(const tatvpr_patch_job *job);
void tatvpr_avx2_attention(const tatvpr_head_job *job);
void tatvpr_avx2_dot_i8(const int8_t *query, const int8_t *rows, int32_t dim, int32_t stride,
                        int32_t count, int32_t *dot);
void tatvpr_avx2_hamming(const uint8_t *query, const uint8_t *rows, int32_t bytes, int32_t stride,
                         int32_t count, int32_t *distance);

static inline int32_t tatvpr_sum_epi32(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1));
    return _mm_cvtsi128_si32(s);
}

static inline float tatvpr_max_ps(__m256 v) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    m = _mm_max_ss(m, _mm_movehdup_ps(m));
    return _mm_cvtss_f32(m);
}

/* Partial sums 0-7 and 8-15 to one sum, in the order of tatvpr_sum_tree. */
static inline float tatvpr_tree_ps(__m256 low, __m256 high) {
    const __m256 eight = _mm256_add_ps(low, high);
    const __m128 four =
        _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* tatvpr_exp, eight at a time; arguments are not NaN and at most 88. */
static inline __m256 tatvpr_exp_ps(__m256 x) {
    static const float c[6] = TATVPR_EXP_POLY;
    const __m256 lowest = _mm256_set1_ps(TATVPR_EXP_LOWEST);
    const __m256 clipped = _mm256_max_ps(x, lowest);
    const __m256 n =
        _mm256_round_ps(_mm256_mul_ps(clipped, _mm256_set1_ps(TATVPR_LOG2_E)),
                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_sub_ps(clipped, _mm256_mul_ps(n, _mm256_set1_ps(TATVPR_LN2_HIGH)));
    r = _mm256_sub_ps(r, _mm256_mul_ps(n, _mm256_set1_ps(TATVPR_LN2_LOW)));
    __m256 y = _mm256_set1_ps(c[0]);
    for (int i = 1; i < 6; i++) {
        y = _mm256_add_ps(_mm256_mul_ps(y, r), _mm256_set1_ps(c[i]));
    }
    y = _mm256_add_ps(_mm256_mul_ps(y, _mm256_mul_ps(r, r)), r);
    y = _mm256_add_ps(y, _mm256_set1_ps(1.0f));
    const __m256i power =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    y = _mm256_mul_ps(y, _mm256_castsi256_ps(power));
    return _mm256_and_ps(y, _mm256_cmp_ps(x, lowest, _CMP_GE_OQ));
}

#endif
