/* Steps on one row on Cortex-M55: the operations of common/portable_rows.c, four lanes a time. */
#include "../../common/core.h"
#include "../../common/floats.h"

#if defined(TATVPR_MCU_HELIUM)

#include "../mcu.h"
#include "helium_floats.h"

float tatvpr_helium_quantise(const float *x, int32_t k_in, int8_t *q) {
    const float s = tatvpr_abs_max4(x, k_in, TATVPR_MIN_ABS_MAX) / TATVPR_QUANT_MAX;
    tatvpr_quantise4(x, k_in, 1.0f / s, q);
    tatvpr_pad_row(q, k_in);
    return s;
}

#define LANES TATVPR_PARTIAL_SUMS

/* `blocks` times 16 elements added to 16 sums: x, or (x - mean)^2. */
static void sum_blocks(const float *x, int32_t blocks, float *sums) {
    __asm volatile(
        "vldrw.32 q0, [%[sums]]\n vldrw.32 q1, [%[sums], #16]\n"
        "vldrw.32 q2, [%[sums], #32]\n vldrw.32 q3, [%[sums], #48]\n"
        "wls lr, %[blocks], 2f\n"
        "1:\n"
        "vldrw.32 q4, [%[x]], #16\n vadd.f32 q0, q0, q4\n"
        "vldrw.32 q5, [%[x]], #16\n vadd.f32 q1, q1, q5\n"
        "vldrw.32 q4, [%[x]], #16\n vadd.f32 q2, q2, q4\n"
        "vldrw.32 q5, [%[x]], #16\n vadd.f32 q3, q3, q5\n"
        "le lr, 1b\n"
        "2:\n"
        "vstrw.32 q0, [%[sums]]\n vstrw.32 q1, [%[sums], #16]\n"
        "vstrw.32 q2, [%[sums], #32]\n vstrw.32 q3, [%[sums], #48]\n"
        : [x] "+&r"(x)
        : [blocks] "r"(blocks), [sums] "r"(sums)
        : "q0", "q1", "q2", "q3", "q4", "q5", "lr", "memory");
}

#define SQUARE(sum, v) \
    "vldrw.32 " #v ", [%[x]], #16\n vsub.f32 " #v ", " #v ", %[mean]\n" \
    "vmul.f32 " #v ", " #v ", " #v "\n vadd.f32 " #sum ", " #sum ", " #v "\n"

static void sum_squares(const float *x, int32_t blocks, float mean, float *sums) {
    __asm volatile(
        "vldrw.32 q0, [%[sums]]\n vldrw.32 q1, [%[sums], #16]\n"
        "vldrw.32 q2, [%[sums], #32]\n vldrw.32 q3, [%[sums], #48]\n"
        "wls lr, %[blocks], 2f\n"
        "1:\n"
        SQUARE(q0, q4) SQUARE(q1, q5) SQUARE(q2, q4) SQUARE(q3, q5)
        "le lr, 1b\n"
        "2:\n"
        "vstrw.32 q0, [%[sums]]\n vstrw.32 q1, [%[sums], #16]\n"
        "vstrw.32 q2, [%[sums], #32]\n vstrw.32 q3, [%[sums], #48]\n"
        : [x] "+&r"(x)
        : [blocks] "r"(blocks), [sums] "r"(sums), [mean] "r"(tatvpr_float_bits(mean))
        : "q0", "q1", "q2", "q3", "q4", "q5", "lr", "memory");
}

/* `vectors` times four elements of ((x - mean) * inverse) * gamma + beta. */
static void scale_vectors(const float *x, const float *gamma, const float *beta, float mean,
                          float inverse, int32_t vectors, float *y) {
    __asm volatile(
        "wls lr, %[vectors], 2f\n"
        "1:\n"
        "vldrw.32 q0, [%[x]], #16\n"
        "vsub.f32 q0, q0, %[mean]\n"
        "vldrw.32 q2, [%[gamma]], #16\n"
        "vmul.f32 q0, q0, %[inverse]\n"
        "vmul.f32 q0, q0, q2\n"
        "vldrw.32 q3, [%[beta]], #16\n"
        "vadd.f32 q0, q0, q3\n"
        "vstrw.32 q0, [%[y]], #16\n"
        "le lr, 1b\n"
        "2:\n"
        : [x] "+&r"(x), [gamma] "+&r"(gamma), [beta] "+&r"(beta), [y] "+&r"(y)
        : [vectors] "r"(vectors), [mean] "r"(tatvpr_float_bits(mean)),
          [inverse] "r"(tatvpr_float_bits(inverse))
        : "q0", "q2", "q3", "lr", "memory");
}

void tatvpr_helium_layer_norm(const float *x, const float *gamma, const float *beta, float eps,
                              int32_t dim, float *y) {
    const float width = (float)dim;
    const int32_t blocks = dim / LANES;
    float sums[LANES] = {0};
    float squares[LANES] = {0};
    sum_blocks(x, blocks, sums);
    for (int32_t i = blocks * LANES; i < dim; i++) {
        sums[i % LANES] += x[i];
    }
    const float mean = tatvpr_sum_tree(sums) / width;
    sum_squares(x, blocks, mean, squares);
    for (int32_t i = blocks * LANES; i < dim; i++) {
        const float centred = x[i] - mean;
        squares[i % LANES] += centred * centred;
    }
    const float inverse = 1.0f / tatvpr_sqrt(tatvpr_sum_tree(squares) / width + eps);
    scale_vectors(x, gamma, beta, mean, inverse, dim / 4, y);
    for (int32_t i = dim & ~3; i < dim; i++) {
        y[i] = ((x[i] - mean) * inverse) * gamma[i] + beta[i];
    }
}

void tatvpr_helium_gelu(const float *x, int32_t count, float *y) {
    static const float p[7] = TATVPR_ERF_P;
    static const float q[5] = TATVPR_ERF_Q;
    const float32x4_t high = vdupq_n_f32(TATVPR_ERF_CLAMP);
    const float32x4_t low = vdupq_n_f32(-TATVPR_ERF_CLAMP);
    const float32x4_t one = vdupq_n_f32(1.0f);
    int32_t i = 0;
    for (; i + 4 <= count; i += 4) {
        const float32x4_t v = vldrwq_f32(x + i);
        const float32x4_t e = vmaxnmq_f32(vminnmq_f32(vmulq_n_f32(v, TATVPR_SQRT_HALF), high), low);
        const float32x4_t z = vmulq_f32(e, e);
        float32x4_t above = vaddq_n_f32(vmulq_n_f32(z, p[0]), p[1]);
#pragma GCC unroll 5
        for (int32_t j = 2; j < 7; j++) {
            above = vaddq_n_f32(vmulq_f32(above, z), p[j]);
        }
        float32x4_t below = vaddq_n_f32(vmulq_n_f32(z, q[0]), q[1]);
#pragma GCC unroll 3
        for (int32_t j = 2; j < 5; j++) {
            below = vaddq_n_f32(vmulq_f32(below, z), q[j]);
        }
        float32x4_t erf = tatvpr_divide4(vmulq_f32(e, above), below);
        erf = vmaxnmq_f32(vminnmq_f32(erf, one), vnegq_f32(one));
        vstrwq_f32(y + i, vmulq_f32(vmulq_n_f32(v, 0.5f), vaddq_f32(erf, one)));
    }
    for (; i < count; i++) {
        y[i] = tatvpr_gelu_one(x[i]);
    }
}

/* ---- the gate */

static uint8x16_t magnitudes(const int8_t *q) {
    return vreinterpretq_u8_s8(vabsq_s8(vldrbq_s8(q)));
}

/* `count`, and one more for each magnitude from `limit` on. Assembly, because GCC moves a predicate
 * through another register; it cannot be told that VPR changes, so that functions around this hold
 * no predicate and are not inlined. */
static inline uint32_t count_more(uint32_t count, uint8x16_t magnitude, int32_t limit) {
    __asm("vpt.u8 cs, %q[m], %[limit]\n\tvaddvat.u8 %[count], %q[ones]"
          : [count] "+Te"(count)
          : [m] "w"(magnitude), [limit] "r"(limit), [ones] "w"(vdupq_n_u8(1)));
    return count;
}

/* How many of the padded row's |q| are at least `limit`. */
static __attribute__((noinline)) int32_t count_at_least(const int8_t *q, int32_t vectors,
                                                        int32_t limit) {
    uint32_t count = 0;
    for (; vectors > 0; vectors--, q += 16) {
        count = count_more(count, magnitudes(q), limit);
    }
    return (int32_t)count;
}

enum { NEAR = 4 };

/* The same of `limit` and the three magnitudes after it. */
static __attribute__((noinline)) void count_near(const int8_t *q, int32_t vectors, int32_t limit,
                                                 int32_t count[NEAR]) {
    uint32_t n0 = 0, n1 = 0, n2 = 0, n3 = 0;
    for (; vectors > 0; vectors--, q += 16) {
        const uint8x16_t m = magnitudes(q);
        n0 = count_more(n0, m, limit);
        n1 = count_more(n1, m, limit + 1);
        n2 = count_more(n2, m, limit + 2);
        n3 = count_more(n3, m, limit + 3);
    }
    count[0] = (int32_t)n0;
    count[1] = (int32_t)n1;
    count[2] = (int32_t)n2;
    count[3] = (int32_t)n3;
}

/* The largest magnitude that at least `keep` reach, 0 where fewer are not 0, and how many lie
 * above it. The rows before say nearly where it is: below `guess` or from there on, most often
 * among the four magnitudes next to it. */
static int32_t find_cut(const int8_t *q, int32_t vectors, int32_t keep, int32_t guess,
                        int32_t *above) {
    int32_t count[NEAR];
    const int32_t reach = count_at_least(q, vectors, guess);
    int32_t least = reach >= keep ? guess : guess > NEAR ? guess - NEAR - 1 : 0;
    *above = reach >= keep ? 0 : reach;
    count_near(q, vectors, least + 1, count);
    int32_t near = 0;
    while (near < NEAR && count[near] >= keep) {
        near++;
    }
    if (near < NEAR && (near > 0 || least == 0 || reach >= keep)) {
        *above = count[near];
        return least + near;
    }
    if (near == NEAR && reach < keep) {
        return least + near;
    }
    least = 0;
    for (int32_t bit = 64; bit > 0; bit /= 2) {
        const int32_t more = count_at_least(q, vectors, least + bit);
        if (more >= keep) {
            least += bit;
        } else {
            *above = more;
        }
    }
    return least;
}

/* Drops all but the `keep` largest; at the least magnitude that stays, the first ones do. */
static int32_t drop_channels(int8_t *q, int32_t vectors, int32_t keep, int32_t guess) {
    int32_t above = 0;
    const int32_t least = find_cut(q, vectors, keep, guess, &above);
    if (least == 0) {
        return 0; /* whatever is not 0 stays */
    }
    int32_t ties = keep - above;
    const uint8x16_t ones = vdupq_n_u8(1);
    const uint8x16_t none = vdupq_n_u8(0);
    for (; vectors > 0; vectors--, q += 16) {
        const int8x16_t v = vldrbq_s8(q);
        const uint8x16_t m = vreinterpretq_u8_s8(vabsq_s8(v));
        mve_pred16_t stay = vcmphiq_n_u8(m, (uint8_t)least);
        if (ties > 0) {
            const mve_pred16_t tied = vcmpeqq_n_u8(m, (uint8_t)least);
            const int32_t here = (int32_t)vaddvq_u8(vpselq_u8(ones, none, tied));
            if (here <= ties) {
                stay = (mve_pred16_t)(stay | tied);
                ties -= here;
            } else {
                for (uint32_t lane = 1; ties > 0; lane <<= 1) { /* one predicate bit a byte */
                    ties -= (tied & lane) != 0;
                    stay = (mve_pred16_t)(stay | (tied & lane));
                }
            }
        }
        vstrbq_s8(q, vpselq_s8(v, vreinterpretq_s8_u8(none), stay));
    }
    return least;
}

#define MOST_GROUPS 512

static void drop_groups(int8_t *q, int32_t group, int32_t groups, int32_t keep) {
    int16_t scores[MOST_GROUPS];
    for (int32_t g = 0; g < groups; g++) {
        int32_t score = 0;
        for (int32_t i = 0; i < group; i++) {
            const int32_t v = q[g * group + i];
            score += v < 0 ? -v : v;
        }
        scores[g] = (int16_t)score;
    }
    const int32_t least = tatvpr_least_kept(scores, groups, keep);
    int32_t ties = keep;
    for (int32_t g = 0; g < groups; g++) {
        ties -= scores[g] > least;
    }
    for (int32_t g = 0; g < groups; g++) {
        if (scores[g] > least || (scores[g] == least && ties-- > 0)) {
            continue;
        }
        for (int32_t i = 0; i < group; i++) {
            q[g * group + i] = 0;
        }
    }
}

static void list_channels(tatvpr_tile *tile, int32_t t, const int8_t *q, int32_t vectors) {
    uint16_t *const first = tile->index + (ptrdiff_t)t * tile->list_stride;
    uint16_t *index = first;
    int8_t *value = tile->value + (ptrdiff_t)t * tile->list_stride;
    for (int32_t v = 0; v < vectors; v++) {
        uint32_t left = vcmpneq_n_s8(vldrbq_s8(q + 16 * v), 0);
        while (left != 0) {
            const int32_t channel = 16 * v + __builtin_ctz(left);
            left &= left - 1u;
            *index++ = (uint16_t)channel;
            *value++ = q[channel];
        }
    }
    tile->count[t] = (int32_t)(index - first);
    while ((index - first) % 4 != 0) {
        *index++ = 0;
        *value++ = 0;
    }
}

void tatvpr_helium_select(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t group,
                          int32_t list) {
    int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    const int32_t groups = tile->k_in / group;
    const int32_t vectors = tile->q_stride / 16; /* past the last channel q is 0 */
    if (group != 1 && (group > 64 || groups > MOST_GROUPS)) {
        tatvpr_portable_select(tile, t, keep, group, list);
        return;
    }
    if (keep < groups && group == 1) {
        const float guess = tile->hint / tile->s[t]; /* 0 before the first row */
        const int32_t at = guess < 127.0f ? (int32_t)(guess + 0.5f) : 127;
        const int32_t least = drop_channels(q, vectors, keep, at > 0 ? at : 1);
        const float cut = (float)least * tile->s[t];
        tile->hint = tile->hint > 0.0f ? 0.5f * (tile->hint + cut) : cut;
    } else if (keep < groups) {
        drop_groups(q, group, groups, keep);
    }
    if (list) {
        list_channels(tile, t, q, vectors);
    }
}

#endif
