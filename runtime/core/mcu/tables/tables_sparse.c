/* Exact sparse ternary matmul on cores without vectors or packed arithmetic (RV32IMAC).
 *
 * Sixteen outputs at a time: their weights (TATVPR_LAYOUT_LUT4) are unpacked once for all tokens of
 * the tile to words low + high * 65536, so that one multiplication serves two outputs. Safe for
 * 258 channels of |q| <= 127: lists are taken 256 entries at a time.
 */
#include "../../common/core.h"

#if defined(TATVPR_MCU_TABLES)

#include "../mcu.h"
#include "tables_epilogue.h"

#define OUTPUTS 16
#define PAIRS (OUTPUTS / 2)
#define LIST_PART 256

/* Two rows, four channels at a time: one word of every unpacked channel. A function of its own, for
 * its registers, where the table's address stays. */
__attribute__((noinline)) static void unpack_two(const uint8_t *low, const uint8_t *high,
                                                 int32_t fours, uint32_t *to) {
    const int32_t(*table)[4] = tatvpr_trit_words;
    __asm("" : "+r"(table));
    for (const uint8_t *end = low + fours; low != end; to += 4 * PAIRS) {
        const int32_t *l = table[*low++];
        const int32_t *h = table[*high++];
        const uint32_t h0 = (uint32_t)h[0] << 16, h1 = (uint32_t)h[1] << 16;
        const uint32_t h2 = (uint32_t)h[2] << 16, h3 = (uint32_t)h[3] << 16;
        const uint32_t l0 = (uint32_t)l[0], l1 = (uint32_t)l[1];
        const uint32_t l2 = (uint32_t)l[2], l3 = (uint32_t)l[3];
        to[0] = l0 + h0;
        to[PAIRS] = l1 + h1;
        to[2 * PAIRS] = l2 + h2;
        to[3 * PAIRS] = l3 + h3;
    }
}

/* Rows n0 .. n0 + 15 to unpacked[K rounded up to 4][PAIRS]; missing rows repeat the last one. */
static void unpack(const tatvpr_ternary *op, const uint8_t *stored, int32_t n0,
                   uint32_t *unpacked) {
    const int32_t row_bytes = 4 * tatvpr_lut4_row_words(op->k_in);
    const int32_t last = op->n_out - 1;
    for (int32_t pair = 0; pair < PAIRS; pair++) {
        const int32_t low = tatvpr_min_i32(n0 + 2 * pair, last);
        const int32_t high = tatvpr_min_i32(n0 + 2 * pair + 1, last);
        unpack_two(stored + (ptrdiff_t)low * row_bytes, stored + (ptrdiff_t)high * row_bytes,
                   (op->k_in + 3) / 4, unpacked + pair);
    }
}

/* pairs[i] = sums of outputs 2 i and 2 i + 1 over `count` entries, at most LIST_PART. A function of its
 * own, whose registers are the sums. */
__attribute__((noinline)) static void visit(const uint16_t *index, const int8_t *value,
                                            int32_t count, const uint32_t *unpacked,
                                            uint32_t *pairs) {
    const uint16_t *end = index + count;
    uint32_t c0 = 0, c1 = 0, c2 = 0, c3 = 0, c4 = 0, c5 = 0, c6 = 0, c7 = 0;
    for (; index != end; index++, value++) {
        const uint32_t *w = unpacked + (int32_t)*index * PAIRS;
        const uint32_t a = (uint32_t)(int32_t)*value;
        c0 += a * w[0];
        c1 += a * w[1];
        c2 += a * w[2];
        c3 += a * w[3];
        c4 += a * w[4];
        c5 += a * w[5];
        c6 += a * w[6];
        c7 += a * w[7];
    }
    pairs[0] = c0;
    pairs[1] = c1;
    pairs[2] = c2;
    pairs[3] = c3;
    pairs[4] = c4;
    pairs[5] = c5;
    pairs[6] = c6;
    pairs[7] = c7;
}

/* One token's whole list to `sums`. */
static void visit_list(const uint16_t *index, const int8_t *value, int32_t count,
                       const uint32_t *unpacked, int32_t *sums /* [OUTPUTS] */) {
    uint32_t pairs[PAIRS];
    visit(index, value, tatvpr_min_i32(count, LIST_PART), unpacked, pairs);
    for (int32_t i = 0; i < PAIRS; i++) {
        sums[2 * i] = (int16_t)pairs[i];
        sums[2 * i + 1] = (int32_t)(pairs[i] + 0x8000u) >> 16;
    }
    for (int32_t first = LIST_PART; first < count; first += LIST_PART) {
        visit(index + first, value + first, tatvpr_min_i32(count - first, LIST_PART), unpacked,
              pairs);
        for (int32_t i = 0; i < PAIRS; i++) {
            sums[2 * i] += (int16_t)pairs[i];
            sums[2 * i + 1] += (int32_t)(pairs[i] + 0x8000u) >> 16;
        }
    }
}

void tatvpr_tables_sparse(const tatvpr_matmul *job) {
    const tatvpr_tile *tile = job->tile;
    uint32_t *unpacked = (uint32_t *)(void *)job->panel;
    for (int32_t n0 = 0; n0 < job->op->n_out; n0 += OUTPUTS) {
        unpack(job->op, job->weight, n0, unpacked);
        for (int32_t t = 0; t < tile->tokens; t++) {
            const ptrdiff_t first = (ptrdiff_t)t * tile->list_stride;
            int32_t sums[OUTPUTS];
            visit_list(tile->index + first, tile->value + first, tile->count[t], unpacked, sums);
            tatvpr_tables_outputs(job, t, n0, tatvpr_min_i32(OUTPUTS, job->op->n_out - n0), sums,
                                 1);
        }
    }
}

#endif
