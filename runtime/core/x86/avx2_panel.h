/* Unpacking of AVX2's packed weights (avx2.h) to bytes: codes 0..2, four channels of eight outputs a
 * register, for one multiplication of four activations by them. */
#ifndef TATVPR_AVX2_PANEL_H
#define TATVPR_AVX2_PANEL_H

#include "avx2.h"

/* 64 outputs of a block. Channels 4 q to 4 q + 3 of outputs 16 f to 16 f + 15 become 64 bytes at
 * panel + f * field_bytes + q * quad_bytes. `stride` is the bytes of a packed row, 32 or 16;
 * `upper` takes outputs 64 to 127 of a block of 128. */
static inline void tatvpr_avx2_unpack(const uint8_t *rows, int32_t stride, int upper,
                                      int32_t k_rows, uint8_t *panel, ptrdiff_t field_bytes,
                                      ptrdiff_t quad_bytes) {
    const __m256i mask = _mm256_set1_epi8(3);
    for (int32_t k = 0; k < k_rows; k += 4, rows += 4 * stride, panel += quad_bytes) {
        __m256i r[4];
        for (int i = 0; i < 4; i++) {
            if (stride == 32) {
                r[i] = _mm256_load_si256((const __m256i *)(const void *)(rows + 32 * i));
            } else { /* 16 bytes: eight to each lane */
                r[i] = _mm256_permute4x64_epi64(
                    _mm256_castsi128_si256(
                        _mm_load_si128((const __m128i *)(const void *)(rows + 16 * i))),
                    0x50);
            }
        }
        const __m256i ab =
            upper ? _mm256_unpackhi_epi8(r[0], r[1]) : _mm256_unpacklo_epi8(r[0], r[1]);
        const __m256i cd =
            upper ? _mm256_unpackhi_epi8(r[2], r[3]) : _mm256_unpacklo_epi8(r[2], r[3]);
        const __m256i low = _mm256_unpacklo_epi16(ab, cd);  /* outputs 0-7 */
        const __m256i high = _mm256_unpackhi_epi16(ab, cd); /* outputs 8-15 */
        for (int f = 0; f < 4; f++) {
            uint8_t *to = panel + f * field_bytes;
            _mm256_store_si256((__m256i *)(void *)to,
                               _mm256_and_si256(_mm256_srli_epi16(low, 2 * f), mask));
            _mm256_store_si256((__m256i *)(void *)(to + 32),
                               _mm256_and_si256(_mm256_srli_epi16(high, 2 * f), mask));
        }
    }
}

/* Channels `k` .. `k` + `channels` - 1 of outputs first .. first + 63 of a job's matrix. `k` is a
 * multiple of 4; `channels` is one too, or reaches the end of the matrix. */
static inline void tatvpr_avx2_unpack_64(const tatvpr_matmul *job, int32_t first, int32_t k,
                                         int32_t channels, ptrdiff_t field_bytes,
                                         ptrdiff_t quad_bytes) {
    const int32_t k_rows = tatvpr_avx2_rows(job->op->k_in);
    int32_t half = 0;
    const int32_t blocks = tatvpr_avx2_blocks(job->op->n_out, &half);
    const int32_t block = first / 128;
    const uint8_t *rows = job->weight + (ptrdiff_t)block * k_rows * 32;
    if (block >= blocks) {
        tatvpr_avx2_unpack(rows + (ptrdiff_t)k * 16, 16, 0, channels, job->panel, field_bytes,
                           quad_bytes);
    } else if (first % 128 == 0) {
        tatvpr_avx2_unpack(rows + (ptrdiff_t)k * 32, 32, 0, channels, job->panel, field_bytes,
                           quad_bytes);
    } else {
        tatvpr_avx2_unpack(rows + (ptrdiff_t)k * 32, 32, 1, channels, job->panel, field_bytes,
                           quad_bytes);
    }
}

#endif
