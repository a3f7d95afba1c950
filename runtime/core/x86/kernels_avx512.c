/* The AVX-512 VNNI variant: rows of floats and attention as AVX2 has them, the rest of its own. */
#include "avx2.h"
#include "avx512.h"
#include "cpu.h"

/* Measured by tools/break_even.py, nanoseconds a token. A family without a row takes the first. */
static const tatvpr_costs costs[] = {
    {
        .family = "zen4",
        .blocks = {
            {256, 74.77f, 5.36f, 86.71f, 12.95f, 94.59f, 12.88f},
            {128, 70.81f, 18.37f, 36.78f, 7.23f, 106.25f, 7.97f},
            {64, 0.0f, 8.92f, 64.72f, 6.57f, 0.0f, 3.83f},
        },
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
    .select = tatvpr_avx512_select,
    .dense = tatvpr_avx512_dense,
    .sparse = tatvpr_avx512_sparse,
    .fours = tatvpr_avx512_fours,
    .costs = avx512_costs,
    .patch_embed = tatvpr_avx512_patch_embed,
    .squash_across = tatvpr_avx512_squash_across,
    .squash_add = tatvpr_avx512_squash_add,
    .squash_bytes = tatvpr_avx512_squash_bytes,
    .dot_i8 = tatvpr_avx512_dot_i8,
    .hamming = tatvpr_avx512_hamming
)
