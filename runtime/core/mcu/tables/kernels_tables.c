/* The variant of cores without vectors or packed arithmetic (RV32IMAC): matmuls by look-up tables,
 * other products by blocks of four rows and four rows, all in C. */
#include "../mcu.h"

#if defined(TATVPR_MCU_TABLES)

TATVPR_VARIANT(tables, TATVPR_MCU_TABLE,
    .name = "rv32-tables",
    .in_place = TATVPR_LAYOUT_BIT(TATVPR_LAYOUT_LUT4),
    .quantise = tatvpr_tables_quantise,
    .select = tatvpr_tables_select,
    .layer_norm = TATVPR_LAYER_NORM(tatvpr_tables_layer_norm),
    .dense = tatvpr_tables_dense,
    .sparse = tatvpr_tables_sparse,
    .sparse_below = tatvpr_tables_sparse_below,
    .patch_embed = tatvpr_tables_patch_embed,
    .attention = tatvpr_tables_attention
)

#endif
