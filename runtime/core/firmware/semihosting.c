/* Semihosting on Arm and RISC-V: one instruction that a debugger or an emulator answers. */
#include "semihosting.h"

enum {
    SYS_OPEN = 0x01,
    SYS_CLOSE = 0x02,
    SYS_WRITE0 = 0x04,
    SYS_WRITE = 0x05,
    SYS_READ = 0x06,
    SYS_GET_CMDLINE = 0x15,
    SYS_EXIT_EXTENDED = 0x20,
    APPLICATION_EXIT = 0x20026
};

#if defined(__riscv)

__attribute__((noinline)) static int32_t call_host(uint32_t operation, const void *block)
{
    register uintptr_t a0 __asm("a0") = operation;
    register const void *a1 __asm("a1") = block;
    /* the three instructions must lie in one page and be uncompressed */
    __asm volatile(".option push\n.option norvc\n.balign 16\n"
                   "slli x0, x0, 0x1f\nebreak\nsrai x0, x0, 7\n.option pop"
                   : "+r"(a0)
                   : "r"(a1)
                   : "memory");
    return (int32_t)a0;
}

#else

__attribute__((noinline)) static int32_t call_host(uint32_t operation, const void *block)
{
    register uintptr_t r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = block;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return (int32_t)r0;
}

#endif

int32_t sh_open(const char *path, int32_t mode)
{
    size_t length = 0;
    while (path[length] != '\0')
        length++;
    const uintptr_t block[3] = {(uintptr_t)path, (uintptr_t)mode, length};
    return call_host(SYS_OPEN, block);
}

int32_t sh_close(int32_t handle)
{
    const uintptr_t block[1] = {(uintptr_t)handle};
    return call_host(SYS_CLOSE, block);
}

int32_t sh_read(int32_t handle, void *to, size_t bytes)
{
    const uintptr_t block[3] = {(uintptr_t)handle, (uintptr_t)to, bytes};
    return call_host(SYS_READ, block);
}

int32_t sh_write(int32_t handle, const void *from, size_t bytes)
{
    const uintptr_t block[3] = {(uintptr_t)handle, (uintptr_t)from, bytes};
    return call_host(SYS_WRITE, block);
}

int32_t sh_command_line(char *to, size_t room)
{
    const uintptr_t block[2] = {(uintptr_t)to, room};
    return call_host(SYS_GET_CMDLINE, block);
}

void sh_text(const char *text) { (void)call_host(SYS_WRITE0, text); }

void sh_exit(int32_t status)
{
    const uintptr_t block[2] = {APPLICATION_EXIT, (uintptr_t)status};
    (void)call_host(SYS_EXIT_EXTENDED, block);
    for (;;) {
    }
}
