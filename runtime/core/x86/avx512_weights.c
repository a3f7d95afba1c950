/* Ternary weights into the AVX-512 layout (avx512.h), once, when a model is bound. */
#include "avx2.h"
#include "avx512.h"

size_t tatvpr_avx512_prepared_bytes(const tatvpr_ternary *op) {
    tatvpr_block_kind kinds[3];
    tatvpr_avx512_blocks(op->n_out, kinds);
    size_t bytes = 0;
    for (int i = 0; i < 3; i++) {
        bytes += (size_t)kinds[i].count * (size_t)kinds[i].lanes * 16;
    }
    return bytes * (size_t)tatvpr_avx512_rows(op->k_in);
}

void tatvpr_avx512_prepare(const tatvpr_ternary *op, const uint8_t *stored, uint8_t *prepared) {
    tatvpr_block_kind kinds[3];
    tatvpr_avx512_blocks(op->n_out, kinds);
    int32_t first = 0;
    uint8_t *rows = prepared;
    for (int k = 0; k < 3; k++) {
        const int32_t lanes = kinds[k].lanes;
        for (int32_t block = 0; block < kinds[k].count; block++) {
            for (int32_t byte = 0; byte < 16 * lanes; byte++) {
                const int32_t part = byte % 16 / 4; /* i of avx512.h */
                const int32_t n = part * 16 * lanes + byte / 16 * 4 + byte % 4;
                tatvpr_x86_write_four(op, stored, first + n, 4 * lanes, rows + byte, 16 * lanes);
            }
            first += 64 * lanes;
            rows += (ptrdiff_t)tatvpr_avx512_rows(op->k_in) * 16 * lanes;
        }
    }
}
