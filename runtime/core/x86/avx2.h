/* What the AVX2 kernels share: the layout of prepared weights, and float functions by eights.
 *
 * Prepared weights: blocks of 128 outputs, then (where 1 to 64 are left) one block of 64. Inside a
 * block, rows by input channel: 32 (or 16) bytes with four 2-bit codes w + 1 each, so that the
 * kernels, which read whole rows, touch only the kept channels. Rows are padded to a multiple of 4,
 * missing outputs are code 1 (weight zero).
 *
 * Output n of a block: field f = n / 16 % 4 (bits 2f, 2f + 1) of byte
 * (n % 8 / 4) * 16 + (n / 64) * 8 + (n % 16 / 8) * 4 + n % 4 in a block of 128, of byte
 * (n % 8 / 4) * 8 + (n % 16 / 8) * 4 + n % 4 in a block of 64. Interleaving two rows' bytes by
 * lanes gives 16 neighbouring outputs an instruction, which widen by lanes to 0-7 and 8-15;
 * interleaving four rows' bytes gives 0-7 and 8-15 at once.
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

TATVPR_KERNELS_OF(avx2);
TATVPR_KERNELS_OF(avx_vnni); /* files of avx2, compiled once more */

/* What the variants of this folder begin with. */
#define TATVPR_AVX2_TABLE                                       \
    TATVPR_PORTABLE_TABLE,                                      \
    .in_place = 0,                                              \
    .prepared_bytes = tatvpr_avx2_prepared_bytes,               \
    .prepare = tatvpr_avx2_prepare,                             \
    .quantise = tatvpr_avx2_quantise,                           \
    .select = tatvpr_avx2_select,                               \
    .select_rows = tatvpr_avx2_select_rows,                     \
    .layer_norm = TATVPR_LAYER_NORM(tatvpr_avx2_layer_norm),    \
    .gelu = tatvpr_avx2_gelu,                                   \
    .dense = tatvpr_avx2_dense,                                 \
    .sparse = tatvpr_avx2_sparse,                               \
    .fours = tatvpr_avx2_fours,                                 \
    .patch_embed = tatvpr_avx2_patch_embed,                     \
    .attention = tatvpr_avx2_attention,                         \
    .squash_across = tatvpr_avx2_squash_across,                 \
    .squash_add = tatvpr_avx2_squash_add,                       \
    .squash_bytes = tatvpr_avx2_squash_bytes,                   \
    .dot_i8 = tatvpr_avx2_dot_i8,                               \
    .hamming = tatvpr_avx2_hamming,                             \
    .dot_bits = tatvpr_avx2_dot_bits

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

static inline __m256i tatvpr_pack_i8(const __m256i *v /* [4] */) {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]),
                                             _mm256_packs_epi32(v[2], v[3]));
    return _mm256_permutevar8x32_epi32(bytes, order);
}

/* clip(rint(x * inverse), -127, 127) of 32. Conversion rounds to even by itself; -128 only comes
 * from what is not finite. */
static inline __m256i tatvpr_quantise_32(const float *x, __m256 inverse) {
    __m256i n[4];
    for (int i = 0; i < 4; i++) {
        n[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), inverse));
    }
    return _mm256_max_epi8(tatvpr_pack_i8(n), _mm256_set1_epi8(-127));
}

/* A row of any length, with zeros up to `padded`, a multiple of 32. `inverse` is 1 / s. */
static inline void tatvpr_quantise_with(const float *x, int32_t count, int32_t padded,
                                        float inverse, int8_t *q) {
    const __m256 by = _mm256_set1_ps(inverse);
    int32_t i = 0;
    for (; i + 32 <= count; i += 32) {
        _mm256_storeu_si256((__m256i *)(void *)(q + i), tatvpr_quantise_32(x + i, by));
    }
    for (; i < padded; i += 32) {
        float tail[32] = {0};
        for (int32_t j = i; j < count; j++) {
            tail[j - i] = x[j];
        }
        _mm256_storeu_si256((__m256i *)(void *)(q + i), tatvpr_quantise_32(tail, by));
    }
}

/* Long chains of dependent operations go step by step for eight vectors together: one chain after
 * the other would wait for latencies, because a CPU's scheduler holds only a few of them. */
#define TATVPR_EIGHT(i) for (int i = 0; i < 8; i++)
/* Nothing moves across: compilers otherwise sort the steps back into eight chains. */
#define TATVPR_TOGETHER(v)                                                              \
    __asm__("" : "+x"((v)[0]), "+x"((v)[1]), "+x"((v)[2]), "+x"((v)[3]), "+x"((v)[4]), \
                 "+x"((v)[5]), "+x"((v)[6]), "+x"((v)[7]))

#endif
