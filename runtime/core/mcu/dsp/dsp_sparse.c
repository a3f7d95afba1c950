/* Exact sparse ternary matmul on Cortex-M4 and M7: only the kept channels are visited.
 *
 * Twelve outputs at a time: their weights are unpacked once for all tokens of the tile to words
 * low + high * 65536 (two outputs), so that one multiply-accumulate serves two outputs. The lanes
 * are 16 bits: safe for 258 channels of |q| <= 127, so lists are taken 256 entries at a time.
 */
#include "../../common/core.h"

#if defined(TATVPR_MCU_DSP)

#include "../mcu.h"
#include "../epilogue.h"

#define OUTPUTS TATVPR_COLS_OUTPUTS
#define PAIRS (OUTPUTS / 2)
#define ROW_WORDS 8 /* of an unpacked channel: PAIRS and two unused, so that an address is a shift */
#define LIST_PART 256

/* pairs[i] = sums of outputs 2 i and 2 i + 1 over the list from `index` to `end` (a multiple of
 * four entries, at least four). `unpacked` is [K][ROW_WORDS].
 * r0 index, r1 value, r2 weights, r3 address, r4-r9 sums, r10 activation, r11 r12 lr weights */
__attribute__((naked, noinline)) static void visit(const uint16_t *index, const int8_t *value,
                                                   const uint32_t *unpacked, const uint16_t *end,
                                                   uint32_t *pairs) {
    (void)index;
    (void)value;
    (void)unpacked;
    (void)end;
    (void)pairs;
    __asm volatile(
        "push {r3-r11, lr}\n" /* [sp] = end, [sp + 40] = pairs */
        "mov r4, #0\nmov r5, #0\nmov r6, #0\nmov r7, #0\nmov r8, #0\nmov r9, #0\n"
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
        "ldr r3, [sp, #40]\n"
        "stm r3, {r4-r9}\n"
        "pop {r3-r11, pc}\n"
        ".purgem ONE\n");
}

static inline int32_t low_sum(uint32_t pair) { return (int16_t)pair; }
/* low + 0x8000 is 0 to 65535: it carries into the high half exactly what low borrowed */
static inline int32_t high_sum(uint32_t pair) { return (int32_t)(pair + 0x8000u) >> 16; }

/* TATVPR_LAYOUT_MCU_COLS: the tile's bytes lie in the order in which they are needed. */
static void unpack_columns(const uint8_t *stored, int32_t k_in, uint32_t *unpacked) {
#pragma GCC unroll 4
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

/* One token: `count` entries, a multiple of four, to `sums` [OUTPUTS]. */
static void visit_list(const uint16_t *index, const int8_t *value, int32_t count,
                       const uint32_t *unpacked, int32_t *sums) {
    uint32_t pairs[PAIRS];
    for (int32_t i = 0; i < OUTPUTS; i++) {
        sums[i] = 0;
    }
    for (int32_t first = 0; first < count; first += LIST_PART) {
        visit(index + first, value + first, unpacked,
              index + tatvpr_min_i32(first + LIST_PART, count), pairs);
        for (int32_t i = 0; i < PAIRS; i++) {
            sums[2 * i] += low_sum(pairs[i]);
            sums[2 * i + 1] += high_sum(pairs[i]);
        }
    }
}

/* Tokens t .. for as long as their lists have one part, for a whole tile of outputs; answers the
 * first token that is left. What differs between matrices is constant where this is inlined. */
static inline __attribute__((always_inline)) int32_t
whole_tiles(const tatvpr_matmul *job, int32_t t, int32_t n0, const uint32_t *unpacked, int per_row,
            int add) {
    const tatvpr_tile *tile = job->tile;
    const float *scale = job->scale + (per_row ? n0 : 0);
    const float *bias = job->bias + n0;
    const float one_scale = scale[0];
    const ptrdiff_t at = (ptrdiff_t)t * job->y_stride + n0;
    const float *residual = add ? job->residual + at : NULL;
    float *y = job->y + at;
    for (; t < tile->tokens; t++, y += job->y_stride, residual += add ? job->y_stride : 0) {
        const int32_t count = tile->count[t];
        if (count == 0 || count > LIST_PART) {
            break;
        }
        const ptrdiff_t first = (ptrdiff_t)t * tile->list_stride;
        const float s = tile->s[t];
        uint32_t pairs[PAIRS];
        visit(tile->index + first, tile->value + first, unpacked,
              tile->index + first + ((count + 3) & ~3), pairs);
#pragma GCC unroll 6
        for (int32_t i = 0; i < PAIRS; i++) {
            const float low = ((float)low_sum(pairs[i]) * s) * (per_row ? scale[2 * i] : one_scale);
            const float high =
                ((float)high_sum(pairs[i]) * s) * (per_row ? scale[2 * i + 1] : one_scale);
            const float y0 = low + bias[2 * i];
            const float y1 = high + bias[2 * i + 1];
            y[2 * i] = add ? residual[2 * i] + y0 : y0;
            y[2 * i + 1] = add ? residual[2 * i + 1] + y1 : y1;
        }
    }
    return t;
}

static int32_t choose_whole_tiles(const tatvpr_matmul *job, int32_t t, int32_t n0,
                                  const uint32_t *unpacked) {
    if (job->op->scale_per_row) {
        return job->residual != NULL ? whole_tiles(job, t, n0, unpacked, 1, 1)
                                     : whole_tiles(job, t, n0, unpacked, 1, 0);
    }
    return job->residual != NULL ? whole_tiles(job, t, n0, unpacked, 0, 1)
                                 : whole_tiles(job, t, n0, unpacked, 0, 0);
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
            if (outputs == OUTPUTS) {
                t = choose_whole_tiles(job, t, n0, unpacked);
                if (t == tile->tokens) {
                    break;
                }
            }
            const int32_t count = (tile->count[t] + 3) & ~3;
            int32_t sums[OUTPUTS];
            visit_list(tile->index + (ptrdiff_t)t * tile->list_stride,
                       tile->value + (ptrdiff_t)t * tile->list_stride, count, unpacked, sums);
            outputs_of_32(job, t, n0, outputs, sums, 1);
        }
    }
}

/* Break-even by instructions counted in an emulator (docs/microcontrollers.md). */
float tatvpr_dsp_sparse_below(const tatvpr_ternary *op, int32_t group) {
    (void)group;
    return op->layout == TATVPR_LAYOUT_MCU_COLS ? 0.5f : 0.2f;
}

void tatvpr_dsp_all_channels(const tatvpr_matmul *job) {
    const tatvpr_tile *tile = job->tile;
    uint32_t *unpacked = (uint32_t *)(void *)job->panel;
    uint16_t index[LIST_PART]; /* every part lists all of its channels */
    for (int32_t i = 0; i < LIST_PART; i++) {
        index[i] = (uint16_t)i;
    }
    for (int32_t n0 = 0; n0 < job->op->n_out; n0 += OUTPUTS) {
        const int32_t outputs = tatvpr_min_i32(OUTPUTS, job->op->n_out - n0);
        unpack_tile(job, n0, unpacked);
        for (int32_t t = 0; t < tile->tokens; t++) {
            const int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
            int32_t sums[OUTPUTS] = {0};
            for (int32_t first = 0; first < tile->k_in; first += LIST_PART) {
                const int32_t count = tatvpr_min_i32(LIST_PART, tile->k_in - first);
                int32_t part[OUTPUTS];
                /* past the last channel q is 0, and the panel has room to be read */
                visit_list(index, q + first, (count + 3) & ~3, unpacked + first * ROW_WORDS, part);
                for (int32_t i = 0; i < OUTPUTS; i++) {
                    sums[i] += part[i];
                }
            }
            outputs_of_32(job, t, n0, outputs, sums, 1);
        }
    }
}

#endif
