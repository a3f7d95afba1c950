/* The AVX-VNNI variant, for CPUs without AVX-512: the dense matmul and attention of AVX2 with its dot
 * products, the rest as AVX2 has it. */
#include "avx2.h"
#include "cpu.h"

TATVPR_VARIANT(avx_vnni, TATVPR_AVX2_TABLE,
    .name = "avx-vnni",
    .usable = tatvpr_cpu_avx_vnni,
    .dense = tatvpr_avx_vnni_dense,
    .fours = tatvpr_avx_vnni_fours,
    .sparse_below = tatvpr_avx_vnni_sparse_below,
    .attention = tatvpr_avx_vnni_attention
)
