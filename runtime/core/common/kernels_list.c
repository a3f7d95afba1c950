/* The variants of this build, best first: the rows of the architecture's variants.h, then plain C.
 * A variant is compiled where its architecture is. */
#include "core.h"

#if defined(TATVPR_PERMUTED)
#define PORTABLE_NAME "portable-permuted" /* test builds only: other orders of summation */
#else
#define PORTABLE_NAME "portable"
#endif

TATVPR_VARIANT(portable, TATVPR_PORTABLE_TABLE, .name = PORTABLE_NAME)

#if defined(__x86_64__) && defined(TATVPR_X86)
#define VARIANTS "../x86/variants.h"
#elif defined(__aarch64__) && defined(TATVPR_AARCH64)
#define VARIANTS "../aarch64/variants.h"
#elif defined(TATVPR_MCU) && !defined(TATVPR_PERMUTED)
#define VARIANTS "../mcu/variants.h"
#endif

#if defined(VARIANTS)
#define TATVPR_ROW(name, flags) extern const tatvpr_kernels tatvpr_kernels_##name;
#include VARIANTS
#undef TATVPR_ROW
#endif

#define TATVPR_ROW(name, flags) &tatvpr_kernels_##name,
const tatvpr_kernels *const tatvpr_kernels_list[] = {
#if defined(VARIANTS)
#include VARIANTS
#endif
    &tatvpr_kernels_portable,
    NULL,
};
