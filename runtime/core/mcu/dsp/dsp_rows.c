/* Float steps on one row on Cortex-M4 and M7: the operations of common/portable_rows.c in the
 * same order, arranged for the registers of a scalar FPU.
 */
#include "../../common/core.h"

#if defined(TATVPR_MCU_DSP)

#include "../mcu.h"
#include "../quantise.h"

float tatvpr_dsp_quantise(const float *x, int32_t k_in, int8_t *q) {
    return tatvpr_quantise_row(x, k_in, q);
}

#define LANES TATVPR_PARTIAL_SUMS

/* `blocks` > 0 times 16 elements added to 16 sums: x, or (x - shift)^2. vmla rounds its product
 * (only vfma is fused). */
static void sum_blocks(const float *x, int32_t blocks, float *sums) {
    __asm volatile(
        "vldmia %[sums], {s0-s15}\n"
        "1:\n"
        "vldmia %[x]!, {s16-s31}\n"
        "vadd.f32 s0, s0, s16\n vadd.f32 s1, s1, s17\n vadd.f32 s2, s2, s18\n"
        "vadd.f32 s3, s3, s19\n vadd.f32 s4, s4, s20\n vadd.f32 s5, s5, s21\n"
        "vadd.f32 s6, s6, s22\n vadd.f32 s7, s7, s23\n vadd.f32 s8, s8, s24\n"
        "vadd.f32 s9, s9, s25\n vadd.f32 s10, s10, s26\n vadd.f32 s11, s11, s27\n"
        "vadd.f32 s12, s12, s28\n vadd.f32 s13, s13, s29\n vadd.f32 s14, s14, s30\n"
        "vadd.f32 s15, s15, s31\n"
        "subs %[blocks], %[blocks], #1\n"
        "bne 1b\n"
        "vstmia %[sums], {s0-s15}\n"
        : [x] "+&r"(x), [blocks] "+&r"(blocks)
        : [sums] "r"(sums)
        : "cc", "memory", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11",
          "s12", "s13", "s14", "s15", "s16", "s17", "s18", "s19", "s20", "s21", "s22", "s23",
          "s24", "s25", "s26", "s27", "s28", "s29", "s30", "s31");
}

#define SQUARE(sum, x) "vsub.f32 " #x ", " #x ", s24\n vmla.f32 " #sum ", " #x ", " #x "\n"

static void sum_squares(const float *x, int32_t blocks, float shift, float *sums) {
    __asm volatile(
        "vldmia %[sums], {s0-s15}\n"
        "vmov s24, %[shift]\n"
        "1:\n"
        "vldmia %[x]!, {s16-s23}\n"
        SQUARE(s0, s16) SQUARE(s1, s17) SQUARE(s2, s18) SQUARE(s3, s19)
        SQUARE(s4, s20) SQUARE(s5, s21) SQUARE(s6, s22) SQUARE(s7, s23)
        "vldmia %[x]!, {s16-s23}\n"
        SQUARE(s8, s16) SQUARE(s9, s17) SQUARE(s10, s18) SQUARE(s11, s19)
        SQUARE(s12, s20) SQUARE(s13, s21) SQUARE(s14, s22) SQUARE(s15, s23)
        "subs %[blocks], %[blocks], #1\n"
        "bne 1b\n"
        "vstmia %[sums], {s0-s15}\n"
        : [x] "+&r"(x), [blocks] "+&r"(blocks)
        : [sums] "r"(sums), [shift] "r"(tatvpr_float_bits(shift))
        : "cc", "memory", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11",
          "s12", "s13", "s14", "s15", "s16", "s17", "s18", "s19", "s20", "s21", "s22", "s23",
          "s24");
}

#define SCALE(y, x, gamma) \
    "vsub.f32 " #x ", " #x ", s24\n vmul.f32 " #x ", " #x ", s25\n vmla.f32 " #y ", " #x ", " \
    #gamma "\n"

/* `eights` > 0 times eight elements of ((x - mean) * inverse) * gamma + beta. */
static void scale_eights(const float *x, const float *gamma, const float *beta, float mean,
                         float inverse, int32_t eights, float *y) {
    __asm volatile(
        "vmov s24, %[mean]\n vmov s25, %[inverse]\n"
        "1:\n"
        "vldmia %[x]!, {s0-s7}\n vldmia %[gamma]!, {s8-s15}\n vldmia %[beta]!, {s16-s23}\n"
        SCALE(s16, s0, s8) SCALE(s17, s1, s9) SCALE(s18, s2, s10) SCALE(s19, s3, s11)
        SCALE(s20, s4, s12) SCALE(s21, s5, s13) SCALE(s22, s6, s14) SCALE(s23, s7, s15)
        "subs %[eights], %[eights], #1\n"
        "vstmia %[y]!, {s16-s23}\n"
        "bne 1b\n"
        : [x] "+&r"(x), [gamma] "+&r"(gamma), [beta] "+&r"(beta), [eights] "+&r"(eights), [y] "+&r"(y)
        : [mean] "r"(tatvpr_float_bits(mean)), [inverse] "r"(tatvpr_float_bits(inverse))
        : "cc", "memory", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11",
          "s12", "s13", "s14", "s15", "s16", "s17", "s18", "s19", "s20", "s21", "s22", "s23",
          "s24", "s25");
}

void tatvpr_dsp_layer_norm(const float *x, const float *gamma, const float *beta, float eps,
                           int32_t dim, float *y) {
    const float width = (float)dim;
    const int32_t blocks = dim / LANES;
    float sums[LANES] = {0};
    float squares[LANES] = {0};
    if (blocks > 0) {
        sum_blocks(x, blocks, sums);
    }
    for (int32_t i = blocks * LANES; i < dim; i++) {
        sums[i % LANES] += x[i];
    }
    const float mean = tatvpr_sum_tree(sums) / width;
    if (blocks > 0) {
        sum_squares(x, blocks, mean, squares);
    }
    for (int32_t i = blocks * LANES; i < dim; i++) {
        const float centred = x[i] - mean;
        squares[i % LANES] += centred * centred;
    }
    const float variance = tatvpr_sum_tree(squares) / width;
    const float inverse = 1.0f / tatvpr_sqrt(variance + eps);
    if (dim >= 8) {
        scale_eights(x, gamma, beta, mean, inverse, dim / 8, y);
    }
    for (int32_t i = dim & ~7; i < dim; i++) {
        y[i] = ((x[i] - mean) * inverse) * gamma[i] + beta[i];
    }
}

/* A constant that the compiler keeps in a register instead of loading it for every element. */
static inline float held(float x) {
    __asm("" : "+t"(x));
    return x;
}

void tatvpr_dsp_gelu(const float *x, int32_t count, float *y) {
    static const float above_of[7] = TATVPR_ERF_P;
    static const float below_of[5] = TATVPR_ERF_Q;
    const float p0 = held(above_of[0]), p1 = held(above_of[1]), p2 = held(above_of[2]);
    const float p3 = held(above_of[3]), p4 = held(above_of[4]), p5 = held(above_of[5]);
    const float p6 = held(above_of[6]);
    const float q0 = held(below_of[0]), q1 = held(below_of[1]), q2 = held(below_of[2]);
    const float q3 = held(below_of[3]), q4 = held(below_of[4]);
    const float one = held(1.0f), high = held(TATVPR_ERF_CLAMP), low = held(-TATVPR_ERF_CLAMP);
    const float root = held(TATVPR_SQRT_HALF), half_one = held(0.5f), minus_one = held(-1.0f);
    for (int32_t i = 0; i < count; i++) {
        const float half = half_one * x[i];
        float e = tatvpr_at_most(x[i] * root, high);
        e = tatvpr_at_least(e, low);
        const float z = e * e;
        const float above = (((((p0 * z + p1) * z + p2) * z + p3) * z + p4) * z + p5) * z + p6;
        const float below = (((q0 * z + q1) * z + q2) * z + q3) * z + q4;
        const float erf = tatvpr_at_least(tatvpr_at_most((e * above) / below, one), minus_one);
        y[i] = half * (one + erf);
    }
}

#endif
