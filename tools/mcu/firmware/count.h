/* Marks for the instruction counting plugin. */
#ifndef COUNT_H
#define COUNT_H

/* The counted stretch of code begins and ends here (tools/mcu/count_plugin.c). */
#if defined(__riscv)
#define COUNT_BEGIN() __asm volatile(".option push\n.option norvc\nslti x0, x0, 1\n.option pop" ::: "memory")
#define COUNT_END() __asm volatile(".option push\n.option norvc\nslti x0, x0, 2\n.option pop" ::: "memory")
#else
#define COUNT_BEGIN() __asm volatile("mov r9, r9" ::: "memory")
#define COUNT_END() __asm volatile("mov r10, r10" ::: "memory")
#endif

#endif
