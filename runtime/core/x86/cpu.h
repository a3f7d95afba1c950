/* What this x86 CPU and its operating system can run. */
#ifndef TATVPR_CPU_H
#define TATVPR_CPU_H

#include "../common/kernels.h"

int32_t tatvpr_cpu_avx2(void);        /* AVX2 and POPCNT */
int32_t tatvpr_cpu_avx_vnni(void);    /* AVX2 and the VEX form of vpdpbusd */
int32_t tatvpr_cpu_avx512_vnni(void); /* AVX-512 F, BW, VL, VNNI, VBMI, VBMI2 and BMI2 */

/* The row of this CPU's family ("zen4"), else the first one. */
const tatvpr_costs *tatvpr_cpu_costs(const tatvpr_costs *rows, int32_t count);

#endif
