/* Ternary weights into the AVX2 layout (avx2.h), once, when a model is bound. */
#include "avx2.h"

enum { CHUNK = 2000 }; /* a multiple of 20: whole stored bytes */

size_t tatvpr_avx2_prepared_bytes(const tatvpr_ternary *op) {
    int32_t half = 0;
    const int32_t blocks = tatvpr_avx2_blocks(op->n_out, &half);
    return (size_t)tatvpr_avx2_rows(op->k_in) * ((size_t)blocks * 32 + (size_t)half * 16);
}

void tatvpr_x86_write_four(const tatvpr_ternary *op, const uint8_t *stored, int32_t output,
                           int32_t step, uint8_t *to, int32_t stride) {
    uint8_t codes[4][CHUNK];
    for (int32_t first = 0; first < op->k_in; first += CHUNK) {
        const int32_t count = tatvpr_min_i32(CHUNK, op->k_in - first);
        for (int32_t f = 0; f < 4; f++) {
            const int32_t n = output + step * f;
            if (n < op->n_out) {
                tatvpr_read_codes(op, stored, n, first, count, codes[f]);
                continue;
            }
            for (int32_t i = 0; i < count; i++) {
                codes[f][i] = 1;
            }
        }
        for (int32_t i = 0; i < count; i++, to += stride) {
            *to = (uint8_t)(codes[0][i] | codes[1][i] << 2 | codes[2][i] << 4 | codes[3][i] << 6);
        }
    }
    for (int32_t k = op->k_in; k < tatvpr_avx2_rows(op->k_in); k++, to += stride) {
        *to = 0x55; /* code 1 in all four fields */
    }
}

void tatvpr_avx2_prepare(const tatvpr_ternary *op, const uint8_t *stored, uint8_t *prepared) {
    const int32_t k_rows = tatvpr_avx2_rows(op->k_in);
    int32_t half = 0;
    const int32_t blocks = tatvpr_avx2_blocks(op->n_out, &half);
    for (int32_t block = 0; block < blocks + half; block++) {
        const int32_t stride = block < blocks ? 32 : 16;
        uint8_t *rows = prepared + (ptrdiff_t)block * k_rows * 32;
        for (int32_t byte = 0; byte < stride; byte++) {
            const int32_t lane = byte / (stride / 2);
            const int32_t upper = byte % (stride / 2) / 8; /* outputs 64 to 127 */
            const int32_t n = block * 128 + 64 * upper + byte / 4 % 2 * 8 + lane * 4 + byte % 4;
            tatvpr_x86_write_four(op, stored, n, 16, rows + byte, stride);
        }
    }
}
