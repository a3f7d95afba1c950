/* What start-up code tells the firmware that it starts; it calls main(). */
#ifndef STARTUP_H
#define STARTUP_H

#include <stdint.h>

/* Most bytes of stack that were ever in use. */
uint32_t stack_used(void);

/* Exit statuses of the start-up code itself; else the emulator ends with what main() answers. */
#define EXIT_FAULT 90 /* a HardFault, or a trap on RISC-V */
#define EXIT_STACK 91 /* the guard below the stack was overwritten */

#endif
