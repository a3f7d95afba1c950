/* The AVX-512 VNNI variant: matmuls and selection of its own, the rest as AVX2 has it. */
#include "avx2.h"
#include "avx512.h"
#include "cpu.h"

const tatvpr_kernels tatvpr_kernels_avx512 = {
    .name = "avx512-vnni",
    .usable = tatvpr_cpu_avx512_vnni,
    .in_place = 0,
    .prepared_bytes = tatvpr_avx512_prepared_bytes,
    .prepare = tatvpr_avx512_prepare,
    .quantise = tatvpr_avx2_quantise,
    .select = tatvpr_avx512_select,
    .layer_norm = TATVPR_LAYER_NORM(tatvpr_avx2_layer_norm),
    .gelu = tatvpr_avx2_gelu,
    .dense = tatvpr_avx512_dense,
    .sparse = tatvpr_avx512_sparse,
    .fours = tatvpr_avx512_fours,
    .sparse_below = tatvpr_avx512_sparse_below,
    .patch_embed = tatvpr_avx2_patch_embed,
    .attention = tatvpr_avx2_attention,
    .squash_across = tatvpr_avx2_squash_across,
    .squash_add = tatvpr_avx2_squash_add,
    .squash_bytes = tatvpr_avx2_squash_bytes,
    .dot_i8 = tatvpr_avx2_dot_i8,
    .hamming = tatvpr_avx2_hamming,
};
