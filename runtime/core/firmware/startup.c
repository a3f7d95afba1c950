/* Start-up code of the emulated boards: vectors, FPU, .data, .bss, stack guard, and a fault handler
 * that says what happened and ends the emulator with EXIT_FAULT. board.ld places all of it.
 */
#include "semihosting.h"
#include "startup.h"

extern uint8_t __data_load[], __data_start[], __data_end[];
extern uint8_t __bss_start[], __bss_end[];
extern uint32_t __stack_limit[], __stack_top[];

__attribute__((noreturn, used)) void start(void);

int main(void);

#define STACK_PATTERN 0xA5A5A5A5u
#define GUARD_WORDS 16u
#define IN_USE_BYTES 256u /* of the stack when it is painted */

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
#if defined(__riscv_flen) /* mstatus.FS: the floating-point unit is off after reset */
      "  li t0, 0x2000\n"
      "  .option push\n"
      "  .option arch, +zicsr\n"
      "  csrs mstatus, t0\n"
      "  .option pop\n"
#endif
      "  la t0, start\n" /* the weights may lie between here and there */
      "  jr t0\n"
      ".balign 4\n"
      "Trap:\n"
      "  la sp, __stack_top\n"
      "  .option push\n"
      "  .option arch, +zicsr\n"
      "  csrr a0, mepc\n"
      "  csrr a1, mcause\n"
      "  .option pop\n"
      "  la t0, report_fault\n"
      "  jr t0\n"
      ".text\n");

static void start_core(void) {}

#else

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
    const int32_t status = main();
    for (uint32_t i = 0; i < GUARD_WORDS; i++)
        if (__stack_limit[i] != STACK_PATTERN)
            sh_exit(EXIT_STACK);
    sh_exit(status);
}
