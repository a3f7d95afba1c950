/* The variant of cores without vectors or packed arithmetic (RV32IMAC): matmuls by look-up tables,
 * other products by blocks of four rows and four rows, all in C. */
#include "../mcu.h"

#if defined(TATVPR_MCU_TABLES)

/* Estimated cycles of an RV32F core (tools/mcu_break_even.py): soft-float steps are the same in both
 * products. Dense takes tables for each channel. */
static const tatvpr_costs costs = {
    .family = "rv32f",
    .blocks = {{16, 190.10f, 30.22f, 504.31f, 187.72f, 0.0f, 0.0f}},
    .list_channel = -22.73f,
    .unpack_four = 251.74f,
};

static const tatvpr_costs *tables_costs(void) { return &costs; }

TATVPR_VARIANT(tables, TATVPR_MCU_TABLE,
    .name = "rv32-tables",
    .in_place = TATVPR_LAYOUT_BIT(TATVPR_LAYOUT_LUT4),
    .quantise = tatvpr_tables_quantise,
    .select = tatvpr_tables_select,
    .layer_norm = TATVPR_LAYER_NORM(tatvpr_tables_layer_norm),
    .dense = tatvpr_tables_dense,
    .sparse = tatvpr_tables_sparse,
    .costs = tables_costs,
    .patch_embed = tatvpr_tables_patch_embed,
    .attention = tatvpr_tables_attention
)

#endif
