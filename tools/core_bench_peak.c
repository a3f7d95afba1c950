/* The best rate of int8 multiply-accumulate on registers alone, in MACs per nanosecond: what a
 * dense kernel could reach if weights and activations were free. */
#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <string.h>
#include <time.h>

double core_bench_peak(const char *kernels);

#define ROUNDS 2000000

static double seconds_of(void (*loop)(void)) {
    double best = 1e9;
    for (int i = 0; i < 5; i++) {
        struct timespec a, b;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
        loop();
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
        const double s = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
        best = s < best ? s : best;
    }
    return best;
}

#if defined(__x86_64__)
/* Twelve chains of vpmaddubsw + vpaddw: 12 x 32 MACs a round. */
static void avx2_loop(void) {
    __asm__ volatile(
        "mov %0, %%ecx\n"
        "1:\n"
        ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11\n"
        "vpmaddubsw %%ymm12, %%ymm13, %%ymm14\n"
        "vpaddw %%ymm14, %%ymm\\n, %%ymm\\n\n"
        ".endr\n"
        "dec %%ecx\n"
        "jnz 1b\n"
        "vzeroupper\n" ::"i"(ROUNDS)
        : "ecx", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
          "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "cc");
}

/* Twenty-four chains of vpdpbusd: 24 x 64 MACs a round. */
static void avx512_loop(void) {
    __asm__ volatile(
        "mov %0, %%ecx\n"
        "1:\n"
        ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23\n"
        "vpdpbusd %%zmm30, %%zmm31, %%zmm\\n\n"
        ".endr\n"
        "dec %%ecx\n"
        "jnz 1b\n"
        "vzeroupper\n" ::"i"(ROUNDS)
        : "ecx", "cc");
}

double core_bench_peak(const char *kernels) {
    if (strcmp(kernels, "avx512-vnni") == 0) {
        return (double)ROUNDS * 24 * 64 / seconds_of(avx512_loop) / 1e9;
    }
    if (strncmp(kernels, "avx", 3) == 0) {
        return (double)ROUNDS * 12 * 32 / seconds_of(avx2_loop) / 1e9;
    }
    return 0.0; /* portable: of plain C there is none, and the CPU may have no AVX2 */
}
#else
double core_bench_peak(const char *kernels) {
    (void)kernels;
    (void)seconds_of;
    return 0.0; /* not written for this CPU: tools/roofline.py then prints no share */
}
#endif
