/* Two of the aarch64 variants: with sdot, and plain. The third has its table in neon_i8mm.c. */
#include "neon.h"

#if defined(__linux__)
#include <sys/auxv.h>
#endif

int32_t tatvpr_neon_usable(void) { return 1; /* NEON is part of ARMv8-A */ }

int32_t tatvpr_dotprod_usable(void) {
#if defined(__linux__)
    const unsigned long asimddp = 1ul << 20; /* HWCAP_ASIMDDP */
    return (getauxval(AT_HWCAP) & asimddp) != 0;
#elif defined(__APPLE__)
    return 1; /* every Apple CPU of this architecture has it */
#else
    return 0;
#endif
}

TATVPR_VARIANT(dotprod, TATVPR_DOTPROD_TABLE, .name = "neon-dotprod")

TATVPR_VARIANT(neon, TATVPR_NEON_TABLE, .name = "neon")
