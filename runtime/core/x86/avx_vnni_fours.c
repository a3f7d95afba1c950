/* avx2_fours.c once more, for CPUs with AVX-VNNI. */
#define TATVPR_AVX_VNNI
#include "avx2_fours.c"
