/* Start-up code and semihosting of the emulated boards: vectors, FPU, .data, .bss, stack guard,
 * and a fault handler that says what happened and ends the emulator with EXIT_FAULT.
 */
#include "semihosting.h"

extern uint8_t __data_load[], __data_start[], __data_end[];
extern uint8_t __bss_start[], __bss_end[];
extern uint32_t __stack_limit[], __stack_top[];

__attribute__((noreturn, used)) void start(void);

#define STACK_PATTERN 0xA5A5A5A5u
#define GUARD_WORDS 16u
#define IN_USE_BYTES 256u /* of the stack when it is painted */

enum {
    SYS_OPEN = 0x01,
    SYS_CLOSE = 0x02,
    SYS_WRITE0 = 0x04,
    SYS_WRITE = 0x05,
    SYS_READ = 0x06,
    SYS_FLEN = 0x0C,
    SYS_GET_CMDLINE = 0x15,
    SYS_EXIT_EXTENDED = 0x20,
    APPLICATION_EXIT = 0x20026
};

#if defined(__riscv)

__asm(".section .vectors,\"ax\"\n"
      ".globl Reset\n"
      "Reset:\n"
      "  la sp, __stack_top\n"
      "  la t0, Trap\n"
      "  .option push\n"
      "  .option arch, +zicsr\n"
      "  csrw mtvec, t0\n"
      "  .option pop\n"
      "  j start\n"
      ".balign 4\n"
      "Trap:\n"
      "  la sp, __stack_top\n"
      "  .option push\n"
      "  .option arch, +zicsr\n"
      "  csrr a0, mepc\n"
      "  csrr a1, mcause\n"
      "  .option pop\n"
      "  j report_fault\n"
      ".text\n");

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

static void start_core(void) {}

#else

__attribute__((noinline)) static int32_t call_host(uint32_t operation, const void *block)
{
    register uintptr_t r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = block;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return (int32_t)r0;
}

__attribute__((noreturn)) void Reset(void);
__attribute__((naked)) static void fault(void)
{
    /* the pushed frame holds the pc at word 6; the cause is CFSR, or HFSR for escalated ones */
    __asm volatile("mrs r2, msp\n"
                   "ldr r0, [r2, #24]\n"
                   "ldr r3, =0xE000ED28\n"
                   "ldr r1, [r3]\n"
                   "ldr sp, =__stack_top\n"
                   "b report_fault\n");
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    __stack_top,  (const void *)Reset, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault, (const void *)fault};

__attribute__((naked, noreturn)) void Reset(void) { __asm volatile("b start"); }

static void start_core(void)
{
    /* CPACR: full access to the floating point (and vector) coprocessors 10 and 11 */
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20;
    __asm volatile("dsb\nisb");
#if defined(__ARM_FEATURE_MVE)
    /* vector loops (LOB) need no more than the FPU's enable; flush nothing lazily */
#endif
    /* CCR.UNALIGN_TRP stays 0 (unaligned words are legal), DIV_0_TRP = 1: a division by zero is
     * a fault here, not a silent 0 */
    *(volatile uint32_t *)0xE000ED14u |= 1u << 4;
}

#endif

static void say_hex(const char *what, uint32_t value)
{
    char text[12];
    for (uint32_t i = 0; i < 8; i++)
        text[i] = "0123456789abcdef"[value >> (28 - 4 * i) & 15u];
    text[8] = '\n';
    text[9] = '\0';
    sh_text(what);
    sh_text(text);
}

/* Says where and why, then ends the emulation. */
__attribute__((noreturn, used)) static void report_fault(uint32_t where, uint32_t cause)
{
    sh_text("FAULT\n");
    say_hex("pc    ", where);
    say_hex("cause ", cause);
    sh_exit(EXIT_FAULT);
}

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

int32_t sh_length(int32_t handle)
{
    const uintptr_t block[1] = {(uintptr_t)handle};
    return call_host(SYS_FLEN, block);
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

uint32_t stack_used(void)
{
    const uint32_t *word = __stack_limit;
    while (*word == STACK_PATTERN)
        word++;
    return (uint32_t)((uintptr_t)__stack_top - (uintptr_t)word);
}

void start(void)
{
    start_core();
    for (uint8_t *to = __data_start, *from = __data_load; to < __data_end;)
        *to++ = *from++;
    for (uint8_t *to = __bss_start; to < __bss_end;)
        *to++ = 0;
    uint32_t here = 0;
    const uintptr_t unused_end = (uintptr_t)&here - IN_USE_BYTES;
    for (uint32_t *word = __stack_limit; (uintptr_t)word < unused_end; word++)
        *word = STACK_PATTERN;
    const int32_t status = firmware_main();
    for (uint32_t i = 0; i < GUARD_WORDS; i++)
        if (__stack_limit[i] != STACK_PATTERN)
            sh_exit(EXIT_STACK);
    sh_exit(status);
}
