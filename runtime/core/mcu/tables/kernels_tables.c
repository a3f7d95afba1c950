/* The variant of cores without vectors or packed arithmetic (RV32IMAC): matmuls by look-up tables,
 * the rest in plain C. */
#include "../mcu.h"

#if defined(TATVPR_MCU_TABLES)

TATVPR_VARIANT(tables, TATVPR_MCU_TABLE,
    .name = "rv32-tables",
    .in_place = TATVPR_LAYOUT_BIT(TATVPR_LAYOUT_LUT4),
    .dense = tatvpr_tables_dense,
    .sparse = tatvpr_tables_sparse,
    .sparse_below = tatvpr_tables_sparse_below
)

#endif
