/* What the files of the sparse matmul share. */
#ifndef TATVPR_DSP_SPARSE_H
#define TATVPR_DSP_SPARSE_H

#include "../mcu.h"

#define TATVPR_SPARSE_PAIRS (TATVPR_COLS_OUTPUTS / 2)
#define TATVPR_SPARSE_ROW_WORDS 8 /* of a channel: pairs and two unused, so that an address is a shift */

/* Weights of outputs n0 .. n0 + 11 to unpacked [K rounded up to 16][TATVPR_SPARSE_ROW_WORDS] */
void tatvpr_dsp_unpack(const tatvpr_matmul *job, int32_t n0, uint32_t *unpacked);

#endif
