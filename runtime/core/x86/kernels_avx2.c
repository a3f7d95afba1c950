/* The AVX2 variant, and where its dense and sparse matmuls meet. */
#include "avx2.h"
#include "cpu.h"

/* Measured by tools/break_even.py, nanoseconds a token. A family without a row takes the first. */
static const tatvpr_costs costs[] = {
    {
        .family = "zen4",
        .blocks = {
            {128, 11.54f, 2.97f, 20.57f, 4.91f, 20.74f, 4.08f},
            {64, 16.29f, 1.44f, 27.35f, 2.74f, 13.68f, 1.74f},
        },
    },
    {
        .family = "zen5", /* mean of 65, 66 and 90 tokens */
        .blocks = {
            {128, 8.60f, 2.27f, 14.59f, 3.72f, 12.79f, 2.68f},
            {64, 10.51f, 1.11f, 15.15f, 2.16f, 11.82f, 1.31f},
        },
    },
    {
        .family = "intel", /* Sapphire Rapids; mean of 65, 66 and 90 tokens */
        .blocks = {
            {128, 15.32f, 6.62f, 48.85f, 12.45f, 38.82f, 8.53f},
            {64, 13.27f, 3.11f, 43.12f, 6.88f, 23.46f, 3.82f},
        },
    },
};

static const tatvpr_costs *avx2_costs(void) {
    return tatvpr_cpu_costs(costs, (int32_t)(sizeof(costs) / sizeof(costs[0])));
}

TATVPR_VARIANT(avx2, TATVPR_AVX2_TABLE,
    .name = "avx2",
    .usable = tatvpr_cpu_avx2,
    .costs = avx2_costs
)
