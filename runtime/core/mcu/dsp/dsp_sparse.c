/* Exact sparse ternary matmul on Cortex-M4 and M7: only the kept channels are visited.
 *
 * Twelve outputs at a time: their weights are unpacked once for all tokens of the tile to words
 * low + high * 65536 (dsp_unpack.c), so that one multiply-accumulate serves two outputs. The lanes
 * are 16 bits: safe for 258 channels of |q| <= 127, so lists are taken 256 entries at a time.
 */
#include "../../common/core.h"

#if defined(TATVPR_MCU_DSP)

#include "../epilogue.h"
#include "dsp_sparse.h"

/* of TATVPR_ASSEMBLER */
#pragma GCC diagnostic ignored "-Wunused-parameter"

#define OUTPUTS TATVPR_COLS_OUTPUTS
#define PAIRS TATVPR_SPARSE_PAIRS
#define LIST_PART 256

/* r4-r9 = sums of the six pairs over `count` entries of a list, at least one.
 * r0 index, r1 value, r2 weights, r3 count, then address; r10 activation, r11 r12 lr weights.
 *
 * Eight entries a turn; the first turn begins where it ends with the list. Index and activation
 * of an entry are loaded before the entry is due: one entry past the end is read, and not used.
 * [sp] to [sp, #36] are what was pushed. */
#define VISIT                                                                                     \
    "push {r3-r11, lr}\n"                                                                         \
    "add r12, r0, r3, lsl #1\n"                                                                   \
    "add r12, r12, #2\n"                                                                          \
    "str r12, [sp]\n" /* where r0 will be */                                                      \
    "rsb r12, r3, #0\n"                                                                           \
    "and r12, r12, #7\n"                                                                          \
    "ldrh r3, [r0], #2\n"                                                                         \
    "ldrsb r10, [r1], #1\n"                                                                       \
    "mov r4, #0\nmov r5, #0\nmov r6, #0\nmov r7, #0\nmov r8, #0\nmov r9, #0\n"                    \
    "add r3, r2, r3, lsl #5\n"                                                                    \
    "tbb [pc, r12]\n"                                                                             \
    ".byte 4, 26, 48, 70, 92, 114, 136, 158\n" /* halfwords from here: an entry is 44 bytes */    \
    "1:\n"                                                                                        \
    ".rept 8\n"                                                                                   \
    "ldm.w r3!, {r11, r12, lr}\n"                                                                 \
    "mla r4, r10, r11, r4\n"                                                                      \
    "mla r6, r10, lr, r6\n"                                                                       \
    "mla r5, r10, r12, r5\n"                                                                      \
    "ldm.w r3, {r11, r12, lr}\n"                                                                  \
    "ldrh.w r3, [r0], #2\n"                                                                       \
    "mla r8, r10, r12, r8\n"                                                                      \
    "mla r9, r10, lr, r9\n"                                                                       \
    "mla r7, r10, r11, r7\n"                                                                      \
    "add.w r3, r2, r3, lsl #5\n"                                                                  \
    "ldrsb.w r10, [r1], #1\n"                                                                     \
    ".endr\n"                                                                                     \
    "ldr r11, [sp]\n"                                                                             \
    "cmp r0, r11\n"                                                                               \
    "bne 1b\n"

/* pairs[i] = sums of outputs 2 i and 2 i + 1. */
TATVPR_ASSEMBLER static void visit(const uint16_t *index, const int8_t *value,
                                   const uint32_t *unpacked, int32_t count,
                                   uint32_t *pairs) {
    __asm volatile(VISIT
                   "ldr r3, [sp, #40]\n"
                   "stm r3, {r4-r9}\n"
                   "pop {r3-r11, pc}\n");
}

/* Where the twelve outputs of a token come from and go to, in the order of r0 to r3. */
typedef struct destination {
    const float *bias;
    const float *scale;
    const float *residual;
    float *y;
    float s;
} destination;

/* Six outputs of the pairs A, B, C: y = (sum * s) * scale + bias [+ residual], unfused. r0-r3 as in
 * `destination`, s14 = s, s15 = scale. A low half is converted where it lies; a high half borrowed
 * for a negative low one, which adding 0x8000 gives back. s0 s3 s1 s4 s2 s5 are outputs 0 to 5. */
#define SIX(A, B, C, SCALE, RESIDUAL)                                                             \
    "vmov s0, s1, " A ", " B "\n"                                                                 \
    "vmov s2, " C "\n"                                                                            \
    "add " A ", " A ", #0x8000\n"                                                                 \
    "add " B ", " B ", #0x8000\n"                                                                 \
    "add " C ", " C ", #0x8000\n"                                                                 \
    "asr " A ", " A ", #16\n"                                                                     \
    "asr " B ", " B ", #16\n"                                                                     \
    "asr " C ", " C ", #16\n"                                                                     \
    "vmov s3, s4, " A ", " B "\n"                                                                 \
    "vmov s5, " C "\n"                                                                            \
    "vcvt.f32.s16 s0, s0, #0\nvcvt.f32.s16 s1, s1, #0\nvcvt.f32.s16 s2, s2, #0\n"                 \
    "vcvt.f32.s32 s3, s3\nvcvt.f32.s32 s4, s4\nvcvt.f32.s32 s5, s5\n"                             \
    "vmul.f32 s0, s0, s14\nvmul.f32 s1, s1, s14\nvmul.f32 s2, s2, s14\n"                          \
    "vmul.f32 s3, s3, s14\nvmul.f32 s4, s4, s14\nvmul.f32 s5, s5, s14\n"                          \
    SCALE                                                                                         \
    "vldm r0!, {s6-s11}\n"                                                                        \
    "vadd.f32 s6, s0, s6\nvadd.f32 s7, s3, s7\nvadd.f32 s8, s1, s8\n"                             \
    "vadd.f32 s9, s4, s9\nvadd.f32 s10, s2, s10\nvadd.f32 s11, s5, s11\n"                         \
    RESIDUAL                                                                                      \
    "vstm r3!, {s6-s11}\n"

#define ONE_SCALE                                                                                 \
    "vmul.f32 s0, s0, s15\nvmul.f32 s1, s1, s15\nvmul.f32 s2, s2, s15\n"                          \
    "vmul.f32 s3, s3, s15\nvmul.f32 s4, s4, s15\nvmul.f32 s5, s5, s15\n"
#define SCALES                                                                                    \
    "vldm r1!, {s6-s11}\n"                                                                        \
    "vmul.f32 s0, s0, s6\nvmul.f32 s3, s3, s7\nvmul.f32 s1, s1, s8\n"                             \
    "vmul.f32 s4, s4, s9\nvmul.f32 s2, s2, s10\nvmul.f32 s5, s5, s11\n"
#define RESIDUALS                                                                                 \
    "vldm r2!, {s0-s5}\n"                                                                         \
    "vadd.f32 s6, s0, s6\nvadd.f32 s7, s1, s7\nvadd.f32 s8, s2, s8\n"                             \
    "vadd.f32 s9, s3, s9\nvadd.f32 s10, s4, s10\nvadd.f32 s11, s5, s11\n"

/* Twelve outputs of one token whose list has one part. */
#define DEFINE_TOKEN(NAME, SCALE, RESIDUAL)                                                       \
    TATVPR_ASSEMBLER static void NAME(                                                            \
        const uint16_t *index, const int8_t *value, const uint32_t *unpacked, int32_t count,      \
        const destination *to) {                                                                  \
        __asm volatile(VISIT                                                                      \
                       "ldr r12, [sp, #40]\n"                                                     \
                       "ldm r12, {r0-r3}\n"                                                       \
                       "vldr s14, [r12, #16]\n"                                                   \
                       "vldr s15, [r1]\n"                                                         \
                       SIX("r4", "r5", "r6", SCALE, RESIDUAL)                                     \
                       SIX("r7", "r8", "r9", SCALE, RESIDUAL)                                     \
                       "pop {r3-r11, pc}\n");                                                     \
    }

DEFINE_TOKEN(one_scale, ONE_SCALE, "")
DEFINE_TOKEN(one_scale_added, ONE_SCALE, RESIDUALS)
DEFINE_TOKEN(scales, SCALES, "")
DEFINE_TOKEN(scales_added, SCALES, RESIDUALS)

typedef void token_outputs(const uint16_t *index, const int8_t *value, const uint32_t *unpacked,
                           int32_t count, const destination *to);

static token_outputs *token_of(const tatvpr_matmul *job) {
    if (job->op->scale_per_row) {
        return job->residual != NULL ? scales_added : scales;
    }
    return job->residual != NULL ? one_scale_added : one_scale;
}

/* Tokens t .. for as long as their lists have one part, for a whole tile of outputs; answers the
 * first token that is left. */
static int32_t whole_tiles(const tatvpr_matmul *job, int32_t t, int32_t n0,
                           const uint32_t *unpacked) {
    const tatvpr_tile *tile = job->tile;
    token_outputs *const outputs = token_of(job);
    const ptrdiff_t first = (ptrdiff_t)t * tile->list_stride;
    const ptrdiff_t at = (ptrdiff_t)t * job->y_stride + n0;
    const uint16_t *index = tile->index + first;
    const int8_t *value = tile->value + first;
    destination to;
    to.bias = job->bias + n0;
    to.scale = job->scale + (job->op->scale_per_row ? n0 : 0);
    to.residual = job->residual == NULL ? NULL : job->residual + at;
    to.y = job->y + at;
    const ptrdiff_t list_stride = tile->list_stride;
    const ptrdiff_t y_stride = job->y_stride;
    const ptrdiff_t residual_stride = job->residual == NULL ? 0 : y_stride;
    for (; t < tile->tokens; t++) {
        const int32_t count = tile->count[t];
        if (count == 0 || count > LIST_PART) {
            break;
        }
        to.s = tile->s[t];
        outputs(index, value, unpacked, count, &to);
        index += list_stride;
        value += list_stride;
        to.y += y_stride;
        to.residual += residual_stride;
    }
    return t;
}

static inline int32_t low_sum(uint32_t pair) { return (int16_t)pair; }
/* low + 0x8000 is 0 to 65535: it carries into the high half exactly what low borrowed */
static inline int32_t high_sum(uint32_t pair) { return (int32_t)(pair + 0x8000u) >> 16; }

/* One token's whole list to `sums` [OUTPUTS]. */
static void visit_list(const uint16_t *index, const int8_t *value, int32_t count,
                       const uint32_t *unpacked, int32_t *sums) {
    uint32_t pairs[PAIRS];
    for (int32_t i = 0; i < OUTPUTS; i++) {
        sums[i] = 0;
    }
    for (int32_t first = 0; first < count; first += LIST_PART) {
        visit(index + first, value + first, unpacked, tatvpr_min_i32(LIST_PART, count - first),
              pairs);
        for (int32_t i = 0; i < PAIRS; i++) {
            sums[2 * i] += low_sum(pairs[i]);
            sums[2 * i + 1] += high_sum(pairs[i]);
        }
    }
}

TATVPR_DEFINE_EPILOGUE(outputs_of_32, int32_t)

void tatvpr_dsp_sparse(const tatvpr_matmul *job) {
    const tatvpr_tile *tile = job->tile;
    uint32_t *unpacked = (uint32_t *)(void *)job->panel;
    for (int32_t n0 = 0; n0 < job->op->n_out; n0 += OUTPUTS) {
        const int32_t outputs = tatvpr_min_i32(OUTPUTS, job->op->n_out - n0);
        tatvpr_dsp_unpack(job, n0, unpacked);
        for (int32_t t = 0; t < tile->tokens; t++) {
            if (outputs == OUTPUTS) {
                t = whole_tiles(job, t, n0, unpacked);
                if (t == tile->tokens) {
                    break;
                }
            }
            const ptrdiff_t first = (ptrdiff_t)t * tile->list_stride;
            int32_t sums[OUTPUTS];
            visit_list(tile->index + first, tile->value + first, tile->count[t], unpacked, sums);
            outputs_of_32(job, t, n0, outputs, sums, 1);
        }
    }
}

void tatvpr_dsp_all_channels(const tatvpr_matmul *job) {
    const tatvpr_tile *tile = job->tile;
    uint32_t *unpacked = (uint32_t *)(void *)job->panel;
    uint16_t index[LIST_PART + 1]; /* every part lists all of its channels; visit() reads one more */
    for (int32_t i = 0; i <= LIST_PART; i++) {
        index[i] = (uint16_t)i;
    }
    for (int32_t n0 = 0; n0 < job->op->n_out; n0 += OUTPUTS) {
        const int32_t outputs = tatvpr_min_i32(OUTPUTS, job->op->n_out - n0);
        tatvpr_dsp_unpack(job, n0, unpacked);
        for (int32_t t = 0; t < tile->tokens; t++) {
            const int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
            int32_t sums[OUTPUTS] = {0};
            for (int32_t first = 0; first < tile->k_in; first += LIST_PART) {
                const int32_t count = tatvpr_min_i32(LIST_PART, tile->k_in - first);
                int32_t part[OUTPUTS];
                visit_list(index, q + first, count, unpacked + first * TATVPR_SPARSE_ROW_WORDS,
                           part);
                for (int32_t i = 0; i < OUTPUTS; i++) {
                    sums[i] += part[i];
                }
            }
            outputs_of_32(job, t, n0, outputs, sums, 1);
        }
    }
}

#endif
