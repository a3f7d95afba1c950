/* The variant of Cortex-M4 and M7: packed arithmetic, look-up tables or columns. */
#include "../mcu.h"

#if defined(TATVPR_MCU_DSP)

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
    .sparse_below = tatvpr_dsp_sparse_below,
    .patch_embed = tatvpr_dsp_patch_embed,
    .attention = tatvpr_dsp_attention
)

#endif
