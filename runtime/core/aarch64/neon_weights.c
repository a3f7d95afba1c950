/* Ternary weights into the NEON layout (neon.h), once, when a model is bound. */
#include "neon.h"

size_t tatvpr_neon_prepared_bytes(const tatvpr_ternary *op) {
    return (size_t)tatvpr_neon_rows(op->k_in) * (((size_t)op->n_out + 63) / 64) * 16;
}

void tatvpr_neon_prepare(const tatvpr_ternary *op, const uint8_t *stored, uint8_t *prepared) {
    enum { CHUNK = 4000 }; /* a multiple of 20: whole stored bytes */
    const size_t bytes = tatvpr_neon_prepared_bytes(op);
    for (size_t i = 0; i < bytes; i++) {
        prepared[i] = 0x15; /* weight zero everywhere */
    }
    uint8_t codes[CHUNK];
    for (int32_t first = 0; first < op->k_in; first += CHUNK) {
        const int32_t count = tatvpr_min_i32(CHUNK, op->k_in - first);
        for (int32_t n = 0; n < op->n_out; n++) {
            tatvpr_read_codes(op, stored, n, first, count, codes);
            uint8_t *to = prepared + (ptrdiff_t)(n / 64) * tatvpr_neon_rows(op->k_in) * 16 +
                          (ptrdiff_t)first * 16 + n % 16;
            const int32_t field = n / 16 % 4;
            const uint32_t zero = field < 3 ? 1u : 0u;
            for (int32_t i = 0; i < count; i++, to += 16) {
                const uint32_t bits = (codes[i] + 3u + zero) & 3u; /* w + zero */
                *to = (uint8_t)(*to ^ (bits ^ zero) << (2 * field));
            }
        }
    }
}
