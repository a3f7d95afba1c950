/* The variant of Cortex-M4 and M7: packed arithmetic, look-up tables or columns. */
#include "../mcu.h"

#if defined(TATVPR_MCU_DSP)

/* Estimated cycles of a Cortex-M4 (tools/mcu_break_even.py): an M7 meets .02 of k later. Weights in
 * rows; dense takes tables for each channel. */
static const tatvpr_costs costs = {
    .family = "cortex-m4",
    .blocks = {{12, 74.97f, 22.89f, 194.65f, 69.25f, 0.0f, 0.0f}},
    .list_channel = -29.82f,
    .unpack_four = 142.80f,
};

static const tatvpr_costs *dsp_costs(void) { return &costs; }

TATVPR_VARIANT(dsp, TATVPR_MCU_TABLE,
    .name = "cortexm-dsp",
    .in_place =
        TATVPR_LAYOUT_BIT(TATVPR_LAYOUT_LUT4) | TATVPR_LAYOUT_BIT(TATVPR_LAYOUT_MCU_COLS),
    .quantise = tatvpr_dsp_quantise,
    .select = tatvpr_dsp_select,
    .layer_norm = tatvpr_dsp_layer_norm,
    .gelu = tatvpr_dsp_gelu,
    .dense = tatvpr_dsp_dense,
    .sparse = tatvpr_dsp_sparse,
    .costs = dsp_costs,
    .patch_embed = tatvpr_dsp_patch_embed,
    .attention = tatvpr_dsp_attention
)

#endif
