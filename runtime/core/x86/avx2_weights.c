/* Ternary weights into the AVX2 layout (avx2.h), once, when a model is bound. */
#include "avx2.h"

size_t tatvpr_avx2_prepared_bytes(const tatvpr_ternary *op) {
    int32_t half = 0;
    const int32_t blocks = tatvpr_avx2_blocks(op->n_out, &half);
    return (size_t)tatvpr_avx2_rows(op->k_in) * ((size_t)blocks * 32 + (size_t)half * 16);
}

/* Where output `n` of the matrix lies in the row of channel 0, the distance to the next channel's
 * row, and the shift of its two bits. */
typedef struct spot {
    size_t offset;
    int32_t stride;
    int32_t shift;
} spot;

static spot find(const tatvpr_ternary *op, int32_t n) {
    int32_t half = 0;
    const int32_t blocks = tatvpr_avx2_blocks(op->n_out, &half);
    const int32_t block = n / 128;
    const int32_t m = n % 128;
    spot s;
    s.offset = (size_t)block * (size_t)tatvpr_avx2_rows(op->k_in) * 32;
    s.shift = 2 * (m / 16 % 4);
    if (block < blocks) {
        s.stride = 32;
        s.offset += (size_t)(m % 16 / 8 * 16 + m / 64 * 8 + m % 8);
    } else {
        s.stride = 16;
        s.offset += (size_t)(m % 16);
    }
    return s;
}

void tatvpr_avx2_prepare(const tatvpr_ternary *op, const uint8_t *stored, uint8_t *prepared) {
    enum { CHUNK = 4000 }; /* a multiple of 20: whole stored bytes */
    const size_t bytes = tatvpr_avx2_prepared_bytes(op);
    for (size_t i = 0; i < bytes; i++) {
        prepared[i] = 0x55; /* code 1 everywhere */
    }
    uint8_t codes[CHUNK];
    for (int32_t first = 0; first < op->k_in; first += CHUNK) {
        const int32_t count = tatvpr_min_i32(CHUNK, op->k_in - first);
        for (int32_t n = 0; n < op->n_out; n++) {
            tatvpr_read_codes(op, stored, n, first, count, codes);
            const spot s = find(op, n);
            uint8_t *to = prepared + s.offset + (ptrdiff_t)first * s.stride;
            for (int32_t i = 0; i < count; i++, to += s.stride) {
                const uint32_t flip = (uint32_t)(codes[i] ^ 1u) << s.shift; /* from code 1 */
                *to = (uint8_t)(*to ^ flip);
            }
        }
    }
}
