/* The variant of Cortex-M55: Helium. */
#include "../mcu.h"

#if defined(TATVPR_MCU_HELIUM)

/* Estimated cycles (tools/mcu_break_even.py). */
static const tatvpr_costs costs = {
    .family = "cortex-m55",
    .blocks = {{32, 219.80f, 18.14f, 201.20f, 57.42f, 0.0f, 0.0f}},
    .list_channel = 2.63f,
    .unpack_four = 52.85f,
};

static const tatvpr_costs *helium_costs(void) { return &costs; }

TATVPR_VARIANT(helium, TATVPR_MCU_TABLE,
    .name = "cortexm-helium",
    .quantise = tatvpr_helium_quantise,
    .select = tatvpr_helium_select,
    .layer_norm = tatvpr_helium_layer_norm,
    .gelu = tatvpr_helium_gelu,
    .dense = tatvpr_helium_dense,
    .sparse = tatvpr_helium_sparse,
    .costs = helium_costs,
    .patch_embed = tatvpr_helium_patch_embed,
    .attention = tatvpr_helium_attention
)

#endif
