/* The variant of Cortex-M55: Helium. */
#include "../mcu.h"

#if defined(TATVPR_MCU_HELIUM)

TATVPR_VARIANT(helium, TATVPR_MCU_TABLE,
    .name = "cortexm-helium",
    .quantise = tatvpr_helium_quantise,
    .select = tatvpr_helium_select,
    .layer_norm = tatvpr_helium_layer_norm,
    .gelu = tatvpr_helium_gelu,
    .dense = tatvpr_helium_dense,
    .sparse = tatvpr_helium_sparse,
    .sparse_below = tatvpr_helium_sparse_below,
    .patch_embed = tatvpr_helium_patch_embed,
    .attention = tatvpr_helium_attention
)

#endif
