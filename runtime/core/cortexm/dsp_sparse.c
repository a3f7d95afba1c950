/* Exact sparse ternary matmul on Cortex-M4 and M7: only the kept channels are visited.
 *
 * Twelve outputs at a time: their weights are unpacked once for all tokens of the tile to words
 * low + high * 65536 (two outputs), so that one multiply-accumulate serves two outputs. The lanes
 * are 16 bits: safe for 258 channels of |q| <= 127, so lists are taken 256 entries at a time.
 */
#include "../common/core.h"

#if defined(__ARM_FEATURE_DSP) && !defined(__ARM_FEATURE_MVE)

#include "cortexm.h"
#include "epilogue.h"

#define OUTPUTS TATVPR_COLS_OUTPUTS
#define PAIRS (OUTPUTS / 2)
#define ROW_WORDS 8 /* of an unpacked channel: PAIRS and two unused, so that an address is a shift */
#define LIST_PART 256

typedef struct visit_job {
    uint32_t sums[PAIRS]; /* in and out: outputs 2 i and 2 i + 1 */
    const uint16_t *index;
    const int8_t *value;
    const uint32_t *unpacked; /* [K][ROW_WORDS] */
    const uint16_t *end;      /* of index; a multiple of four entries, at least four */
} visit_job;

/* r4-r9 sums, r0 index, r1 value, r2 weights, r3 address, r10 activation, r11 r12 lr weights */
__attribute__((naked, noinline)) static void visit(visit_job *job) {
    (void)job;
    __asm volatile(
        "push {r0, r4-r11, lr}\n"
        "mov r12, r0\n"
        "ldm r12!, {r4-r9}\n"
        "ldm r12, {r0-r3}\n"
        "push {r3}\n" /* the end */
        ".macro ONE\n"
        " ldrh r3, [r0], #2\n ldrsb r10, [r1], #1\n add r3, r2, r3, lsl #5\n"
        " ldm r3!, {r11, r12, lr}\n"
        " mla r4, r10, r11, r4\n mla r5, r10, r12, r5\n mla r6, r10, lr, r6\n"
        " ldm r3, {r11, r12, lr}\n"
        " mla r7, r10, r11, r7\n mla r8, r10, r12, r8\n mla r9, r10, lr, r9\n"
        ".endm\n"
        "1:\n"
        "ONE\nONE\nONE\nONE\n"
        "ldr r3, [sp]\n"
        "cmp r0, r3\n"
        "bne 1b\n"
        "pop {r3}\n"
        "ldr r0, [sp]\n"
        "stm r0, {r4-r9}\n"
        "pop {r0, r4-r11, pc}\n"
        ".purgem ONE\n");
}

/* TATVPR_LAYOUT_MCU_COLS: the tile's bytes lie in the order in which they are needed. */
static void unpack_columns(const uint8_t *stored, int32_t k_in, uint32_t *unpacked) {
    for (int32_t c = 0; c < k_in; c++, stored += 3, unpacked += ROW_WORDS) {
        const uint32_t *a = tatvpr_trit_pairs[stored[0]];
        const uint32_t *b = tatvpr_trit_pairs[stored[1]];
        const uint32_t *d = tatvpr_trit_pairs[stored[2]];
        unpacked[0] = a[0];
        unpacked[1] = a[1];
        unpacked[2] = b[0];
        unpacked[3] = b[1];
        unpacked[4] = d[0];
        unpacked[5] = d[1];
    }
}

/* TATVPR_LAYOUT_LUT4: two rows at a time are transposed. */
static void unpack_rows(const tatvpr_ternary *op, const uint8_t *stored, int32_t n0,
                        uint32_t *unpacked) {
    const int32_t row_bytes = 4 * tatvpr_lut4_row_words(op->k_in);
    static const uint8_t zeros = 40;
    for (int32_t pair = 0; pair < PAIRS; pair++) {
        const int32_t n = n0 + 2 * pair;
        const uint8_t *low = n < op->n_out ? stored + (ptrdiff_t)n * row_bytes : &zeros;
        const uint8_t *high = n + 1 < op->n_out ? stored + (ptrdiff_t)(n + 1) * row_bytes : &zeros;
        const ptrdiff_t low_step = n < op->n_out;
        const ptrdiff_t high_step = n + 1 < op->n_out;
        uint32_t *to = unpacked + pair;
        for (int32_t c = 0; c < op->k_in; c += 4, to += 4 * ROW_WORDS) {
            const uint32_t *l = tatvpr_trit_pairs[*low];
            const uint32_t *h = tatvpr_trit_pairs[*high];
            low += low_step;
            high += high_step;
            for (int32_t i = 0; i < 2; i++) { /* channels c + 2 i and c + 2 i + 1 */
                const int32_t l0 = (int16_t)l[i];
                const int32_t l1 = ((int32_t)l[i] - l0) >> 16;
                const uint32_t h0 = h[i] << 16;
                const uint32_t h1 = h[i] - (uint32_t)(int32_t)(int16_t)h[i];
                if (c + 2 * i < op->k_in) {
                    to[2 * i * ROW_WORDS] = (uint32_t)l0 + h0;
                }
                if (c + 2 * i + 1 < op->k_in) {
                    to[(2 * i + 1) * ROW_WORDS] = (uint32_t)l1 + h1;
                }
            }
        }
    }
}

TATVPR_DEFINE_EPILOGUE(outputs_of_32, int32_t)

/* One token: `count` entries, a multiple of four, added to `sums` [OUTPUTS]. */
static void visit_list(const uint16_t *index, const int8_t *value, int32_t count,
                       const uint32_t *unpacked, int32_t *sums) {
    visit_job visits;
    visits.unpacked = unpacked;
    for (int32_t first = 0; first < count; first += LIST_PART) {
        for (int32_t i = 0; i < PAIRS; i++) {
            visits.sums[i] = 0;
        }
        visits.index = index + first;
        visits.value = value + first;
        visits.end = index + tatvpr_min_i32(first + LIST_PART, count);
        visit(&visits);
        for (int32_t i = 0; i < PAIRS; i++) {
            const int32_t low = (int16_t)visits.sums[i];
            const int32_t high = (int32_t)(visits.sums[i] - (uint32_t)low) >> 16;
            sums[2 * i] = first == 0 ? low : sums[2 * i] + low;
            sums[2 * i + 1] = first == 0 ? high : sums[2 * i + 1] + high;
        }
    }
}

static void unpack_tile(const tatvpr_matmul *job, int32_t n0, uint32_t *unpacked) {
    const tatvpr_ternary *op = job->op;
    if (op->layout == TATVPR_LAYOUT_MCU_COLS) {
        unpack_columns(job->weight + (ptrdiff_t)(n0 / OUTPUTS) * op->k_in * 3, op->k_in, unpacked);
    } else {
        unpack_rows(op, job->weight, n0, unpacked);
    }
}

void tatvpr_dsp_sparse(const tatvpr_matmul *job) {
    const tatvpr_tile *tile = job->tile;
    uint32_t *unpacked = (uint32_t *)(void *)job->panel;
    for (int32_t n0 = 0; n0 < job->op->n_out; n0 += OUTPUTS) {
        const int32_t outputs = tatvpr_min_i32(OUTPUTS, job->op->n_out - n0);
        unpack_tile(job, n0, unpacked);
        for (int32_t t = 0; t < tile->tokens; t++) {
            int32_t sums[OUTPUTS] = {0};
            visit_list(tile->index + (ptrdiff_t)t * tile->list_stride,
                       tile->value + (ptrdiff_t)t * tile->list_stride, (tile->count[t] + 3) & ~3,
                       unpacked, sums);
            outputs_of_32(job, t, n0, outputs, sums, 1);
        }
    }
}

void tatvpr_dsp_all_channels(const tatvpr_matmul *job) {
    const tatvpr_tile *tile = job->tile;
    uint32_t *unpacked = (uint32_t *)(void *)job->panel;
    uint16_t index[64];
    for (int32_t n0 = 0; n0 < job->op->n_out; n0 += OUTPUTS) {
        const int32_t outputs = tatvpr_min_i32(OUTPUTS, job->op->n_out - n0);
        unpack_tile(job, n0, unpacked);
        for (int32_t t = 0; t < tile->tokens; t++) {
            const int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
            int32_t sums[OUTPUTS] = {0};
            for (int32_t first = 0; first < tile->k_in; first += 64) {
                const int32_t count = tatvpr_min_i32(64, tile->k_in - first);
                int32_t part[OUTPUTS] = {0};
                for (int32_t i = 0; i < 64; i++) { /* padding of q is 0: any channel will do */
                    index[i] = (uint16_t)(i < count ? first + i : first);
                }
                visit_list(index, q + first, (count + 3) & ~3, unpacked, part);
                for (int32_t i = 0; i < OUTPUTS; i++) {
                    sums[i] += part[i];
                }
            }
            outputs_of_32(job, t, n0, outputs, sums, 1);
        }
    }
}

#endif
