/* NEON with smmla (Neoverse V1, V2, Cortex-A710 and later: Jetson Thor, Graviton 3 and 4, Grace): the
 * dense ternary matmul, twice the products an instruction that sdot makes. A register holds eight
 * channels of two outputs, or of two tokens; four tokens by sixteen outputs are 16 accumulators of
 * two by two. What else runs is that of the variant with sdot. */
#if defined(__linux__)
#include <sys/auxv.h>
#endif

/* Instructions are asked for here rather than on the command line, where compilers differ in how
 * they spell them. */
#if defined(__clang__)
#include <arm_neon.h>
#pragma clang attribute push(__attribute__((target("dotprod,i8mm"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod+i8mm")
#endif
#include "neon.h"

enum { CHANNELS = 8, PAIRS = 8 /* of outputs, in 16 */, TOKENS = 4 };

static inline uint8x16_t zip_u16(uint8x16_t a, uint8x16_t b, int high) {
    const uint16x8_t x = vreinterpretq_u16_u8(a);
    const uint16x8_t y = vreinterpretq_u16_u8(b);
    return vreinterpretq_u8_u16(high ? vzip2q_u16(x, y) : vzip1q_u16(x, y));
}

static inline uint8x16_t zip_u32(uint8x16_t a, uint8x16_t b, int high) {
    const uint32x4_t x = vreinterpretq_u32_u8(a);
    const uint32x4_t y = vreinterpretq_u32_u8(b);
    return vreinterpretq_u8_u32(high ? vzip2q_u32(x, y) : vzip1q_u32(x, y));
}

/* 64 outputs to four panels of 16: [4][rows / 16 rounded up][2 eights][8 pairs][2][8 bytes]. Of rows
 * that are no multiple of eight, the last four are taken twice: activations are zero there. */
static void unpack(const uint8_t *rows, int32_t k_rows, uint8_t *panel) {
    const uint8x16_t mask = vdupq_n_u8(3);
    const uint8x16_t one = vdupq_n_u8(1 << 6); /* of the top field */
    const ptrdiff_t field_bytes = tatvpr_neon_panel_bytes(k_rows);
    for (int32_t k = 0; k < k_rows; k += CHANNELS, rows += 16 * CHANNELS, panel += 16 * PAIRS) {
        const uint8_t *later = k + 4 < k_rows ? rows + 64 : rows;
        uint8x16_t two[4][2]; /* channels 2 i and 2 i + 1 of outputs 0..7 and 8..15 of a field */
        for (int i = 0; i < 4; i++) {
            const uint8_t *at = i < 2 ? rows + 32 * i : later + 32 * (i - 2);
            two[i][0] = vzip1q_u8(vld1q_u8(at), vld1q_u8(at + 16));
            two[i][1] = vzip2q_u8(vld1q_u8(at), vld1q_u8(at + 16));
        }
        for (int i = 0; i < PAIRS; i++) {
            const int half = i / 4;
            const int quarter = i / 2 % 2;
            const uint8x16_t u = zip_u32(zip_u16(two[0][half], two[1][half], quarter),
                                         zip_u16(two[2][half], two[3][half], quarter), i % 2);
            uint8_t *to = panel + 16 * i;
            vst1q_u8(to, vandq_u8(u, mask));
            vst1q_u8(to + field_bytes, vandq_u8(vshrq_n_u8(u, 2), mask));
            vst1q_u8(to + 2 * field_bytes, vandq_u8(vshrq_n_u8(u, 4), mask));
            vst1q_u8(to + 3 * field_bytes, vshrq_n_u8(vaddq_u8(u, one), 6)); /* w to w + 1 */
        }
    }
}

/* Both tokens' channels 0..7, or 8..15. */
static inline int8x16_t token_pair(int8x16_t a, int8x16_t b, int high) {
    const int64x2_t x = vreinterpretq_s64_s8(a);
    const int64x2_t y = vreinterpretq_s64_s8(b);
    return vreinterpretq_s8_s64(high ? vzip2q_s64(x, y) : vzip1q_s64(x, y));
}

/* Four rows of q, of those sums, by sixteen outputs; `sixteens` steps of 16 channels. */
static inline tatvpr_neon_sums four_tokens(const int8_t *const q[TOKENS],
                                           const int32_t sum[TOKENS], const int8_t *w,
                                           int32_t sixteens) {
    int32x4_t a[2][PAIRS]; /* [two tokens][two outputs] */
    for (int t = 0; t < 2; t++) { /* what the + 1 of all codes adds is taken off beforehand */
        const int32x4_t begin = vcombine_s32(vdup_n_s32(-sum[2 * t]), vdup_n_s32(-sum[2 * t + 1]));
        for (int i = 0; i < PAIRS; i++) {
            a[t][i] = begin;
        }
    }
    for (int32_t step = 0; step < sixteens; step++, w += 256) {
        const int8x16_t q0 = vld1q_s8(q[0] + 16 * step);
        const int8x16_t q1 = vld1q_s8(q[1] + 16 * step);
        const int8x16_t q2 = vld1q_s8(q[2] + 16 * step);
        const int8x16_t q3 = vld1q_s8(q[3] + 16 * step);
        for (int high = 0; high < 2; high++) {
            const int8x16_t t01 = token_pair(q0, q1, high);
            const int8x16_t t23 = token_pair(q2, q3, high);
            for (int i = 0; i < PAIRS; i++) {
                const int8x16_t two = vld1q_s8(w + 128 * high + 16 * i);
                a[0][i] = vmmlaq_s32(a[0][i], t01, two);
                a[1][i] = vmmlaq_s32(a[1][i], t23, two);
            }
        }
    }
    tatvpr_neon_sums sums;
    for (int t = 0; t < 2; t++) {
        for (int i = 0; i < PAIRS; i += 2) {
            const int64x2_t x = vreinterpretq_s64_s32(a[t][i]);
            const int64x2_t y = vreinterpretq_s64_s32(a[t][i + 1]);
            sums.of[2 * t][i / 2] = vreinterpretq_s32_s64(vzip1q_s64(x, y));
            sums.of[2 * t + 1][i / 2] = vreinterpretq_s32_s64(vzip2q_s64(x, y));
        }
    }
    return sums;
}

static void dense(const tatvpr_matmul *job) { tatvpr_neon_dense_by_four(job, unpack, four_tokens); }

static int32_t usable(void) {
#if defined(__linux__)
    const unsigned long i8mm = 1ul << 13; /* HWCAP2_I8MM */
    return tatvpr_dotprod_usable() && (getauxval(AT_HWCAP2) & i8mm) != 0;
#else
    return 0; /* not asked for elsewhere */
#endif
}

/* As for sdot, on Neoverse V2's model: .30 and .27 to .29; fours .36 of a frame. */
static float sparse_below(const tatvpr_ternary *op, int32_t group) {
    return group % 4 == 0 ? 0.36f : op->n_out > op->k_in ? 0.30f : 0.28f;
}

TATVPR_VARIANT(i8mm, TATVPR_DOTPROD_TABLE,
    .name = "neon-i8mm",
    .usable = usable,
    .dense = dense,
    .sparse_below = sparse_below
)

#if defined(__clang__)
#pragma clang attribute pop
#endif
