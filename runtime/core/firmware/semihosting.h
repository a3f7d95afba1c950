/* Files, text and exit status of the host, for firmware that runs in an emulator.
 *
 * Semihosting is the debugger interface of Arm (specification IHI0100) and RISC-V; a real board
 * without a debugger stops at the first call.
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
int32_t sh_command_line(char *to, size_t room); /* 0: fine */
void sh_text(const char *text);
__attribute__((noreturn)) void sh_exit(int32_t status);

#endif
