/* The AVX2 variant. */
#include "avx2.h"
#include "cpu.h"

TATVPR_VARIANT(avx2, TATVPR_AVX2_TABLE, .name = "avx2", .usable = tatvpr_cpu_avx2)
