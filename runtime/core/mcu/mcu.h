/* What the files of mcu/ share. Layouts of ternary weights that they read in place:
 *
 * TATVPR_LAYOUT_LUT4      [N][ceil(K / 16)] words; a byte is four weights of one output, channels
 *                         c .. c + 3, as a number of base 3: sum (w_i + 1) * 3^i. Padding: 40.
 * TATVPR_LAYOUT_MCU_COLS  [ceil(N / 12)][K][3] bytes; a byte is four outputs of one channel, in
 *                         base 3 likewise: outputs 4 b .. 4 b + 3 of the tile. Padding: 40.
 * TATVPR_LAYOUT_ROWS2     [N][ceil(K / 4)] bytes, two bits a weight: the file's own.
 *
 * The Python side of this is compilers/mcu/layouts.py.
 */
#ifndef TATVPR_MCU_H
#define TATVPR_MCU_H

#include "../common/kernels.h"

#define TATVPR_COLS_OUTPUTS 12

/* A function that is assembler alone. clang takes no statement in it, so no (void) of a parameter
 * either; a call that a tracer begins it with would lose the arguments. */
#define TATVPR_ASSEMBLER __attribute__((naked, noinline, no_instrument_function))

static inline int32_t tatvpr_lut4_row_words(int32_t k_in) { return (k_in + 15) / 16; }

extern const int32_t tatvpr_trit_words[81][4];

/* The least of the `keep` largest scores, bit by bit; each is below 2^14. */
static inline int32_t tatvpr_least_kept(const int16_t *scores, int32_t groups, int32_t keep) {
    int32_t least = 0;
    for (int32_t bit = 1 << 13; bit > 0; bit /= 2) {
        int32_t reached = 0;
        for (int32_t g = 0; g < groups; g++) {
            reached += scores[g] >= least + bit;
        }
        least += reached >= keep ? bit : 0;
    }
    return least;
}

/* What the variants of mcu/ begin with: plain C, weights read in place and never prepared. */
#define TATVPR_MCU_TABLE TATVPR_PORTABLE_TABLE, .prepared_bytes = NULL, .prepare = NULL

TATVPR_KERNELS_OF(dsp); /* Cortex-M4 and M7 */
/* Dense product of weights that are stored for the sparse kernel: every channel is listed. */
void tatvpr_dsp_all_channels(const tatvpr_matmul *job);

TATVPR_KERNELS_OF(helium);     /* Cortex-M55 */
#define TATVPR_HELIUM_CHUNK 32 /* outputs at a time */
void tatvpr_helium_pairs(const int8_t *weights, int32_t stride, int32_t rows, const int8_t *q,
                         int32_t tokens, int32_t *sums);

TATVPR_KERNELS_OF(tables); /* RV32 and other cores without vectors or packed arithmetic */

#endif
