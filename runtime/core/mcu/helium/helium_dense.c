/* Dense ternary matmul on Cortex-M55 (Helium).
 *
 * Weights (TATVPR_LAYOUT_ROWS2) are unpacked to bytes -1, 0, +1 a chunk of outputs at a time, once
 * for all tokens of the tile; then two outputs and three tokens share their vectors: five loads
 * and six 16-lane dot products for 96 multiply-accumulates. Six accumulators are what the even
 * core registers allow; the loop is in assembler because their assignment is its speed.
 */
#include "../../common/core.h"

#if defined(TATVPR_MCU_HELIUM)

#include <arm_mve.h>

#include "../mcu.h"
#include "helium_epilogue.h"

/* of TATVPR_ASSEMBLER */
#pragma GCC diagnostic ignored "-Wunused-parameter"

#define CHUNK TATVPR_HELIUM_CHUNK /* outputs unpacked at a time */
#define PASS_TOKENS 3

/* `vectors` times 16 bytes of two-bit codes to 64 bytes -1, 0, +1, in order. */
static void unpack_vectors(const uint8_t *stored, int32_t vectors, int8_t *w) {
    __asm volatile(
        "vmov.i8 q6, #1\n vmov.i8 q7, #3\n"
        "wls lr, %[vectors], 2f\n"
        "1:\n"
        "vldrb.8 q4, [%[stored]], #16\n"
        "vand q0, q4, q7\n"
        "vshr.u8 q1, q4, #2\n vand q1, q1, q7\n"
        "vshr.u8 q2, q4, #4\n vand q2, q2, q7\n"
        "vshr.u8 q3, q4, #6\n"
        "vsub.i8 q0, q0, q6\n vsub.i8 q1, q1, q6\n"
        "vsub.i8 q2, q2, q6\n vsub.i8 q3, q3, q6\n"
        "vst40.8 {q0, q1, q2, q3}, [%[w]]\n vst41.8 {q0, q1, q2, q3}, [%[w]]\n"
        "vst42.8 {q0, q1, q2, q3}, [%[w]]\n vst43.8 {q0, q1, q2, q3}, [%[w]]!\n"
        "le lr, 1b\n"
        "2:\n"
        : [stored] "+&r"(stored), [w] "+&r"(w)
        : [vectors] "r"(vectors)
        : "q0", "q1", "q2", "q3", "q4", "q6", "q7", "lr", "memory");
}

/* Two-bit codes to bytes w; past the end they are arbitrary (q is 0 there). */
static void unpack_codes(const uint8_t *stored, int32_t bytes, int8_t *w) {
    unpack_vectors(stored, bytes >> 4, w);
    const int32_t left = bytes & 15;
    if (left > 0) {
        uint8_t last[16];
        vstrbq_u8(last, vldrbq_z_u8(stored + bytes - left, vctp8q((uint32_t)left)));
        unpack_vectors(last, 1, w + 4 * (bytes - left));
    }
}

/* Rows n0 .. n0 + rows to unpacked[rows][stride]; rows of whole vectors follow one another. */
static void unpack_rows(const tatvpr_matmul *job, int32_t n0, int32_t rows, int32_t stride,
                        int8_t *unpacked) {
    const int32_t row_bytes = (job->op->k_in + 3) / 4;
    const uint8_t *stored = job->weight + (ptrdiff_t)n0 * row_bytes;
    if (4 * row_bytes == stride) {
        unpack_codes(stored, rows * row_bytes, unpacked);
        return;
    }
    for (int32_t n = 0; n < rows; n++) {
        unpack_codes(stored + (ptrdiff_t)n * row_bytes, row_bytes, unpacked + (ptrdiff_t)n * stride);
    }
}

typedef struct pairs_job {
    const int8_t *weights; /* rows of `stride` bytes */
    const int8_t *q[PASS_TOKENS];
    int32_t *sums;         /* [PASS_TOKENS][CHUNK] */
    int32_t more;          /* blocks of 64 channels after the first */
    int32_t stride;        /* bytes of a row: a multiple of 64 */
    const int8_t *end;     /* of weights: a whole number of pairs, at least one */
} pairs_job;

/* r0 r2 | r4 r6 | r8 r10: sums of two outputs for three tokens; r1 r3 weights, r5 r7 r9 tokens,
 * r11 where sums go, r12 blocks after the first, lr the loop */
TATVPR_ASSEMBLER static void multiply_pairs(pairs_job *job) {
    __asm volatile(
        "push {r0, r4-r11, lr}\n" /* [sp] = job */
        "vpush {d8-d9}\n"         /* q4; the job is at [sp, #16] now */
        "mov r12, r0\n"
        "ldr r1, [r12]\n"
        "ldr r5, [r12, #4]\n"
        "ldrd r7, r9, [r12, #8]\n"
        "ldr r11, [r12, #16]\n"
        "ldr r3, [r12, #24]\n"
        "add r3, r1, r3\n"
        ".macro STEP dot\n"
        " vldrb.8 q0, [r1], #16\n vldrb.8 q2, [r5], #16\n"
        " \\dot r0, q0, q2\n"
        " vldrb.8 q1, [r3], #16\n"
        " \\dot r2, q1, q2\n"
        " vldrb.8 q3, [r7], #16\n"
        " \\dot r4, q0, q3\n \\dot r6, q1, q3\n"
        " vldrb.8 q4, [r9], #16\n"
        " \\dot r8, q0, q4\n \\dot r10, q1, q4\n"
        ".endm\n"
        "ldr r12, [r12, #20]\n"
        "1:\n"
        "STEP vmladav.s8\n STEP vmladava.s8\n STEP vmladava.s8\n STEP vmladava.s8\n"
        "wls lr, r12, 3f\n"
        "2:\n"
        "STEP vmladava.s8\n STEP vmladava.s8\n STEP vmladava.s8\n STEP vmladava.s8\n"
        "le lr, 2b\n"
        "3:\n"
        "strd r0, r2, [r11], #8\n"
        "strd r4, r6, [r11, #120]\n"
        "strd r8, r10, [r11, #248]\n"
        "ldr r0, [sp, #16]\n"
        "ldrd r2, r4, [r0, #24]\n"
        "sub r5, r5, r2\n sub r7, r7, r2\n sub r9, r9, r2\n"
        "mov r1, r3\n"
        "add r3, r3, r2\n"
        "cmp r1, r4\n"
        "bne 1b\n"
        "vpop {d8-d9}\n"
        "pop {r0, r4-r11, pc}\n"
        ".purgem STEP\n");
}

/* The same for rows of exactly 192 bytes, the commonest: unrolled, with tokens at fixed offsets from
 * their middles, so that nothing is set back. r12 is the end of the weights. */
TATVPR_ASSEMBLER static void multiply_pairs_192(pairs_job *job) {
    __asm volatile(
        "push {r4-r11, lr}\n"
        "vpush {d8-d9}\n"
        "mov r12, r0\n"
        "ldr r1, [r12]\n"
        "ldr r5, [r12, #4]\n"
        "ldrd r7, r9, [r12, #8]\n"
        "ldr r11, [r12, #16]\n"
        "ldr r12, [r12, #28]\n"
        "add r3, r1, #192\n"
        "add r5, r5, #64\n add r7, r7, #64\n add r9, r9, #64\n"
        ".macro STEP dot, at\n"
        " vldrb.8 q0, [r1], #16\n vldrb.8 q2, [r5, #\\at]\n"
        " \\dot r0, q0, q2\n"
        " vldrb.8 q1, [r3], #16\n"
        " \\dot r2, q1, q2\n"
        " vldrb.8 q3, [r7, #\\at]\n"
        " \\dot r4, q0, q3\n \\dot r6, q1, q3\n"
        " vldrb.8 q4, [r9, #\\at]\n"
        " \\dot r8, q0, q4\n \\dot r10, q1, q4\n"
        ".endm\n"
        "1:\n"
        "STEP vmladav.s8, -64\n"
        ".irp at, -48, -32, -16, 0, 16, 32, 48, 64, 80, 96, 112\n"
        "STEP vmladava.s8, \\at\n"
        ".endr\n"
        "strd r0, r2, [r11], #8\n"
        "strd r4, r6, [r11, #120]\n"
        "strd r8, r10, [r11, #248]\n"
        "mov r1, r3\n"
        "add r3, r3, #192\n"
        "cmp r1, r12\n"
        "bne 1b\n"
        "vpop {d8-d9}\n"
        "pop {r4-r11, pc}\n"
        ".purgem STEP\n");
}

/* sums[token][output] of `rows` weight rows and up to three rows of q, all `stride` bytes apart. An
 * odd last row is paired with what follows it in memory: its sums are not used. */
void tatvpr_helium_pairs(const int8_t *weights, int32_t stride, int32_t rows, const int8_t *q,
                         int32_t tokens, int32_t *sums) {
    pairs_job pairs;
    pairs.weights = weights;
    for (int32_t i = 0; i < PASS_TOKENS; i++) {
        pairs.q[i] = q + (ptrdiff_t)tatvpr_min_i32(i, tokens - 1) * stride;
    }
    pairs.sums = sums;
    pairs.more = stride / 64 - 1;
    pairs.stride = stride;
    pairs.end = weights + (ptrdiff_t)((rows + 1) / 2 * 2) * stride;
    if (stride == 192) {
        multiply_pairs_192(&pairs);
    } else {
        multiply_pairs(&pairs);
    }
}

void tatvpr_helium_dense(const tatvpr_matmul *job) {
    const tatvpr_tile *tile = job->tile;
    int8_t *unpacked = (int8_t *)job->panel; /* [CHUNK][q_stride] */
    for (int32_t n0 = 0; n0 < job->op->n_out; n0 += CHUNK) {
        const int32_t rows = tatvpr_min_i32(CHUNK, job->op->n_out - n0);
        unpack_rows(job, n0, rows, tile->q_stride, unpacked);
        for (int32_t t = 0; t < tile->tokens; t += PASS_TOKENS) {
            const int32_t tokens = tatvpr_min_i32(PASS_TOKENS, tile->tokens - t);
            int32_t sums[PASS_TOKENS * CHUNK];
            tatvpr_helium_pairs(unpacked, tile->q_stride, rows,
                                tile->q + (ptrdiff_t)t * tile->q_stride, tokens, sums);
            tatvpr_helium_outputs_32(job, t, tokens, n0, rows, sums, CHUNK);
        }
    }
}

#endif
