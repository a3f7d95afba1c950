/* The AVX2 variant. */
#include "avx2.h"
#include "cpu.h"

const tatvpr_kernels tatvpr_kernels_avx2 = {
    .name = "avx2",
    .usable = tatvpr_cpu_avx2,
    .in_place = 0,
    .prepared_bytes = tatvpr_avx2_prepared_bytes,
    .prepare = tatvpr_avx2_prepare,
    .quantise = tatvpr_avx2_quantise,
    .select = tatvpr_avx2_select,
    .layer_norm = TATVPR_LAYER_NORM(tatvpr_avx2_layer_norm),
    .gelu = tatvpr_avx2_gelu,
    .dense = tatvpr_avx2_dense,
    .sparse = tatvpr_avx2_sparse,
    .fours = tatvpr_avx2_fours,
    .sparse_below = tatvpr_avx2_sparse_below,
    .patch_embed = tatvpr_avx2_patch_embed,
    .attention = tatvpr_avx2_attention,
    .squash_across = tatvpr_avx2_squash_across,
    .squash_add = tatvpr_avx2_squash_add,
    .squash_bytes = tatvpr_avx2_squash_bytes,
    .dot_i8 = tatvpr_avx2_dot_i8,
    .hamming = tatvpr_avx2_hamming,
};
