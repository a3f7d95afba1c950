/* neon_dot.c once more, for CPUs with sdot. */
#define TATVPR_DOTPROD

/* Instructions are asked for here rather than on the command line, where compilers differ in how
 * they spell them. */
#if defined(__clang__)
#include <arm_neon.h>
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#include "neon_dot.c"

#if defined(__clang__)
#pragma clang attribute pop
#endif
