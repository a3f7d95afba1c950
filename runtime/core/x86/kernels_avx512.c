/* The AVX-512 VNNI variant: matmuls and selection of its own, the rest as AVX2 has it. */
#include "avx2.h"
#include "avx512.h"
#include "cpu.h"

TATVPR_VARIANT(avx512, TATVPR_AVX2_TABLE,
    .name = "avx512-vnni",
    .usable = tatvpr_cpu_avx512_vnni,
    .prepared_bytes = tatvpr_avx512_prepared_bytes,
    .prepare = tatvpr_avx512_prepare,
    .select = tatvpr_avx512_select,
    .dense = tatvpr_avx512_dense,
    .sparse = tatvpr_avx512_sparse,
    .fours = tatvpr_avx512_fours,
    .sparse_below = tatvpr_avx512_sparse_below
)
