/* What the dense matmuls by look-up tables share (TATVPR_LAYOUT_LUT4; dsp_dense.c tells how they
 * work). */
#ifndef TATVPR_MCU_LUT4_H
#define TATVPR_MCU_LUT4_H

#include "../common/core.h"
#include "mcu.h"

#define PASS_TOKENS 8
#define ENTRIES 81            /* 3^4 */
#define ENTRY_WORDS 4         /* eight tokens' sums of 16 bits */
#define BLOCK_WORDS 6         /* of weights a row: 24 bytes, 96 channels */
#define TABLE_WORDS (4 * BLOCK_WORDS * ENTRIES * ENTRY_WORDS)
#define BLOCKS_PER_WIDENING 2 /* 192 channels <= 258 */

/* 1: 16-bit sums hold all channels of a row. */
static inline int is_narrow(const tatvpr_ternary *op) {
    return tatvpr_lut4_row_words(op->k_in) <= BLOCKS_PER_WIDENING * BLOCK_WORDS;
}

#endif
