/* CPUID and XGETBV, read directly: no library and no state. */
#include "cpu.h"

#include "../common/core.h"

#include <cpuid.h>

typedef struct features {
    uint32_t leaf1_ecx;
    uint32_t leaf7_ebx;
    uint32_t leaf7_ecx;
    uint32_t leaf7_1_eax;
    uint64_t xcr0; /* register state that the operating system saves */
} features;

static features read_features(void) {
    features f = {0, 0, 0, 0, 0};
    uint32_t a = 0;
    uint32_t b = 0;
    uint32_t c = 0;
    uint32_t d = 0;
    if (__get_cpuid(1, &a, &b, &c, &d)) {
        f.leaf1_ecx = c;
    }
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        f.leaf7_ebx = b;
        f.leaf7_ecx = c;
    }
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) {
        f.leaf7_1_eax = a;
    }
    if (f.leaf1_ecx >> 27 & 1u) { /* OSXSAVE: xgetbv may be used */
        uint32_t low = 0;
        uint32_t high = 0;
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        f.xcr0 = (uint64_t)high << 32 | low;
    }
    return f;
}

static int32_t has(uint32_t word, uint32_t bit) { return (int32_t)(word >> bit & 1u); }

static int32_t avx2(const features *f) {
    return (f->xcr0 & 0x06u) == 0x06u && has(f->leaf1_ecx, 28) && has(f->leaf1_ecx, 23) &&
           has(f->leaf7_ebx, 5);
}

int32_t tatvpr_cpu_avx2(void) {
    const features f = read_features();
    return avx2(&f);
}

int32_t tatvpr_cpu_avx_vnni(void) {
    const features f = read_features();
#if defined(TATVPR_SIMDE)
    return avx2(&f); /* a test build spells the instructions with those of AVX2 */
#else
    return avx2(&f) && has(f.leaf7_1_eax, 4);
#endif
}

int32_t tatvpr_cpu_avx512_vnni(void) {
    const features f = read_features();
#if defined(TATVPR_SIMDE)
    return avx2(&f); /* a test build spells the instructions in plain C */
#else
    return avx2(&f) && (f.xcr0 & 0xE6u) == 0xE6u && has(f.leaf7_ebx, 16) && /* F */
           has(f.leaf7_ebx, 30) && has(f.leaf7_ebx, 31) &&                   /* BW, VL */
           has(f.leaf7_ebx, 17) && has(f.leaf7_ebx, 8) &&                    /* DQ, BMI2 */
           has(f.leaf7_ecx, 1) && has(f.leaf7_ecx, 6) &&                     /* VBMI, VBMI2 */
           has(f.leaf7_ecx, 11) && has(f.leaf7_ecx, 14);                     /* VNNI, VPOPCNTDQ */
#endif
}

/* Families whose costs differ. AMD: Zen 4 runs 512 bits as two halves, Zen 5 at once. */
static const char *family(void) {
    uint32_t a = 0;
    uint32_t b = 0;
    uint32_t c = 0;
    uint32_t d = 0;
    if (!__get_cpuid(0, &a, &b, &c, &d)) {
        return "";
    }
    if (b == 0x756E6547u) { /* "Genu" of GenuineIntel */
        return "intel";
    }
    if (b != 0x68747541u || !__get_cpuid(1, &a, &b, &c, &d)) { /* "Auth" of AuthenticAMD */
        return "";
    }
    const uint32_t number = (a >> 8 & 0xFu) + (a >> 20 & 0xFFu);
    return number >= 0x1Au ? "zen5" : "zen4";
}

const tatvpr_costs *tatvpr_cpu_costs(const tatvpr_costs *rows, int32_t count) {
    const char *name = family();
    for (int32_t i = 0; i < count; i++) {
        if (tatvpr_same_text(rows[i].family, name)) {
            return &rows[i];
        }
    }
    return rows;
}
