/* The AVX-VNNI variant, for CPUs without AVX-512: the dense matmul and attention of AVX2 with its dot
 * products, the rest as AVX2 has it. */
#include "avx2.h"
#include "cpu.h"

/* Measured by tools/break_even.py, mean of 65, 66 and 90 tokens, nanoseconds a token. A family without a row takes the
 * first. */
static const tatvpr_costs costs[] = {
    {
        .family = "zen5",
        .blocks = {
            {128, 5.96f, 1.96f, 14.31f, 3.69f, 13.89f, 2.57f},
            {64, 9.14f, 0.94f, 14.51f, 2.13f, 11.65f, 1.35f},
        },
    },
    {
        .family = "intel", /* Sapphire Rapids */
        .blocks = {
            {128, 14.46f, 3.84f, 29.58f, 8.90f, 24.69f, 5.07f},
            {64, 1.48f, 2.07f, 32.17f, 4.93f, 13.79f, 2.38f},
        },
    },
};

static const tatvpr_costs *avx_vnni_costs(void) {
    return tatvpr_cpu_costs(costs, (int32_t)(sizeof(costs) / sizeof(costs[0])));
}

TATVPR_VARIANT(avx_vnni, TATVPR_AVX2_TABLE,
    .name = "avx-vnni",
    .usable = tatvpr_cpu_avx_vnni,
    .dense = tatvpr_avx_vnni_dense,
    .fours = tatvpr_avx_vnni_fours,
    .costs = avx_vnni_costs,
    .attention = tatvpr_avx_vnni_attention
)
