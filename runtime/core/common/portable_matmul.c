/* Portable ternary matmul, dense and sparse, on TATVPR_LAYOUT_ROWS2, and PatchEmbed. */
#include "core.h"

size_t tatvpr_portable_prepared_bytes(const tatvpr_ternary *op) {
    return (size_t)op->n_out * (((size_t)op->k_in + 3) / 4);
}

/* Five trits a byte to two bits a weight, in the file's order: the portable kernels read that. */
void tatvpr_portable_prepare(const tatvpr_ternary *op, const uint8_t *stored, uint8_t *prepared) {
    const size_t stored_row = ((size_t)op->k_in + 4) / 5;
    const size_t row = ((size_t)op->k_in + 3) / 4;
    for (int32_t n = 0; n < op->n_out; n++) {
        const uint8_t *from = stored + (size_t)n * stored_row;
        uint8_t *to = prepared + (size_t)n * row;
        uint32_t byte = 0;
        uint32_t codes = 0;
        for (int32_t i = 0; i < (int32_t)row * 4; i++) {
            if (i % 5 == 0 && i < op->k_in) {
                byte = *from++;
            }
            const uint32_t code = i < op->k_in ? byte % 3u : 1u;
            byte /= 3u;
            codes |= code << (2 * (i % 4));
            if (i % 4 == 3) {
                *to++ = (uint8_t)codes;
                codes = 0;
            }
        }
    }
}

/* Row `n` as bytes -1, 0, +1. */
static void decode_row(const tatvpr_matmul *job, int32_t n, int8_t *w /* [K] */) {
    const int32_t k_in = job->op->k_in;
    const uint8_t *row = job->weight + (size_t)n * (((size_t)k_in + 3) / 4);
    for (int32_t i = 0; i < k_in; i++) {
        w[i] = (int8_t)((int32_t)(row[i / 4] >> (2 * (i % 4)) & 3) - 1);
    }
}

static void write_output(const tatvpr_matmul *job, int32_t t, int32_t n, int32_t acc) {
    const ptrdiff_t at = (ptrdiff_t)t * job->y_stride + n;
    const float scale = job->scale[job->op->scale_per_row ? n : 0];
    float y = ((float)acc * job->tile->s[t]) * scale + job->bias[n];
    if (job->residual != NULL) {
        y = job->residual[at] + y;
    }
    job->y[at] = y;
}

void tatvpr_portable_dense(const tatvpr_matmul *job) {
    int8_t *w = (int8_t *)job->panel;
    for (int32_t n = 0; n < job->op->n_out; n++) {
        decode_row(job, n, w);
        for (int32_t t = 0; t < job->tile->tokens; t++) {
            const int8_t *q = job->tile->q + (ptrdiff_t)t * job->tile->q_stride;
            int32_t acc = 0;
            for (int32_t i = 0; i < job->op->k_in; i++) {
                acc += q[i] * w[i];
            }
            write_output(job, t, n, acc);
        }
    }
}

void tatvpr_portable_sparse(const tatvpr_matmul *job) {
    int8_t *w = (int8_t *)job->panel;
    for (int32_t n = 0; n < job->op->n_out; n++) {
        decode_row(job, n, w);
        for (int32_t t = 0; t < job->tile->tokens; t++) {
            const uint16_t *index = job->tile->index + (ptrdiff_t)t * job->tile->list_stride;
            const int8_t *value = job->tile->value + (ptrdiff_t)t * job->tile->list_stride;
            int32_t acc = 0;
            for (int32_t i = 0; i < job->tile->count[t]; i++) {
                acc += value[i] * w[index[i]];
            }
            write_output(job, t, n, acc);
        }
    }
}

float tatvpr_portable_sparse_below(const tatvpr_ternary *op, int32_t group) {
    (void)op;
    (void)group;
    return 0.5f;
}

void tatvpr_portable_patch_embed(const tatvpr_patch_job *job) {
    const tatvpr_patch_embed *op = job->op;
    const int32_t side = op->image_size / op->patch;
    const int32_t run = op->patch * 3;
    for (int32_t i = 0; i < job->rows * side; i++) {
        const int32_t row = job->first_row + i / side;
        const uint8_t *corner = job->pixels + (ptrdiff_t)row * op->patch * op->image_size * 3 +
                                (ptrdiff_t)(i % side) * run;
        float *y = job->y + ((ptrdiff_t)row * side + i % side) * op->dim;
        for (int32_t d = 0; d < op->dim; d++) {
            const int8_t *w = job->weight + (ptrdiff_t)d * op->patch * run;
            int32_t acc = 0;
            for (int32_t r = 0; r < op->patch; r++) {
                const uint8_t *p = corner + (ptrdiff_t)r * op->image_size * 3;
                for (int32_t c = 0; c < run; c++) {
                    acc += ((int32_t)p[c] - 128) * w[r * run + c];
                }
            }
            y[d] = (float)acc * job->scale[d] + job->bias[d];
        }
    }
}
