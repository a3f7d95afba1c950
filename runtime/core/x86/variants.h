/* The variants of x86-64, best first where nothing was measured: name, and the instructions that
 * its files (NAME_*.c, kernels_NAME.c) may hold. kernels_list.c makes the list of these rows and
 * compilers/core_sources.py reads the flags from them: this is all that a variant needs beside its
 * own file. The CPU is asked (cpu.c) before any function of such a file is called. */
TATVPR_ROW(avx512, "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512vbmi -mavx512vbmi2 -mavx512vpopcntdq -mpopcnt -mbmi2")
TATVPR_ROW(avx_vnni, "-mavx2 -mpopcnt -mavxvnni")
TATVPR_ROW(avx2, "-mavx2 -mpopcnt")
