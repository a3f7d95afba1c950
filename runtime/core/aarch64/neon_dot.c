/* NEON: QuantAttention, PatchEmbed and the dot products of map search; compiled twice, with sdot
 * and without. Keys as bytes, four keys by four elements a register; values four tokens by four
 * elements; two queries at a time. */
#include "neon.h"

/* Lane i grows by the products of a's and b's bytes 4 i .. 4 i + 3. */
static inline int32x4_t dot_lanes(int32x4_t acc, int8x16_t a, int8x16_t b) {
#if defined(TATVPR_DOTPROD)
    return vdotq_s32(acc, a, b);
#else
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    const int32x4_t high = vpaddlq_s16(vmull_high_s8(a, b));
    return vaddq_s32(acc, vpaddq_s32(low, high));
#endif
}

/* The lanes together grow by all sixteen products; products of -128 and 127 at most. */
static inline int32x4_t dot_all(int32x4_t acc, int8x16_t a, int8x16_t b) {
#if defined(TATVPR_DOTPROD)
    return vdotq_s32(acc, a, b);
#else
    const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
    return vpadalq_s16(acc, vmlal_high_s8(low, a, b));
#endif
}

static inline int8x16_t four(const int8_t *p) {
    int32_t v;
    __builtin_memcpy(&v, p, sizeof(v));
    return vreinterpretq_s8_s32(vdupq_n_s32(v));
}

/* ---- attention */

typedef struct head {
    int32_t tokens;    /* T */
    int32_t padded;    /* T rounded up to 4 */
    int32_t width;     /* H rounded up to 4 */
    int8_t *keys;      /* [width / 4, padded, 4] */
    int8_t *values;    /* [padded / 4, width, 4] */
    int8_t *query;     /* [2, width] */
    float *logits;     /* [2, padded] */
    int8_t *weights;   /* [2, padded] */
    float s_k;
    float s_v;
} head;

static float scale_of(const float *x, int32_t rows, int32_t stride, int32_t columns) {
    float32x4_t most = vdupq_n_f32(TATVPR_MIN_ABS_MAX);
    float largest = TATVPR_MIN_ABS_MAX;
    const int32_t whole = columns / 4 * 4;
    for (int32_t t = 0; t < rows; t++) {
        const float *row = x + (ptrdiff_t)t * stride;
        for (int32_t i = 0; i < whole; i += 4) {
            most = vmaxnmq_f32(most, vabsq_f32(vld1q_f32(row + i)));
        }
        for (int32_t i = whole; i < columns; i++) {
            const float a = row[i] < 0.0f ? -row[i] : row[i];
            largest = a > largest ? a : largest;
        }
    }
    const float vector = vmaxnmvq_f32(most);
    return (vector > largest ? vector : largest) / TATVPR_QUANT_MAX;
}

/* Four elements as int8, zeros beyond `left`. */
static inline void quantise_four(const float *x, int32_t left, float inverse, int8_t *q) {
    if (left >= 4) {
        const int32x4_t n = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x), inverse));
        const int16x4_t h = vmin_s16(vmax_s16(vqmovn_s32(n), vdup_n_s16(-127)), vdup_n_s16(127));
        const int8x8_t bytes = vmovn_s16(vcombine_s16(h, h));
        vst1_lane_s32((int32_t *)(void *)q, vreinterpret_s32_s8(bytes), 0);
        return;
    }
    for (int32_t i = 0; i < 4; i++) {
        q[i] = i < left ? tatvpr_quantise_one(x[i], inverse) : (int8_t)0;
    }
}

static void take_scratch(head *h, const tatvpr_head_job *job) {
    h->tokens = job->tokens;
    h->padded = (job->tokens + 3) / 4 * 4;
    h->width = (job->head_dim + 3) / 4 * 4;
    uint8_t *at = job->scratch;
    h->logits = (float *)(void *)at;
    at += (size_t)h->padded * 2 * sizeof(float);
    h->keys = (int8_t *)at;
    at += (size_t)h->padded * (size_t)h->width;
    h->values = (int8_t *)at;
    at += (size_t)h->padded * (size_t)h->width;
    h->query = (int8_t *)at;
    at += (size_t)h->width * 2;
    h->weights = (int8_t *)at;
}

static void pack(head *h, const tatvpr_head_job *job) {
    const int32_t stride = 3 * job->dim;
    const float *keys = job->qkv + job->dim + (ptrdiff_t)job->head * job->head_dim;
    const float *values = keys + job->dim;
    h->s_k = scale_of(keys, h->tokens, stride, job->head_dim);
    h->s_v = scale_of(values, h->tokens, stride, job->head_dim);
    const float inverse_k = 1.0f / h->s_k;
    const float inverse_v = 1.0f / h->s_v;
    for (int32_t j = 0; j < h->padded; j++) {
        for (int32_t i = 0; i < h->width; i += 4) {
            const int32_t left = j < h->tokens ? job->head_dim - i : 0;
            int8_t q[4];
            quantise_four(keys + (ptrdiff_t)j * stride + i, left, inverse_k, q);
            __builtin_memcpy(h->keys + ((ptrdiff_t)(i / 4) * h->padded + j) * 4, q, 4);
            quantise_four(values + (ptrdiff_t)j * stride + i, left, inverse_v, q);
            int8_t *to = h->values + ((ptrdiff_t)(j / 4) * h->width + i) * 4 + j % 4;
            for (int e = 0; e < 4; e++) {
                to[4 * e] = q[e];
            }
        }
    }
}

/* Logits of two queries: ((dot * s_q) * s_k) / sqrt(H), which is taken into the key scale where it
 * is a power of two: the same bits. */
static void two_logits(const head *h, const float *s_q, float root) {
    const int exact = tatvpr_is_power_of_two(root);
    const float s_k = exact ? h->s_k / root : h->s_k;
    const float32x4_t roots = vdupq_n_f32(root);
    int32_t j = 0;
    for (; j + 16 <= h->padded; j += 16) { /* sixteen keys: eight sums, so that none waits */
        int32x4_t d[2][4];
        for (int b = 0; b < 4; b++) {
            d[0][b] = vdupq_n_s32(0);
            d[1][b] = vdupq_n_s32(0);
        }
        const int8_t *keys = h->keys + (ptrdiff_t)j * 4;
        for (int32_t i = 0; i < h->width; i += 4, keys += 4 * (ptrdiff_t)h->padded) {
            const int8x16_t q0 = four(h->query + i);
            const int8x16_t q1 = four(h->query + h->width + i);
            for (int b = 0; b < 4; b++) {
                const int8x16_t k = vld1q_s8(keys + 16 * b);
                d[0][b] = dot_lanes(d[0][b], k, q0);
                d[1][b] = dot_lanes(d[1][b], k, q1);
            }
        }
        for (int q = 0; q < 2; q++) {
            float *logits = h->logits + (ptrdiff_t)q * h->padded + j;
            for (int b = 0; b < 4; b++) {
                const float32x4_t l =
                    vmulq_n_f32(vmulq_n_f32(vcvtq_f32_s32(d[q][b]), s_q[q]), s_k);
                vst1q_f32(logits + 4 * b, exact ? l : vdivq_f32(l, roots));
            }
        }
    }
    for (; j < h->padded; j += 4) {
        int32x4_t d0 = vdupq_n_s32(0);
        int32x4_t d1 = d0;
        const int8_t *keys = h->keys + (ptrdiff_t)j * 4;
        for (int32_t i = 0; i < h->width; i += 4, keys += 4 * (ptrdiff_t)h->padded) {
            const int8x16_t k = vld1q_s8(keys);
            d0 = dot_lanes(d0, k, four(h->query + i));
            d1 = dot_lanes(d1, k, four(h->query + h->width + i));
        }
        const float32x4_t l0 = vmulq_n_f32(vmulq_n_f32(vcvtq_f32_s32(d0), s_q[0]), s_k);
        const float32x4_t l1 = vmulq_n_f32(vmulq_n_f32(vcvtq_f32_s32(d1), s_q[1]), s_k);
        vst1q_f32(h->logits + j, exact ? l0 : vdivq_f32(l0, roots));
        vst1q_f32(h->logits + h->padded + j, exact ? l1 : vdivq_f32(l1, roots));
    }
}

/* Logits of one query to weights 0..127, zeros beyond T; answers their sum. */
static int32_t weigh(const head *h, float *logits, int8_t *weights) {
    static const int32_t iota[4] = {0, 1, 2, 3};
    for (int32_t j = h->tokens; j < h->padded; j++) {
        logits[j] = logits[0]; /* neutral for the maximum */
    }
    float32x4_t most = vld1q_f32(logits);
    for (int32_t j = 4; j < h->padded; j += 4) {
        most = vmaxq_f32(most, vld1q_f32(logits + j));
    }
    const float32x4_t highest = vdupq_n_f32(vmaxvq_f32(most));
    int32x4_t total = vdupq_n_s32(0);
    for (int32_t j = 0; j < h->padded; j += 4) {
        const float32x4_t e = tatvpr_exp_f32(vsubq_f32(vld1q_f32(logits + j), highest));
        int32x4_t w = vcvtnq_s32_f32(vmulq_n_f32(e, TATVPR_QUANT_MAX));
        const uint32x4_t inside = vcltq_s32(vld1q_s32(iota), vdupq_n_s32(h->tokens - j));
        w = vandq_s32(w, vreinterpretq_s32_u32(inside));
        w = vandq_s32(w, vdupq_n_s32(127)); /* changes only what is not finite */
        total = vaddq_s32(total, w);
        const int16x4_t half = vmovn_s32(w);
        const int8x8_t bytes = vmovn_s16(vcombine_s16(half, half));
        int8_t lanes[8];
        vst1_s8(lanes, bytes);
        __builtin_memcpy(weights + j, lanes, 4);
    }
    return tatvpr_max_i32(vaddvq_s32(total), 1);
}

/* Four elements of the values, mixed by one query's weights. */
static int32x4_t mix(const head *h, const int8_t *weights, int32_t element) {
    int32x4_t mixed = vdupq_n_s32(0);
    const int8_t *values = h->values + (ptrdiff_t)element * 4;
    for (int32_t j = 0; j < h->padded; j += 4, values += 4 * (ptrdiff_t)h->width) {
        mixed = dot_lanes(mixed, vld1q_s8(values), four(weights + j));
    }
    return mixed;
}

static void write_token(const head *h, const tatvpr_head_job *job, int32_t token,
                        const int8_t *weights, float share) {
    float *y = job->y + (ptrdiff_t)token * job->dim + (ptrdiff_t)job->head * job->head_dim;
    int32_t i = 0;
    for (; i + 16 <= job->head_dim; i += 16) {
        int32x4_t mixed[4];
        for (int b = 0; b < 4; b++) {
            mixed[b] = vdupq_n_s32(0);
        }
        const int8_t *values = h->values + (ptrdiff_t)i * 4;
        for (int32_t j = 0; j < h->padded; j += 4, values += 4 * (ptrdiff_t)h->width) {
            const int8x16_t w = four(weights + j);
            for (int b = 0; b < 4; b++) {
                mixed[b] = dot_lanes(mixed[b], vld1q_s8(values + 16 * b), w);
            }
        }
        for (int b = 0; b < 4; b++) {
            const float32x4_t v = vmulq_n_f32(vcvtq_f32_s32(mixed[b]), h->s_v);
            vst1q_f32(y + i + 4 * b, vmulq_n_f32(v, share));
        }
    }
    for (; i < job->head_dim; i += 4) {
        const float32x4_t v =
            vmulq_n_f32(vmulq_n_f32(vcvtq_f32_s32(mix(h, weights, i)), h->s_v), share);
        if (i + 4 <= job->head_dim) {
            vst1q_f32(y + i, v);
            continue;
        }
        float lanes[4];
        vst1q_f32(lanes, v);
        for (int32_t e = i; e < job->head_dim; e++) {
            y[e] = lanes[e - i];
        }
    }
}

void TATVPR_NEON(attention)(const tatvpr_head_job *job) {
    head h;
    take_scratch(&h, job);
    pack(&h, job);
    const float root = tatvpr_sqrt((float)job->head_dim);
    const float *queries = job->qkv + (ptrdiff_t)job->head * job->head_dim;
    for (int32_t first = 0; first < h.tokens; first += 2) {
        float s_q[2];
        for (int32_t i = 0; i < 2; i++) {
            const int32_t token = tatvpr_min_i32(first + i, h.tokens - 1);
            const float *x = queries + (ptrdiff_t)token * 3 * job->dim;
            s_q[i] = scale_of(x, 1, 0, job->head_dim);
            const float inverse = 1.0f / s_q[i];
            for (int32_t e = 0; e < h.width; e += 4) {
                quantise_four(x + e, job->head_dim - e, inverse,
                              h.query + (ptrdiff_t)i * h.width + e);
            }
        }
        two_logits(&h, s_q, root);
        for (int32_t i = 0; i < 2 && first + i < h.tokens; i++) {
            int8_t *weights = h.weights + (ptrdiff_t)i * h.padded;
            const float share =
                1.0f / (float)weigh(&h, h.logits + (ptrdiff_t)i * h.padded, weights);
            write_token(&h, job, first + i, weights, share);
            for (int32_t j = 0; first + i == 0 && job->a != NULL && j < h.tokens; j++) {
                job->a[j] = (float)weights[j] * share;
            }
        }
    }
}

/* ---- PatchEmbed: a pixel minus 128 is a signed byte */

static void gather(const tatvpr_patch_job *job, int32_t row, int32_t padded, int8_t *patches) {
    const tatvpr_patch_embed *op = job->op;
    const int32_t side = op->image_size / op->patch;
    const int32_t run = op->patch * 3;
    for (int32_t i = 0; i < side; i++) {
        int8_t *to = patches + (ptrdiff_t)i * padded;
        for (int32_t r = 0; r < op->patch; r++) {
            const uint8_t *p = job->pixels +
                               ((ptrdiff_t)(row * op->patch + r) * op->image_size) * 3 +
                               (ptrdiff_t)i * run;
            for (int32_t c = 0; c < run; c++) {
                *to++ = (int8_t)(p[c] - 128);
            }
        }
        for (int32_t c = run * op->patch; c < padded; c++) {
            *to++ = 0;
        }
    }
}

/* The last weights of a row, fewer than 16: it may end where the blob ends. */
static inline int8x16_t weights_tail(const int8_t *w, int32_t left) {
    int8_t tail[16] = {0};
    for (int32_t i = 0; i < left; i++) {
        tail[i] = w[i];
    }
    return vld1q_s8(tail);
}

void TATVPR_NEON(patch_embed)(const tatvpr_patch_job *job) {
    const tatvpr_patch_embed *op = job->op;
    const int32_t side = op->image_size / op->patch;
    const int32_t length = op->patch * op->patch * 3;
    const int32_t padded = (length + 15) / 16 * 16;
    const int32_t whole = length / 16 * 16;
    int8_t *patches = (int8_t *)job->scratch;
    for (int32_t row = job->first_row; row < job->first_row + job->rows; row++) {
        gather(job, row, padded, patches);
        for (int32_t d = 0; d < op->dim; d++) {
            const int8_t *w = job->weight + (ptrdiff_t)d * length;
            for (int32_t i = 0; i < side; i += 4) {
                const int8_t *p[4];
                int32x4_t acc[4];
                for (int32_t j = 0; j < 4; j++) {
                    p[j] = patches + (ptrdiff_t)tatvpr_min_i32(i + j, side - 1) * padded;
                    acc[j] = vdupq_n_s32(0);
                }
                for (int32_t c = 0; c < whole; c += 16) {
                    const int8x16_t x = vld1q_s8(w + c);
                    for (int j = 0; j < 4; j++) {
                        acc[j] = dot_all(acc[j], vld1q_s8(p[j] + c), x);
                    }
                }
                if (whole < length) {
                    const int8x16_t x = weights_tail(w + whole, length - whole);
                    for (int j = 0; j < 4; j++) {
                        acc[j] = dot_all(acc[j], vld1q_s8(p[j] + whole), x);
                    }
                }
                for (int32_t j = 0; j < 4 && i + j < side; j++) {
                    float *y = job->y + ((ptrdiff_t)row * side + i + j) * op->dim;
                    y[d] = (float)vaddvq_s32(acc[j]) * job->scale[d] + job->bias[d];
                }
            }
        }
    }
}

/* ---- map search */

void TATVPR_NEON(dot_i8)(const int8_t *query, const int8_t *rows, int32_t dim, int32_t stride,
                         int32_t count, int32_t *dot) {
    const int32_t whole = dim / 16 * 16;
    for (int32_t n = 0; n < count; n++) {
        const int8_t *row = rows + (ptrdiff_t)n * stride;
        int32x4_t acc = vdupq_n_s32(0);
        for (int32_t i = 0; i < whole; i += 16) {
            acc = dot_all(acc, vld1q_s8(query + i), vld1q_s8(row + i));
        }
        int32_t sum = vaddvq_s32(acc);
        for (int32_t i = whole; i < dim; i++) {
            sum += query[i] * row[i];
        }
        dot[n] = sum;
    }
}

#if !defined(TATVPR_DOTPROD)
void tatvpr_neon_hamming(const uint8_t *query, const uint8_t *rows, int32_t bytes, int32_t stride,
                         int32_t count, int32_t *distance) {
    const int32_t whole = bytes / 16 * 16;
    for (int32_t n = 0; n < count; n++) {
        const uint8_t *row = rows + (ptrdiff_t)n * stride;
        uint32x4_t acc = vdupq_n_u32(0);
        for (int32_t i = 0; i < whole; i += 16) {
            const uint8x16_t x = veorq_u8(vld1q_u8(query + i), vld1q_u8(row + i));
            acc = vpadalq_u16(acc, vpaddlq_u8(vcntq_u8(x)));
        }
        int32_t sum = (int32_t)vaddvq_u32(acc);
        for (int32_t i = whole; i < bytes; i++) {
            sum += __builtin_popcount((uint32_t)(query[i] ^ row[i]));
        }
        distance[n] = sum;
    }
}

void tatvpr_neon_dot_bits(const int8_t *query, const uint8_t *rows, int32_t bytes, int32_t stride,
                          int32_t count, int32_t *dot) {
    const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201u));
    const int32_t whole = bytes / 2 * 2;
    for (int32_t n = 0; n < count; n++) {
        const uint8_t *row = rows + (ptrdiff_t)n * stride;
        int16x8_t pairs = vdupq_n_s16(0); /* at most 254 a step, and 64 steps */
        for (int32_t i = 0; i < whole; i += 2) {
            const uint8x16_t spread = vcombine_u8(vdup_n_u8(row[i]), vdup_n_u8(row[i + 1]));
            const int8x16_t set = vreinterpretq_s8_u8(vtstq_u8(spread, bit));
            pairs = vpadalq_s8(pairs, vandq_s8(vld1q_s8(query + 8 * i), set));
        }
        int32_t rest = 0;
        if (whole < bytes) {
            tatvpr_portable_dot_bits(query + 8 * whole, row + whole, 1, stride, 1, &rest);
        }
        dot[n] = rest + vaddlvq_s16(pairs);
    }
}
#endif
