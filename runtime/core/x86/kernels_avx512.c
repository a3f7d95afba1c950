/* The AVX-512 VNNI variant, with every kernel of its own. */
#include "avx2.h"
#include "avx512.h"
#include "cpu.h"

/* Zen 4: measured by tools/break_even.py, mean of 66 and 90 tokens, nanoseconds a token. Zen 5: cycles, from
 * kernels of the same design. A family without a row takes the first. */
static const tatvpr_costs costs[] = {
    {
        .family = "zen4",
        .blocks = {
            {256, 6.87f, 4.64f, 24.56f, 5.25f, 23.15f, 4.86f},
            {128, 17.11f, 2.21f, 30.16f, 3.10f, 26.75f, 2.84f},
            {64, 5.21f, 1.14f, 29.15f, 1.94f, 22.17f, 1.61f},
        },
        .list_channel = 0.04f,
    },
    {
        .family = "zen5",
        .blocks = {
            {256, 0.0f, 8.4f, 60.0f, 9.5f, 60.0f, 8.3f},
            {128, 0.0f, 4.2f, 60.0f, 5.6f, 60.0f, 5.0f},
            {64, 0.0f, 2.1f, 60.0f, 3.4f, 60.0f, 3.0f},
        },
        .list_channel = 0.1f,
    },
};

static const tatvpr_costs *avx512_costs(void) {
    return tatvpr_cpu_costs(costs, (int32_t)(sizeof(costs) / sizeof(costs[0])));
}

TATVPR_VARIANT(avx512, TATVPR_AVX2_TABLE,
    .name = "avx512-vnni",
    .usable = tatvpr_cpu_avx512_vnni,
    .prepared_bytes = tatvpr_avx512_prepared_bytes,
    .prepare = tatvpr_avx512_prepare,
    .quantise = tatvpr_avx512_quantise,
    .select = tatvpr_avx512_select,
    .select_rows = tatvpr_avx512_select_rows,
    .layer_norm = TATVPR_LAYER_NORM(tatvpr_avx512_layer_norm),
    .norm_quantise = TATVPR_NORM_QUANTISE(tatvpr_avx512_norm_quantise),
    .gelu = tatvpr_avx512_gelu,
    .dense = tatvpr_avx512_dense,
    .sparse = tatvpr_avx512_sparse,
    .fours = tatvpr_avx512_fours,
    .costs = avx512_costs,
    .attention = tatvpr_avx512_attention,
    .patch_embed = tatvpr_avx512_patch_embed,
    .squash_across = tatvpr_avx512_squash_across,
    .squash_add = tatvpr_avx512_squash_add,
    .squash_bytes = tatvpr_avx512_squash_bytes,
    .dot_i8 = tatvpr_avx512_dot_i8,
    .hamming = tatvpr_avx512_hamming
)
