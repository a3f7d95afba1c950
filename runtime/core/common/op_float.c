/* Float operators that stand alone: LayerNorm, GELU, GeM, L2; and the hooks of generated code. */
#include "core.h"
#include "floats.h"

tatvpr_status tatvpr_op_layer_norm(tatvpr_context *c, const tatvpr_norm *op, const float *x,
                                   int32_t t, int32_t dim, float *y) {
    if (t < 1 || dim < 1) {
        return TATVPR_ERR_ARGUMENT;
    }
    const float *gamma = tatvpr_floats(c->model, op->gamma);
    const float *beta = tatvpr_floats(c->model, op->beta);
    for (int32_t i = 0; i < t; i++) {
        const ptrdiff_t at = (ptrdiff_t)i * dim;
        c->model->kernels->layer_norm(x + at, gamma, beta, op->eps, dim, y + at);
    }
    return TATVPR_OK;
}

tatvpr_status tatvpr_op_gelu(tatvpr_context *c, const float *x, int32_t count, float *y) {
    if (count < 0) {
        return TATVPR_ERR_ARGUMENT;
    }
    c->model->kernels->gelu(x, count, y);
    return TATVPR_OK;
}

/* Rows are added like the elements of a sum: row i to partial sum i % 16. Sixteen columns at a
 * time, so that the partial sums of a column fit the stack. */
tatvpr_status tatvpr_op_gem(tatvpr_context *c, const float *x, const float *weight, int32_t t,
                            int32_t dim, float clamp, float *y) {
    enum { COLUMNS = 16 };
    (void)c;
    if (t < 1 || dim < 1) {
        return TATVPR_ERR_ARGUMENT;
    }
    for (int32_t first = 0; first < dim; first += COLUMNS) {
        float partial[COLUMNS][TATVPR_PARTIAL_SUMS] = {{0}};
        const int32_t columns = tatvpr_min_i32(COLUMNS, dim - first);
        for (int32_t i = 0; i < t; i++) {
            const float *row = x + (ptrdiff_t)i * dim + first;
            const float share = weight != NULL ? weight[i] : 1.0f; /* times 1 changes no bit */
            const int32_t p = tatvpr_partial_of(i);
            for (int32_t d = 0; d < columns; d++) {
                const float clipped = row[d] > clamp ? row[d] : clamp;
                partial[d][p] += ((clipped * clipped) * clipped) * share;
            }
        }
        for (int32_t d = 0; d < columns; d++) {
            const float mean = tatvpr_sum_tree(partial[d]) / (float)t;
            y[first + d] = tatvpr_exp(tatvpr_log(mean) / 3.0f);
        }
    }
    return TATVPR_OK;
}

tatvpr_status tatvpr_op_l2_normalize(tatvpr_context *c, const float *x, int32_t dim, float eps,
                                     float *y) {
    (void)c;
    if (dim < 1) {
        return TATVPR_ERR_ARGUMENT;
    }
    float partial[TATVPR_PARTIAL_SUMS] = {0};
    for (int32_t i = 0; i < dim; i++) {
        partial[tatvpr_partial_of(i)] += x[i] * x[i];
    }
    const float norm = tatvpr_sqrt(tatvpr_sum_tree(partial));
    const float divisor = norm > eps ? norm : eps;
    for (int32_t i = 0; i < dim; i++) {
        y[i] = x[i] / divisor;
    }
    return TATVPR_OK;
}

void tatvpr_trace_layer(const tatvpr_context *c, const char *layer, int begin) {
    if (c->options != NULL && c->options->trace != NULL) {
        c->options->trace(c->options->user, layer, begin);
    }
}

tatvpr_status tatvpr_export_tokens(const tatvpr_context *c, const float *x, int32_t t,
                                   int32_t dim) {
    if (c->options == NULL) {
        return TATVPR_OK;
    }
    if (c->options->token_count_out != NULL) {
        *c->options->token_count_out = t;
    }
    if (c->options->tokens_out != NULL) {
        const size_t floats = (size_t)t * (size_t)dim;
        if (c->options->tokens_out_floats < floats) {
            return TATVPR_ERR_ARGUMENT;
        }
        tatvpr_copy(c->options->tokens_out, x, floats * sizeof(float));
    }
    return TATVPR_OK;
}
