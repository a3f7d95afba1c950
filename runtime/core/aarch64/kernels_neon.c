/* The two aarch64 variants: with sdot, and plain. */
#include "neon.h"

#if defined(__linux__)
#include <sys/auxv.h>
#endif

int32_t tatvpr_neon_usable(void) { return 1; /* NEON is part of ARMv8-A */ }

int32_t tatvpr_dotprod_usable(void) {
#if defined(__linux__)
    const unsigned long asimddp = 1ul << 20; /* HWCAP_ASIMDDP */
    return (getauxval(AT_HWCAP) & asimddp) != 0;
#elif defined(__APPLE__)
    return 1; /* every Apple CPU of this architecture has it */
#else
    return 0;
#endif
}

const tatvpr_kernels tatvpr_kernels_dotprod = {
    .name = "neon-dotprod",
    .usable = tatvpr_dotprod_usable,
    .in_place = 0,
    .prepared_bytes = tatvpr_neon_prepared_bytes,
    .prepare = tatvpr_neon_prepare,
    .quantise = tatvpr_neon_quantise,
    .select = tatvpr_neon_select,
    .layer_norm = TATVPR_LAYER_NORM(tatvpr_neon_layer_norm),
    .gelu = tatvpr_neon_gelu,
    .dense = tatvpr_dotprod_dense,
    .sparse = tatvpr_dotprod_sparse,
    .fours = tatvpr_dotprod_fours,
    .sparse_below = tatvpr_dotprod_sparse_below,
    .patch_embed = tatvpr_dotprod_patch_embed,
    .attention = tatvpr_dotprod_attention,
    .squash_across = tatvpr_neon_squash_across,
    .squash_add = tatvpr_neon_squash_add,
    .squash_bytes = tatvpr_neon_squash_bytes,
    .dot_i8 = tatvpr_dotprod_dot_i8,
    .hamming = tatvpr_neon_hamming,
};

const tatvpr_kernels tatvpr_kernels_neon = {
    .name = "neon",
    .usable = tatvpr_neon_usable,
    .in_place = 0,
    .prepared_bytes = tatvpr_neon_prepared_bytes,
    .prepare = tatvpr_neon_prepare,
    .quantise = tatvpr_neon_quantise,
    .select = tatvpr_neon_select,
    .layer_norm = TATVPR_LAYER_NORM(tatvpr_neon_layer_norm),
    .gelu = tatvpr_neon_gelu,
    .dense = tatvpr_neon_dense,
    .sparse = tatvpr_neon_sparse,
    .sparse_below = tatvpr_neon_sparse_below,
    .patch_embed = tatvpr_neon_patch_embed,
    .attention = tatvpr_neon_attention,
    .squash_across = tatvpr_neon_squash_across,
    .squash_add = tatvpr_neon_squash_add,
    .squash_bytes = tatvpr_neon_squash_bytes,
    .dot_i8 = tatvpr_neon_dot_i8,
    .hamming = tatvpr_neon_hamming,
};
