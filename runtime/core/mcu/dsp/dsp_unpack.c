/* Ternary weights of twelve outputs as words low + high * 65536 (two outputs), by channel: what the
 * sparse matmul of Cortex-M4 and M7 multiplies by. A byte of base 3 leads to four words, and two of
 * them become one by one addition. In assembler, because its speed is the assignment of registers.
 */
#include "../../common/core.h"

#if defined(TATVPR_MCU_DSP)

#include "dsp_sparse.h"

/* of TATVPR_ASSEMBLER */
#pragma GCC diagnostic ignored "-Wunused-parameter"

/* Two rows of TATVPR_LAYOUT_LUT4, sixteen channels at a time: one word of every unpacked channel.
 * r0 low row, r1 high row, r2 where words go, r3 table, r4-r7 low, r8-r11 high, r12 lr
 * entries */
TATVPR_ASSEMBLER static void unpack_two(const uint8_t *low, const uint8_t *high,
                                        uint32_t *to, const int32_t (*table)[4],
                                        const uint8_t *low_end) {
    __asm volatile(
        ".macro LOAD\n"
        " ldrb r12, [r0], #1\n"
        " ldrb lr, [r1], #1\n"
        ".endm\n"
        ".macro FOUR next\n" /* channels of two outputs */
        " add r12, r3, r12, lsl #4\n"
        " add lr, r3, lr, lsl #4\n"
        " ldm r12, {r4-r7}\n"
        " ldm lr, {r8-r11}\n"
        " \\next\n" /* while those are on their way */
        " add r5, r5, r9, lsl #16\n str r5, [r2, #32]\n"
        " add r6, r6, r10, lsl #16\n str r6, [r2, #64]\n"
        " add r7, r7, r11, lsl #16\n str r7, [r2, #96]\n"
        " add r4, r4, r8, lsl #16\n str r4, [r2], #128\n"
        ".endm\n"
        "push {r4-r11, lr}\n"
        "1:\n"
        "LOAD\nFOUR LOAD\nFOUR LOAD\nFOUR LOAD\nFOUR\n"
        "ldr r12, [sp, #36]\n"
        "cmp r0, r12\n"
        "bne 1b\n"
        "pop {r4-r11, pc}\n"
        ".purgem LOAD\n.purgem FOUR\n");
}

static void unpack_rows(const tatvpr_ternary *op, const uint8_t *stored, int32_t n0,
                        uint32_t *unpacked) {
    const int32_t row_bytes = 4 * tatvpr_lut4_row_words(op->k_in);
    const int32_t last = op->n_out - 1;
    for (int32_t pair = 0; pair < TATVPR_SPARSE_PAIRS && n0 + 2 * pair <= last; pair++) {
        const int32_t n = n0 + 2 * pair; /* a row without a second one: itself again, not used */
        const uint8_t *low = stored + (ptrdiff_t)n * row_bytes;
        const uint8_t *high = stored + (ptrdiff_t)tatvpr_min_i32(n + 1, last) * row_bytes;
        unpack_two(low, high, unpacked + pair, tatvpr_trit_words, low + row_bytes);
    }
}

/* Channels of TATVPR_LAYOUT_MCU_COLS, whose bytes lie in the order in which they are needed.
 * r0 bytes, r1 table, r2 where words go, r3 where bytes end, r4-r11 words, r11 r12 lr
 * entries */
TATVPR_ASSEMBLER static void unpack_columns(const uint8_t *stored,
                                            const int32_t (*table)[4],
                                            uint32_t *to, const uint8_t *end) {
    __asm volatile(
        "push {r4-r11, lr}\n"
        "1:\n"
        "ldrb r12, [r0], #1\n"
        "ldrb lr, [r0], #1\n"
        "ldrb r11, [r0], #1\n"
        "add r12, r1, r12, lsl #4\n"
        "add lr, r1, lr, lsl #4\n"
        "add r11, r1, r11, lsl #4\n"
        "ldm r12, {r4-r7}\n"
        "add r4, r4, r5, lsl #16\n"
        "add r5, r6, r7, lsl #16\n"
        "ldm lr, {r6-r9}\n"
        "add r6, r6, r7, lsl #16\n"
        "add r7, r8, r9, lsl #16\n"
        "ldm r11, {r8-r11}\n"
        "add r8, r8, r9, lsl #16\n"
        "add r9, r10, r11, lsl #16\n"
        "stm r2, {r4-r9}\n"
        "add r2, r2, #32\n"
        "cmp r0, r3\n"
        "bne 1b\n"
        "pop {r4-r11, pc}\n");
}

void tatvpr_dsp_unpack(const tatvpr_matmul *job, int32_t n0, uint32_t *unpacked) {
    const tatvpr_ternary *op = job->op;
    if (op->layout == TATVPR_LAYOUT_MCU_COLS) {
        const int32_t tile_bytes = 3 * op->k_in;
        const uint8_t *stored = job->weight + (ptrdiff_t)(n0 / TATVPR_COLS_OUTPUTS) * tile_bytes;
        unpack_columns(stored, tatvpr_trit_words, unpacked, stored + tile_bytes);
    } else {
        unpack_rows(op, job->weight, n0, unpacked);
    }
}

#endif
