/* The kernel table of a microcontroller build: one variant, chosen by the compiler's target. */
#include "../common/core.h"
#include "cortexm.h"

#if defined(__ARM_FEATURE_MVE)

const tatvpr_kernels tatvpr_kernels_cortexm = {
    .name = "cortexm-helium",
    .usable = tatvpr_portable_usable,
    .in_place = TATVPR_LAYOUT_BIT(TATVPR_LAYOUT_ROWS2),
    .quantise = tatvpr_helium_quantise,
    .select = tatvpr_helium_select,
    .layer_norm = tatvpr_helium_layer_norm,
    .gelu = tatvpr_helium_gelu,
    .dense = tatvpr_helium_dense,
    .sparse = tatvpr_helium_sparse,
    .sparse_below = tatvpr_helium_sparse_below,
    .patch_embed = tatvpr_helium_patch_embed,
    .attention = tatvpr_helium_attention,
    .dot_i8 = tatvpr_portable_dot_i8,
    .hamming = tatvpr_portable_hamming,
};

#elif defined(__ARM_FEATURE_DSP)

const tatvpr_kernels tatvpr_kernels_cortexm = {
    .name = "cortexm-dsp",
    .usable = tatvpr_portable_usable,
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
    .attention = tatvpr_dsp_attention,
    .dot_i8 = tatvpr_portable_dot_i8,
    .hamming = tatvpr_portable_hamming,
};

#else

const tatvpr_kernels tatvpr_kernels_cortexm = {
    .name = "rv32-tables",
    .usable = tatvpr_portable_usable,
    .in_place = TATVPR_LAYOUT_BIT(TATVPR_LAYOUT_LUT4),
    .quantise = tatvpr_portable_quantise,
    .select = tatvpr_portable_select,
    .layer_norm = tatvpr_portable_layer_norm,
    .gelu = tatvpr_portable_gelu,
    .dense = tatvpr_plain_dense,
    .sparse = tatvpr_plain_sparse,
    .sparse_below = tatvpr_plain_sparse_below,
    .patch_embed = tatvpr_portable_patch_embed,
    .attention = tatvpr_portable_attention,
    .dot_i8 = tatvpr_portable_dot_i8,
    .hamming = tatvpr_portable_hamming,
};

#endif
