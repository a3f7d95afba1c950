/* The operators of the C core's test driver, each with the context that it runs in. */
#include <stdlib.h>

#include "../../runtime/core/common/floats.h"
#include "../../runtime/core/common/gated_tile.h"
#include "driver.h"

/* ---- a context around operators: the weights are the request's first buffer */

typedef struct setting {
    tatvpr_program program;
    tatvpr_model model;
    tatvpr_context context;
    uint8_t *prepared;
    uint8_t *pool;
} setting;

static void begin(setting *s, request *r, int32_t threads) {
    s->program.abi = TATVPR_ABI;
    s->program.blob_bytes = (size_t)r->in[0].bytes;
    s->model.program = &s->program;
    s->model.kernels = kernels_named(r->kernels);
    s->model.costs = s->model.kernels->costs == NULL ? NULL : s->model.kernels->costs();
    must(tatvpr_layouts_fit(&s->program, s->model.kernels), "layouts do not fit");
    const size_t prepared = tatvpr_prepared_size(&s->program, s->model.kernels);
    s->prepared = aligned(prepared);
    tatvpr_place_weights(&s->model, r->in[0].data, s->prepared);
    if (prepared > 0) {
        memset(r->in[0].data, 0xEE, (size_t)r->in[0].bytes); /* not needed any more */
    }
    s->context.model = &s->model;
    s->context.k = r->f[0];
    s->context.tokens = r->f[1];
    s->pool = aligned(tatvpr_pool_bytes(threads));
    must(tatvpr_pool_start(&s->context, s->pool, threads) == TATVPR_OK, "no threads");
    s->context.scratch_bytes = tatvpr_scratch_bytes(&s->program, threads);
    s->context.scratch = aligned(s->context.scratch_bytes);
    memset(s->context.scratch, 0x5A, s->context.scratch_bytes);
}

static void end(setting *s) {
    tatvpr_pool_stop(&s->context);
    free(s->context.scratch);
    free(s->pool);
    free(s->prepared);
}

/* integers from `at`: k_in, n_out, weight, scale, bias, per_row, layout | gelu, norm?, gamma, beta |
 * group, scope; floats from `f`: eps, fixed_k */
static tatvpr_gated_linear linear_from(const int32_t *i, const float *f, tatvpr_norm *norm) {
    tatvpr_gated_linear op;
    memset(&op, 0, sizeof(op));
    op.name = "layer";
    op.linear.k_in = i[0];
    op.linear.n_out = i[1];
    op.linear.weight = (uint32_t)i[2];
    op.linear.scale = (uint32_t)i[3];
    op.linear.bias = (uint32_t)i[4];
    op.linear.scale_per_row = (uint8_t)(i[5] & 1);
    op.linear.layout = (uint8_t)(i[5] >> 1);
    op.gelu = i[6] & 1;
    if (i[6] & 2) {
        norm->gamma = (uint32_t)i[7];
        norm->beta = (uint32_t)i[8];
        norm->eps = f[0];
        op.norm = norm;
    }
    op.gate.group = i[9];
    op.gate.scope = i[10];
    op.gate.fixed_k = f[1];
    return op;
}

int32_t run_linear(request *r) {
    tatvpr_norm norm;
    setting s;
    memset(&s, 0, sizeof(s));
    tatvpr_gated_linear op = linear_from(r->i + 2, r->f + 2, &norm);
    const tatvpr_gated_linear *ops[1] = {&op};
    const tatvpr_ternary *ternaries[1] = {&op.linear};
    s.program.linears = ops;
    s.program.linear_count = 1;
    s.program.ternaries = ternaries;
    s.program.ternary_count = 1;
    const int32_t t = r->i[0];
    s.program.max_tokens = t;
    begin(&s, r, r->i[1]);
    float *y = (float *)(void *)output(r, (size_t)t * (size_t)op.linear.n_out * 4);
    const float *residual = NULL;
    if (r->count > 2) { /* in place, as generated code does */
        memcpy(y, r->in[2].data, (size_t)r->in[2].bytes);
        residual = y;
    }
    const int32_t status = (int32_t)tatvpr_op_gated_linear(
        &s.context, &op, (const float *)(void *)r->in[1].data, t, residual, y);
    end(&s);
    return status;
}

int32_t run_mlp(request *r) {
    tatvpr_norm norms[2];
    setting s;
    memset(&s, 0, sizeof(s));
    tatvpr_mlp op;
    op.name = "mlp";
    op.fc1 = linear_from(r->i + 2, r->f + 2, &norms[0]);
    op.fc2 = linear_from(r->i + 13, r->f + 4, &norms[1]);
    const tatvpr_mlp *ops[1] = {&op};
    const tatvpr_ternary *ternaries[2] = {&op.fc2.linear, &op.fc1.linear};
    s.program.mlps = ops;
    s.program.mlp_count = 1;
    s.program.ternaries = ternaries;
    s.program.ternary_count = 2;
    const int32_t t = r->i[0];
    s.program.max_tokens = t;
    begin(&s, r, r->i[1]);
    float *y = (float *)(void *)output(r, (size_t)r->in[1].bytes);
    memcpy(y, r->in[1].data, (size_t)r->in[1].bytes);
    const int32_t status = (int32_t)tatvpr_op_mlp(&s.context, &op, y, t, y);
    end(&s);
    return status;
}

int32_t run_patch_embed(request *r) {
    setting s;
    memset(&s, 0, sizeof(s));
    const tatvpr_patch_embed op = {"patch",    r->i[0], r->i[1], r->i[2], (uint32_t)r->i[3],
                                   (uint32_t)r->i[4], (uint32_t)r->i[5]};
    s.program.patch_embed = &op;
    begin(&s, r, r->i[6]);
    s.context.pixels = r->in[1].data;
    const size_t side = (size_t)(op.image_size / op.patch);
    float *y = (float *)(void *)output(r, side * side * (size_t)op.dim * 4);
    const int32_t status = (int32_t)tatvpr_op_patch_embed(&s.context, &op, y);
    end(&s);
    return status;
}

int32_t run_attention(request *r) {
    setting s;
    memset(&s, 0, sizeof(s));
    const tatvpr_attention op = {"attention", r->i[1], r->i[2]};
    const int32_t t = r->i[0];
    s.program.attention = &op;
    s.program.max_tokens = t;
    begin(&s, r, r->i[3]);
    float *y = (float *)(void *)output(r, (size_t)t * (size_t)op.dim * 4);
    float *a = r->i[4] ? (float *)(void *)output(r, (size_t)t * 4) : NULL;
    const int32_t status = (int32_t)tatvpr_op_attention(
        &s.context, &op, (const float *)(void *)r->in[1].data, t, y, a);
    end(&s);
    return status;
}

/* x -> y with the weights gamma | beta (LayerNorm), or none. */
int32_t run_float(request *r) {
    setting s;
    memset(&s, 0, sizeof(s));
    begin(&s, r, 1);
    const float *x = (const float *)(void *)r->in[1].data;
    const int32_t t = r->i[0];
    const int32_t dim = r->i[1];
    int32_t status = -1;
    if (r->op == OP_LAYER_NORM) {
        const tatvpr_norm norm = {0, (uint32_t)r->i[2], r->f[2]};
        float *y = (float *)(void *)output(r, (size_t)r->in[1].bytes);
        status = (int32_t)tatvpr_op_layer_norm(&s.context, &norm, x, t, dim, y);
    } else if (r->op == OP_GELU) {
        float *y = (float *)(void *)output(r, (size_t)r->in[1].bytes);
        status = (int32_t)tatvpr_op_gelu(&s.context, x, dim, y);
    } else if (r->op == OP_GEM) {
        float *y = (float *)(void *)output(r, (size_t)dim * 4);
        const float *weight = r->i[2] != 0 ? x + (size_t)t * (size_t)dim : NULL; /* behind x */
        status = (int32_t)tatvpr_op_gem(&s.context, x, weight, t, dim, r->f[2], y);
    } else if (r->op == OP_L2) {
        float *y = (float *)(void *)output(r, (size_t)dim * 4);
        status = (int32_t)tatvpr_op_l2_normalize(&s.context, x, dim, r->f[2], y);
    } else {
        float *y = (float *)(void *)output(r, (size_t)t * (size_t)dim * 4);
        int32_t *rows = (int32_t *)(void *)output(r, 4);
        status = (int32_t)tatvpr_op_keep_tokens(
            &s.context, x, (const float *)(void *)r->in[2].data, t, dim, y, rows);
    }
    end(&s);
    return status;
}

int32_t run_floats(request *r) {
    const float *x = (const float *)(void *)r->in[0].data;
    const int64_t n = r->in[0].bytes / 4;
    float *y = (float *)(void *)output(r, (size_t)r->in[0].bytes);
    for (int64_t j = 0; j < n; j++) {
        y[j] = r->i[0] == 0 ? tatvpr_exp(x[j]) : (r->i[0] == 1 ? tatvpr_log(x[j]) : tatvpr_erf(x[j]));
    }
    return 0;
}

/* One tile through quantise and select: q, s, sum, and the lists where asked for. */
int32_t run_gate(request *r) {
    const tatvpr_kernels *kernels = kernels_named(r->kernels);
    const int32_t t = r->i[0];
    const int32_t k_in = r->i[1];
    const int32_t list = r->i[4];
    tatvpr_tile tile;
    tile.tokens = t;
    tile.k_in = k_in;
    tile.q_stride = (int32_t)tatvpr_round_up((size_t)k_in, TATVPR_ROW_ALIGN);
    tile.list_stride = TATVPR_LIST_STRIDE(k_in);
    tile.hint = 0.0f;
    tile.q = (int8_t *)output(r, (size_t)t * (size_t)tile.q_stride);
    tile.s = (float *)(void *)output(r, (size_t)t * 4);
    tile.sum = (int32_t *)(void *)output(r, (size_t)t * 4);
    tile.count = (int32_t *)(void *)output(r, (size_t)t * 4);
    tile.index = (uint16_t *)(void *)output(r, (size_t)t * (size_t)tile.list_stride * 2);
    tile.value = (int8_t *)output(r, (size_t)t * (size_t)tile.list_stride);
    for (int32_t j = 0; j < t; j++) {
        const float *x = (const float *)(void *)r->in[0].data + (ptrdiff_t)j * k_in;
        tile.s[j] = kernels->quantise(x, k_in, tile.q + (ptrdiff_t)j * tile.q_stride);
    }
    tatvpr_select_tile(kernels, &tile, r->i[2], r->i[3], list);
    return 0;
}

int32_t run_squash(request *r) {
    tatvpr_frame frame;
    memset(&frame, 0, sizeof(frame));
    frame.size = (uint32_t)(r->i[8] ? r->i[8] : (int32_t)sizeof(frame));
    frame.format = (uint32_t)r->i[0];
    frame.width = r->i[1];
    frame.height = r->i[2];
    frame.reserved = 0xA5A5A5A5u; /* may be an older caller's padding */
    frame.yuv = (uint32_t)r->i[12];
    for (int p = 0; p < 3; p++) { /* a negative stride begins at the last row of the buffer */
        frame.strides[p] = r->i[p < 2 ? 4 + p : 10];
        if (p < r->count) {
            const int64_t rows = r->i[p < 2 ? 6 + p : 11];
            frame.planes[p] = r->in[p].data;
            if (frame.strides[p] < 0) {
                frame.planes[p] += (rows - 1) * -(int64_t)frame.strides[p];
            }
        }
    }
    const int32_t status = (int32_t)tatvpr_frame_check(&frame);
    if (status != 0) {
        return status;
    }
    const size_t side = (size_t)r->i[3];
    uint8_t *pixels = output(r, side * side * 3);
    const size_t room_bytes = r->i[9] ? (size_t)r->i[9] : (size_t)1 << 22;
    uint8_t *room = aligned(room_bytes);
    const int32_t result = (int32_t)tatvpr_frame_squash(kernels_named(r->kernels), &frame, r->i[3],
                                                        pixels, room, room_bytes);
    free(room);
    return result;
}

/* integers: k_in, n_out, group, layout -> the k below which the layer is multiplied sparsely */
int32_t run_sparse_below(request *r) {
    tatvpr_model model;
    tatvpr_ternary op;
    memset(&model, 0, sizeof(model));
    memset(&op, 0, sizeof(op));
    model.kernels = kernels_named(r->kernels);
    model.costs = model.kernels->costs == NULL ? NULL : model.kernels->costs();
    op.k_in = r->i[0];
    op.n_out = r->i[1];
    op.layout = (uint8_t)r->i[3];
    *(float *)(void *)output(r, 4) = tatvpr_sparse_below(&model, &op, r->i[2]);
    return 0;
}
