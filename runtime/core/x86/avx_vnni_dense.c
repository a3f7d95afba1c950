/* avx2_dense.c once more, for CPUs with AVX-VNNI. */
#define TATVPR_AVX_VNNI
#include "avx2_dense.c"
