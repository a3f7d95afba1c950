/* The AVX-512 VNNI variant, with every kernel of its own. */
#include "avx2.h"
#include "avx512.h"
#include "cpu.h"

/* Measured by tools/break_even.py, mean of 65, 66 and 90 tokens (Zen 4: of the last two), nanoseconds a token; what a
 * list costs by the whole frames of `micro`. A family without a row takes the first. */
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
            {256, 8.07f, 1.87f, 12.43f, 2.40f, 11.06f, 2.22f},
            {128, 7.14f, 0.91f, 12.47f, 1.39f, 12.71f, 1.18f},
            {64, 3.52f, 0.49f, 14.68f, 0.79f, 13.67f, 0.56f},
        },
        .list_channel = 0.04f,
        .fetches_rows = 1,
    },
    {
        .family = "intel", /* Sapphire Rapids; mean of 66 and 90 tokens */
        .blocks = {
            {256, 13.68f, 3.52f, 25.99f, 7.64f, 26.78f, 5.86f},
            {128, 3.98f, 1.81f, 32.28f, 4.23f, 34.77f, 3.46f},
            {64, 15.24f, 0.84f, 32.93f, 2.45f, 29.73f, 1.79f},
        },
        .list_channel = 0.1f,
        .fetches_rows = 1,
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
    .first_row = 64,
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
    .hamming = tatvpr_avx512_hamming,
    .hamming_ahead = tatvpr_avx512_hamming_ahead,
    .dot_bits = tatvpr_avx512_dot_bits
)
