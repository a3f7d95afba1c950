/* Portable kernels on one row of activations: quantise, select, LayerNorm, GELU. */
#include "core.h"
#include "floats.h"

int32_t tatvpr_portable_usable(void) { return 1; }

float tatvpr_portable_quantise(const float *x, int32_t k_in, int8_t *q) {
    float largest = TATVPR_MIN_ABS_MAX;
    for (int32_t i = 0; i < k_in; i++) {
        const float a = x[i] < 0.0f ? -x[i] : x[i];
        largest = a > largest ? a : largest;
    }
    const float s = largest / TATVPR_QUANT_MAX;
    const float inverse = 1.0f / s;
    for (int32_t i = 0; i < k_in; i++) {
        q[i] = tatvpr_quantise_one(x[i], inverse);
    }
    tatvpr_pad_row(q, k_in);
    return s;
}

void tatvpr_list_row(tatvpr_tile *tile, int32_t t) {
    const int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    uint16_t *index = tile->index + (ptrdiff_t)t * tile->list_stride;
    int8_t *value = tile->value + (ptrdiff_t)t * tile->list_stride;
    int32_t n = 0;
    for (int32_t i = 0; i < tile->k_in; i++) {
        index[n] = (uint16_t)i; /* written always, counted when kept: no branch to mispredict */
        value[n] = q[i];
        n += q[i] != 0;
    }
    tile->count[t] = n;
    for (; n % 4 != 0; n++) {
        index[n] = 0;
        value[n] = 0;
    }
}

#if defined(TATVPR_WIDE)
void tatvpr_list_fours(tatvpr_tile *tile, int32_t t) {
    const int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    uint16_t *index = tile->index + (ptrdiff_t)t * tile->list_stride;
    int8_t *value = tile->value + (ptrdiff_t)t * tile->list_stride;
    int32_t n = 0;
    for (int32_t i = 0; i < tile->k_in; i += 4) {
        uint32_t four;
        __builtin_memcpy(&four, q + i, sizeof(four));
        index[n] = (uint16_t)(i / 4); /* written always, counted when kept, as above */
        __builtin_memcpy(value + 4 * (ptrdiff_t)n, &four, sizeof(four));
        n += four != 0;
    }
    tile->count[t] = n;
}
#endif

static int32_t group_score(const int8_t *q, int32_t group) {
    int32_t score = 0;
    for (int32_t i = 0; i < group; i++) {
        score += q[i] < 0 ? -q[i] : q[i];
    }
    return score;
}

/* Largest threshold that at least `keep` groups reach, bit by bit. */
static int32_t threshold(const int8_t *q, int32_t groups, int32_t group, int32_t keep) {
    int32_t bit = 64;
    while (bit * 2 <= 127 * group) {
        bit *= 2;
    }
    int32_t low = 0;
    for (; bit > 0; bit /= 2) {
        int32_t reached = 0;
        for (int32_t g = 0; g < groups; g++) {
            reached += group_score(q + (ptrdiff_t)g * group, group) >= low + bit;
        }
        if (reached >= keep) {
            low += bit;
        }
    }
    return low;
}

void tatvpr_portable_select(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t group,
                            int32_t list) {
    int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    const int32_t groups = tile->k_in / group;
    if (keep < groups) {
        const int32_t least = threshold(q, groups, group, keep);
        int32_t above = 0;
        for (int32_t g = 0; g < groups; g++) {
            above += group_score(q + (ptrdiff_t)g * group, group) > least;
        }
        int32_t ties = keep - above; /* of those at the threshold, the first ones stay */
        for (int32_t g = 0; g < groups; g++) {
            int8_t *part = q + (ptrdiff_t)g * group;
            const int32_t score = group_score(part, group);
            if (score > least || (score == least && ties-- > 0)) {
                continue;
            }
            for (int32_t i = 0; i < group; i++) {
                part[i] = 0;
            }
        }
    }
    int32_t sum = 0;
    for (int32_t i = 0; i < tile->k_in; i++) {
        sum += q[i];
    }
    tile->sum[t] = sum;
    if (list) {
        tatvpr_list_row(tile, t);
    }
}

void tatvpr_portable_layer_norm(const float *x, const float *gamma, const float *beta, float eps,
                                int32_t dim, float *y) {
    const float width = (float)dim;
    float partial[TATVPR_PARTIAL_SUMS] = {0};
    for (int32_t i = 0; i < dim; i++) {
        partial[tatvpr_partial_of(i)] += x[i];
    }
    const float mean = tatvpr_sum_tree(partial) / width;
    for (int32_t i = 0; i < TATVPR_PARTIAL_SUMS; i++) {
        partial[i] = 0.0f;
    }
    for (int32_t i = 0; i < dim; i++) {
        const float centred = x[i] - mean;
        partial[tatvpr_partial_of(i)] += centred * centred;
    }
    const float variance = tatvpr_sum_tree(partial) / width;
    const float inverse = 1.0f / tatvpr_sqrt(variance + eps);
    for (int32_t i = 0; i < dim; i++) {
        y[i] = ((x[i] - mean) * inverse) * gamma[i] + beta[i];
    }
}

void tatvpr_portable_gelu(const float *x, int32_t count, float *y) {
    for (int32_t i = 0; i < count; i++) {
        y[i] = tatvpr_gelu_one(x[i]);
    }
}
