/* PatchEmbed, QuantAttention and KeepTokens: checks, scratch, workers. */
#include "core.h"

/* ---- PatchEmbed: rows of patches are the unit of work */

typedef struct patch_work {
    const tatvpr_context *c;
    tatvpr_patch_job job;
    uint8_t *scratch;
    size_t scratch_each;
} patch_work;

static void patch_row(void *argument, int32_t item, int32_t worker) {
    const patch_work *work = (const patch_work *)argument;
    tatvpr_patch_job job = work->job;
    job.first_row = item;
    job.rows = 1;
    job.scratch = work->scratch + work->scratch_each * (size_t)worker;
    work->c->model->kernels->patch_embed(&job);
}

tatvpr_status tatvpr_op_patch_embed(tatvpr_context *c, const tatvpr_patch_embed *op, float *y) {
    if (op->patch < 1 || op->image_size < op->patch || op->image_size % op->patch != 0 ||
        op->dim < 1) {
        return TATVPR_ERR_ARGUMENT;
    }
    patch_work work;
    work.c = c;
    work.scratch = c->scratch;
    work.scratch_each = tatvpr_round_up(TATVPR_PATCH_SCRATCH(op), 64);
    if (work.scratch_each * (size_t)tatvpr_workers(c) > c->scratch_bytes) {
        return TATVPR_ERR_ARENA;
    }
    tatvpr_trace_layer(c, op->name, 1);
    work.job.op = op;
    work.job.pixels = c->pixels;
    work.job.weight = (const int8_t *)tatvpr_tensor(c->model, op->weight);
    work.job.scale = tatvpr_floats(c->model, op->scale);
    work.job.bias = tatvpr_floats(c->model, op->bias);
    work.job.y = y;
    tatvpr_parallel(c, patch_row, &work, op->image_size / op->patch);
    tatvpr_trace_layer(c, op->name, 0);
    return TATVPR_OK;
}

/* ---- QuantAttention: heads are the unit of work; `a` is added up in the order of heads */

typedef struct head_work {
    const tatvpr_context *c;
    tatvpr_head_job job;
    float *looks; /* [heads, T], or null */
    uint8_t *scratch;
    size_t scratch_each;
} head_work;

static void one_head(void *argument, int32_t item, int32_t worker) {
    const head_work *work = (const head_work *)argument;
    tatvpr_head_job job = work->job;
    job.head = item;
    job.scratch = work->scratch + work->scratch_each * (size_t)worker;
    job.a = work->looks == NULL ? NULL : work->looks + (ptrdiff_t)item * job.tokens;
    work->c->model->kernels->attention(&job);
}

static size_t attention_bytes(const tatvpr_attention *op, int32_t t, int32_t workers) {
    return tatvpr_round_up((size_t)op->heads * (size_t)t * sizeof(float), 64) +
           tatvpr_round_up(TATVPR_HEAD_SCRATCH(t, op->dim / op->heads), 64) * (size_t)workers;
}

tatvpr_status tatvpr_op_attention(tatvpr_context *c, const tatvpr_attention *op, const float *qkv,
                                  int32_t t, float *y, float *a) {
    if (op->heads < 1 || op->dim < op->heads || op->dim % op->heads != 0 || t < 1) {
        return TATVPR_ERR_ARGUMENT;
    }
    if (attention_bytes(op, t, tatvpr_workers(c)) > c->scratch_bytes) {
        return TATVPR_ERR_ARENA;
    }
    tatvpr_trace_layer(c, op->name, 1);
    head_work work;
    const size_t looks_bytes = tatvpr_round_up((size_t)op->heads * (size_t)t * sizeof(float), 64);
    work.c = c;
    work.looks = a == NULL ? NULL : (float *)(void *)c->scratch;
    work.scratch = c->scratch + looks_bytes;
    work.job.qkv = qkv;
    work.job.tokens = t;
    work.job.dim = op->dim;
    work.job.head_dim = op->dim / op->heads;
    work.scratch_each = tatvpr_round_up(TATVPR_HEAD_SCRATCH(t, work.job.head_dim), 64);
    work.job.y = y;
    tatvpr_parallel(c, one_head, &work, op->heads);
    if (a != NULL) {
        for (int32_t i = 0; i < t; i++) {
            float sum = 0.0f;
            for (int32_t h = 0; h < op->heads; h++) {
                sum = sum + work.looks[(ptrdiff_t)h * t + i];
            }
            a[i] = sum;
        }
    }
    tatvpr_trace_layer(c, op->name, 0);
    return TATVPR_OK;
}

/* ---- KeepTokens */

/* A number that orders like the float does; both zeros are equal. */
static uint32_t sortable(float x) {
    union { float f; uint32_t u; } v;
    v.f = x + 0.0f;
    return (v.u & 0x80000000u) != 0 ? ~v.u : v.u | 0x80000000u;
}

tatvpr_status tatvpr_op_keep_tokens(tatvpr_context *c, const float *x, const float *a, int32_t t,
                                    int32_t dim, float *y, int32_t *t_out) {
    if (t < 2 || dim < 1) {
        return TATVPR_ERR_ARGUMENT;
    }
    const int32_t keep = tatvpr_kept(c->tokens, t - 1);
    uint32_t least = 0; /* the largest threshold that at least `keep` patch tokens reach */
    for (uint32_t bit = 0x80000000u; bit > 0; bit >>= 1) {
        int32_t reached = 0;
        for (int32_t i = 1; i < t; i++) {
            reached += sortable(a[i]) >= (least | bit);
        }
        least |= reached >= keep ? bit : 0u;
    }
    int32_t ties = keep;
    for (int32_t i = 1; i < t; i++) {
        ties -= sortable(a[i]) > least;
    }
    int32_t rows = 0;
    for (int32_t i = 0; i < t; i++) {
        const uint32_t rank = sortable(a[i]);
        if (i == 0 || rank > least || (rank == least && ties-- > 0)) {
            tatvpr_copy(y + (ptrdiff_t)rows * dim, x + (ptrdiff_t)i * dim,
                        (size_t)dim * sizeof(float));
            rows++;
        }
    }
    *t_out = rows;
    return TATVPR_OK;
}

/* ---- scratch of all operators */

size_t tatvpr_scratch_bytes(const tatvpr_program *program, int32_t threads) {
    const int32_t workers = tatvpr_max_i32(threads, 1);
    size_t most = tatvpr_linear_scratch(program, workers);
    if (program->patch_embed != NULL) {
        const size_t bytes =
            tatvpr_round_up(TATVPR_PATCH_SCRATCH(program->patch_embed), 64) * (size_t)workers;
        most = bytes > most ? bytes : most;
    }
    if (program->attention != NULL) {
        const size_t bytes = attention_bytes(program->attention, program->max_tokens, workers);
        most = bytes > most ? bytes : most;
    }
    return tatvpr_round_up(most, 64);
}
