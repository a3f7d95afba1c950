/* Files, text and exit status of the host, for firmware that runs in an emulator.
 *
 * Semihosting is the debugger interface of Arm (specification IHI0100) and RISC-V; a real board
 * without a debugger stops at the first call. Test firmware only.
 */
#ifndef SEMIHOSTING_H
#define SEMIHOSTING_H

#include <stddef.h>
#include <stdint.h>

#define SH_READ 1  /* mode "rb" */
#define SH_WRITE 5 /* mode "wb" */

int32_t sh_open(const char *path, int32_t mode); /* a handle, or -1 */
int32_t sh_close(int32_t handle);
int32_t sh_read(int32_t handle, void *to, size_t bytes);          /* 0: all were read */
int32_t sh_write(int32_t handle, const void *from, size_t bytes); /* 0: all were written */
int32_t sh_length(int32_t handle);
int32_t sh_command_line(char *to, size_t room); /* 0: fine */
void sh_text(const char *text);
__attribute__((noreturn)) void sh_exit(int32_t status);

/* The counted stretch of code begins and ends here (tools/mcu/count_plugin.c). */
#if defined(__riscv)
#define COUNT_BEGIN() __asm volatile(".option push\n.option norvc\nslti x0, x0, 1\n.option pop" ::: "memory")
#define COUNT_END() __asm volatile(".option push\n.option norvc\nslti x0, x0, 2\n.option pop" ::: "memory")
#else
#define COUNT_BEGIN() __asm volatile("mov r9, r9" ::: "memory")
#define COUNT_END() __asm volatile("mov r10, r10" ::: "memory")
#endif

/* Most bytes of stack that were ever in use. */
uint32_t stack_used(void);

/* What main() is given: the firmware's own entry, called by start-up code. */
int32_t firmware_main(void);

/* Exit statuses of the start-up code itself. */
#define EXIT_FAULT 90       /* a HardFault, or a trap on RISC-V */
#define EXIT_STACK 91       /* the guard below the stack was overwritten */

#endif
