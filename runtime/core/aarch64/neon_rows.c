/* NEON: LayerNorm, GELU and quantisation of one row. */
#include "neon.h"

/* The short last round of the partial sums: elements of x beyond `whole`, minus `mean`, squared
 * where asked for. */
static void add_tail(float32x4_t p[4], const float *x, int32_t whole, int32_t dim, float mean,
                     int square) {
    float partial[16];
    for (int i = 0; i < 4; i++) {
        vst1q_f32(partial + 4 * i, p[i]);
    }
    for (int32_t i = whole; i < dim; i++) {
        const float centred = x[i] - mean;
        partial[i - whole] += square ? centred * centred : x[i];
    }
    for (int i = 0; i < 4; i++) {
        p[i] = vld1q_f32(partial + 4 * i);
    }
}

void tatvpr_neon_layer_norm(const float *x, const float *gamma, const float *beta, float eps,
                            int32_t dim, float *y) {
    const int32_t whole = dim / 16 * 16;
    const float width = (float)dim;
    float32x4_t p[4] = {vdupq_n_f32(0.0f), vdupq_n_f32(0.0f), vdupq_n_f32(0.0f),
                        vdupq_n_f32(0.0f)};
    for (int32_t i = 0; i < whole; i += 16) {
        for (int j = 0; j < 4; j++) {
            p[j] = vaddq_f32(p[j], vld1q_f32(x + i + 4 * j));
        }
    }
    if (whole < dim) {
        add_tail(p, x, whole, dim, 0.0f, 0);
    }
    const float mean = tatvpr_tree_f32(p) / width;
    const float32x4_t means = vdupq_n_f32(mean);
    for (int j = 0; j < 4; j++) {
        p[j] = vdupq_n_f32(0.0f);
    }
    for (int32_t i = 0; i < whole; i += 16) {
        for (int j = 0; j < 4; j++) {
            const float32x4_t centred = vsubq_f32(vld1q_f32(x + i + 4 * j), means);
            p[j] = vaddq_f32(p[j], vmulq_f32(centred, centred));
        }
    }
    if (whole < dim) {
        add_tail(p, x, whole, dim, mean, 1);
    }
    const float inverse = 1.0f / tatvpr_sqrt(tatvpr_tree_f32(p) / width + eps);
    const int32_t fours = dim / 4 * 4;
    for (int32_t i = 0; i < fours; i += 4) {
        const float32x4_t n = vmulq_n_f32(vsubq_f32(vld1q_f32(x + i), means), inverse);
        vst1q_f32(y + i, tatvpr_mul_add(n, vld1q_f32(gamma + i), vld1q_f32(beta + i)));
    }
    for (int32_t i = fours; i < dim; i++) {
        y[i] = ((x[i] - mean) * inverse) * gamma[i] + beta[i];
    }
}

static float32x4_t horner(float32x4_t x, const float *c, int count) {
    float32x4_t y = vdupq_n_f32(c[0]);
    for (int i = 1; i < count; i++) {
        y = tatvpr_mul_add(y, x, vdupq_n_f32(c[i]));
    }
    return y;
}

static float32x4_t clip(float32x4_t x, float low, float high) {
    return vminq_f32(vmaxq_f32(x, vdupq_n_f32(low)), vdupq_n_f32(high));
}

void tatvpr_neon_gelu(const float *x, int32_t count, float *y) {
    static const float p[7] = TATVPR_ERF_P;
    static const float q[5] = TATVPR_ERF_Q;
    const int32_t fours = count / 4 * 4;
    for (int32_t i = 0; i < fours; i += 4) {
        const float32x4_t v = vld1q_f32(x + i);
        const float32x4_t a =
            clip(vmulq_n_f32(v, TATVPR_SQRT_HALF), -TATVPR_ERF_CLAMP, TATVPR_ERF_CLAMP);
        const float32x4_t z = vmulq_f32(a, a);
        const float32x4_t erf =
            clip(vdivq_f32(vmulq_f32(a, horner(z, p, 7)), horner(z, q, 5)), -1.0f, 1.0f);
        const float32x4_t half = vmulq_n_f32(v, 0.5f);
        vst1q_f32(y + i, vmulq_f32(half, vaddq_f32(vdupq_n_f32(1.0f), erf)));
    }
    for (int32_t i = fours; i < count; i++) {
        y[i] = tatvpr_gelu_one(x[i]);
    }
}

float tatvpr_neon_quantise(const float *x, int32_t k_in, int8_t *q) {
    const int32_t whole = k_in / 16 * 16;
    float32x4_t most = vdupq_n_f32(TATVPR_MIN_ABS_MAX);
    for (int32_t i = 0; i < whole; i += 4) {
        most = vmaxnmq_f32(most, vabsq_f32(vld1q_f32(x + i)));
    }
    float largest = vmaxnmvq_f32(most);
    for (int32_t i = whole; i < k_in; i++) {
        const float a = x[i] < 0.0f ? -x[i] : x[i];
        largest = a > largest ? a : largest;
    }
    const float s = largest / TATVPR_QUANT_MAX;
    const float inverse = 1.0f / s;
    /* |x| / s exceeds 127 by three roundings at most, so that nothing is clipped: low halves and low
     * bytes are taken as they are. (An infinite x makes 1 / s zero, and infinity times that NaN.) */
    for (int32_t i = 0; i < whole; i += 16) {
        int16x8_t n[4];
        for (int j = 0; j < 4; j++) { /* vcvtnq rounds half to even, and NaN to zero */
            n[j] = vreinterpretq_s16_s32(
                vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i + 4 * j), inverse)));
        }
        const int8x16_t low = vreinterpretq_s8_s16(vuzp1q_s16(n[0], n[1]));
        const int8x16_t high = vreinterpretq_s8_s16(vuzp1q_s16(n[2], n[3]));
        vst1q_s8(q + i, vuzp1q_s8(low, high));
    }
    for (int32_t i = whole; i < k_in; i++) {
        q[i] = tatvpr_quantise_one(x[i], inverse);
    }
    tatvpr_pad_row(q, k_in);
    return s;
}
