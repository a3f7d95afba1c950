/* The core's cycle counter, where there is one: 32 bits that wrap. */
#ifndef TATVPR_CYCLES_H
#define TATVPR_CYCLES_H

#include <stdint.h>

#if defined(__riscv)

static inline uint32_t tatvpr_cycles(void) {
    uint32_t count;
    __asm volatile(".option push\n.option arch, +zicsr\ncsrr %0, mcycle\n.option pop" : "=r"(count));
    return count;
}
static inline void tatvpr_cycles_start(void) {} /* it runs from reset */

#elif defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M' && defined(__ARM_ARCH_ISA_THUMB) && \
    __ARM_ARCH_ISA_THUMB >= 2

#if defined(__cplusplus) /* whose own casts and C++20's rules for volatile it keeps, too */
#define TATVPR_REGISTER(address) (*reinterpret_cast<volatile uint32_t *>(address))
#else
#define TATVPR_REGISTER(address) (*(volatile uint32_t *)(address))
#endif

static inline void tatvpr_set_bits(uintptr_t address, uint32_t bits) {
    TATVPR_REGISTER(address) = TATVPR_REGISTER(address) | bits;
}

#if defined(__ARM_FEATURE_MVE) /* Armv8.1-M with a performance monitoring unit */
static inline uint32_t tatvpr_cycles(void) { return TATVPR_REGISTER(0xE000307Cu); } /* CCNTR */
static inline void tatvpr_cycles_start(void) {
    tatvpr_set_bits(0xE000EDFCu, 1u << 24);    /* DEMCR.TRCENA */
    TATVPR_REGISTER(0xE0003C00u) = 1u << 31;   /* CNTENSET: the cycle counter */
    tatvpr_set_bits(0xE0003E04u, 1u);          /* CTRL.E */
}
#else
static inline uint32_t tatvpr_cycles(void) { return TATVPR_REGISTER(0xE0001004u); } /* CYCCNT */
static inline void tatvpr_cycles_start(void) {
    tatvpr_set_bits(0xE000EDFCu, 1u << 24);    /* DEMCR.TRCENA */
    TATVPR_REGISTER(0xE0001FB0u) = 0xC5ACCE55u; /* LAR: Cortex-M7 locks its DWT */
    tatvpr_set_bits(0xE0001000u, 1u);          /* CTRL.CYCCNTENA */
}
#endif

#else

static inline uint32_t tatvpr_cycles(void) { return 0; }
static inline void tatvpr_cycles_start(void) {}

#endif

/* Starts the counter; 1 where it runs. */
static inline int tatvpr_cycles_run(void) {
    tatvpr_cycles_start();
    const uint32_t before = tatvpr_cycles();
    volatile int i = 0;
    while (i < 8) {
        i = i + 1;
    }
    return tatvpr_cycles() != before;
}

#endif
