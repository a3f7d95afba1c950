/* The variants of this build, best first. A variant is compiled where its architecture is. */
#include "core.h"

#if defined(TATVPR_PERMUTED)
#define PORTABLE_NAME "portable-permuted" /* test builds only: other orders of summation */
#else
#define PORTABLE_NAME "portable"
#endif

const tatvpr_kernels tatvpr_kernels_portable = {
    .name = PORTABLE_NAME,
    .usable = tatvpr_portable_usable,
    .in_place = TATVPR_LAYOUT_BIT(TATVPR_LAYOUT_ROWS2),
    .prepared_bytes = tatvpr_portable_prepared_bytes,
    .prepare = tatvpr_portable_prepare,
    .quantise = tatvpr_portable_quantise,
    .select = tatvpr_portable_select,
    .layer_norm = tatvpr_portable_layer_norm,
    .gelu = tatvpr_portable_gelu,
    .dense = tatvpr_portable_dense,
    .sparse = tatvpr_portable_sparse,
    .sparse_below = tatvpr_portable_sparse_below,
    .patch_embed = tatvpr_portable_patch_embed,
    .attention = tatvpr_portable_attention,
    .dot_i8 = tatvpr_portable_dot_i8,
    .hamming = tatvpr_portable_hamming,
};

#if defined(__x86_64__) && defined(TATVPR_X86)
extern const tatvpr_kernels tatvpr_kernels_avx512;
extern const tatvpr_kernels tatvpr_kernels_avx_vnni;
extern const tatvpr_kernels tatvpr_kernels_avx2; /* runtime/core/x86 */
#endif
#if defined(__aarch64__) && defined(TATVPR_AARCH64)
extern const tatvpr_kernels tatvpr_kernels_dotprod; /* runtime/core/aarch64 */
extern const tatvpr_kernels tatvpr_kernels_neon;
#endif
#if defined(TATVPR_CORTEXM) && !defined(TATVPR_PERMUTED)
extern const tatvpr_kernels tatvpr_kernels_cortexm; /* runtime/core/cortexm */
#endif

const tatvpr_kernels *const tatvpr_kernels_list[] = {
#if defined(__x86_64__) && defined(TATVPR_X86)
    &tatvpr_kernels_avx512,
    &tatvpr_kernels_avx_vnni,
    &tatvpr_kernels_avx2,
#endif
#if defined(__aarch64__) && defined(TATVPR_AARCH64)
    &tatvpr_kernels_dotprod,
    &tatvpr_kernels_neon,
#endif
#if defined(TATVPR_CORTEXM) && !defined(TATVPR_PERMUTED)
    &tatvpr_kernels_cortexm,
#endif
    &tatvpr_kernels_portable,
    NULL,
};
