/* Exact sparse ternary matmul on Cortex-M55 (Helium): only the kept channels are visited.
 *
 * 32 outputs at a time: their weights (TATVPR_LAYOUT_ROWS2) are transposed and unpacked to bytes
 * once for all tokens of the tile; a kept channel then costs four widening loads and four
 * multiply-accumulates by a scalar. The lanes are 16 bits: safe for 258 channels of |q| <= 127.
 */
#include "../../common/core.h"

#if defined(TATVPR_MCU_HELIUM)

#include <arm_mve.h>

#include "../mcu.h"
#include "helium_epilogue.h"

#define OUTPUTS 32
#define LIST_PART 256

/* Rows n0 .. n0 + 31 to unpacked[K][OUTPUTS]; past the last row it is repeated (not used). */
static void unpack_columns(const tatvpr_ternary *op, const uint8_t *stored, int32_t n0,
                           int8_t *unpacked) {
    const int32_t row_bytes = (op->k_in + 3) / 4;
    const int32_t last = op->n_out - 1;
    const uint16x8_t three = vdupq_n_u16(3);
    const uint16x8_t lanes = vidupq_n_u16(0, 1);
    for (int32_t r = 0; r < OUTPUTS; r += 8) {
        const int32_t first = tatvpr_min_i32(n0 + r, last);
        const uint16x8_t below = vdupq_n_u16((uint16_t)tatvpr_min_i32(last - first, 7));
        const uint16x8_t offsets = vmulq_n_u16(vminq_u16(lanes, below), (uint16_t)row_bytes);
        const uint8_t *at = stored + (ptrdiff_t)first * row_bytes;
        uint8_t *to = (uint8_t *)unpacked + r;
        /* channels past the last one are written too: the panel has room for them */
        for (int32_t i = 0; i < row_bytes; i++, to += 4 * OUTPUTS) {
            const uint16x8_t codes = vldrbq_gather_offset_u16(at + i, offsets);
            vstrbq_u16(to, vsubq_n_u16(vandq_u16(codes, three), 1));
            vstrbq_u16(to + OUTPUTS, vsubq_n_u16(vandq_u16(vshrq_n_u16(codes, 2), three), 1));
            vstrbq_u16(to + 2 * OUTPUTS, vsubq_n_u16(vandq_u16(vshrq_n_u16(codes, 4), three), 1));
            vstrbq_u16(to + 3 * OUTPUTS, vsubq_n_u16(vshrq_n_u16(codes, 6), 1));
        }
    }
}

/* sums[OUTPUTS] of `fours` times four list entries. */
static inline void visit(const uint16_t *index, const int8_t *value, int32_t fours,
                         const int8_t *unpacked, int16_t *sums) {
    int32_t address, activation;
    __asm volatile(
        "vmov.i32 q0, #0\n vmov.i32 q1, #0\n vmov.i32 q2, #0\n vmov.i32 q3, #0\n"
        "wls lr, %[fours], 2f\n"
        "1:\n"
        ".rept 4\n"
        "ldrh %[address], [%[index]], #2\n"
        "ldrsb %[activation], [%[value]], #1\n"
        "add %[address], %[unpacked], %[address], lsl #5\n"
        "vldrb.s16 q4, [%[address]]\n"
        "vldrb.s16 q5, [%[address], #8]\n"
        "vmla.s16 q0, q4, %[activation]\n"
        "vldrb.s16 q6, [%[address], #16]\n"
        "vmla.s16 q1, q5, %[activation]\n"
        "vldrb.s16 q7, [%[address], #24]\n"
        "vmla.s16 q2, q6, %[activation]\n"
        "vmla.s16 q3, q7, %[activation]\n"
        ".endr\n"
        "le lr, 1b\n"
        "2:\n"
        "vstrh.16 q0, [%[sums]]\n vstrh.16 q1, [%[sums], #16]\n"
        "vstrh.16 q2, [%[sums], #32]\n vstrh.16 q3, [%[sums], #48]\n"
        : [index] "+&r"(index), [value] "+&r"(value), [address] "=&l"(address),
          [activation] "=&r"(activation)
        : [fours] "r"(fours), [unpacked] "r"(unpacked), [sums] "r"(sums)
        : "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "lr", "memory");
}

/* Lists of more than one part: sums of 32 bits. */
static void visit_long(const uint16_t *index, const int8_t *value, int32_t count,
                       const int8_t *unpacked, int32_t *sums) {
    for (int32_t first = 0; first < count; first += LIST_PART) {
        int16_t part[OUTPUTS];
        visit(index + first, value + first,
              (tatvpr_min_i32(LIST_PART, count - first) + 3) / 4, unpacked, part);
        for (int32_t i = 0; i < OUTPUTS; i += 4) {
            const int32x4_t before = first == 0 ? vdupq_n_s32(0) : vldrwq_s32(sums + i);
            vstrwq_s32(sums + i, vaddq_s32(before, vldrhq_s32(part + i)));
        }
    }
}

void tatvpr_helium_sparse(const tatvpr_matmul *job) {
    const tatvpr_tile *tile = job->tile;
    int8_t *unpacked = (int8_t *)job->panel;
    for (int32_t n0 = 0; n0 < job->op->n_out; n0 += OUTPUTS) {
        const int32_t outputs = tatvpr_min_i32(OUTPUTS, job->op->n_out - n0);
        unpack_columns(job->op, job->weight, n0, unpacked);
        for (int32_t t = 0; t < tile->tokens; t++) {
            const ptrdiff_t first = (ptrdiff_t)t * tile->list_stride;
            const int32_t count = tile->count[t];
            if (count <= LIST_PART) {
                int16_t sums[OUTPUTS];
                visit(tile->index + first, tile->value + first, (count + 3) / 4, unpacked, sums);
                tatvpr_helium_outputs_16(job, t, n0, outputs, sums);
            } else {
                int32_t sums[OUTPUTS];
                visit_long(tile->index + first, tile->value + first, count, unpacked, sums);
                tatvpr_helium_outputs_32(job, t, 1, n0, outputs, sums, 0);
            }
        }
    }
}

#endif
