/* GatedLinear and MLP: [GELU], [LayerNorm], TopKGate and TernaryMatMul, in tiles of tokens.
 *
 * Gate scope 0 (token) works tile by tile, so that a block's hidden layer never exists as a whole.
 * Scope 1 (image) first quantises every token, ranks channels over all of them, then multiplies.
 */
#include "core.h"

/* ---- scratch */

typedef struct bump {
    uint8_t *at;
    size_t left;
    int counting; /* only adds up how much would be taken */
    size_t taken;
} bump;

static void *take(bump *b, size_t bytes) {
    bytes = tatvpr_round_up(bytes, 64);
    b->taken += bytes;
    if (b->counting) {
        return NULL;
    }
    if (bytes > b->left) {
        b->left = 0;
        return NULL;
    }
    void *p = b->at;
    b->at += bytes;
    b->left -= bytes;
    return p;
}

/* What one worker needs for one tile. */
typedef struct workspace {
    tatvpr_tile tile;
    float *row;     /* [K]: GELU and LayerNorm of one token */
    float *hidden;  /* [tile, N of fc1]; null outside an MLP */
    uint8_t *panel;
} workspace;

/* What all workers share for gates over the image; unused (null) with scope 0. */
typedef struct image_gate {
    int8_t *q;       /* [T, q_stride] */
    float *s;        /* [T] */
    int32_t *sum;    /* [T] */
    int32_t *scores; /* [K / group] */
} image_gate;

static int32_t q_stride(int32_t k_in) {
    return (int32_t)tatvpr_round_up((size_t)k_in, TATVPR_ROW_ALIGN);
}

static void take_workspace(bump *b, workspace *w, int32_t k_most, int32_t hidden) {
    const size_t rows = TATVPR_TILE_TOKENS;
    const size_t list = (size_t)TATVPR_LIST_STRIDE(k_most);
    w->tile.q = (int8_t *)take(b, rows * (size_t)q_stride(k_most));
    w->tile.s = (float *)take(b, rows * sizeof(float));
    w->tile.sum = (int32_t *)take(b, rows * sizeof(int32_t));
    w->tile.count = (int32_t *)take(b, rows * sizeof(int32_t));
    w->tile.index = (uint16_t *)take(b, rows * list * sizeof(uint16_t));
    w->tile.value = (int8_t *)take(b, rows * list);
    w->row = (float *)take(b, (size_t)k_most * sizeof(float));
    w->hidden = hidden > 0 ? (float *)take(b, rows * (size_t)hidden * sizeof(float)) : NULL;
    w->panel = (uint8_t *)take(b, TATVPR_PANEL_BYTES(k_most));
}

static void take_image_gate(bump *b, image_gate *g, const tatvpr_gated_linear *op, int32_t t) {
    if (op->gate.scope == 0) {
        g->q = NULL;
        return;
    }
    g->q = (int8_t *)take(b, (size_t)t * (size_t)q_stride(op->linear.k_in));
    g->s = (float *)take(b, (size_t)t * sizeof(float));
    g->sum = (int32_t *)take(b, (size_t)t * sizeof(int32_t));
    g->scores = (int32_t *)take(b, (size_t)op->linear.k_in * sizeof(int32_t));
}

static size_t linear_bytes(const tatvpr_gated_linear *op, int32_t t, int32_t workers) {
    bump b = {NULL, 0, 1, 0};
    image_gate g;
    workspace w;
    take_image_gate(&b, &g, op, t);
    for (int32_t i = 0; i < workers; i++) {
        take_workspace(&b, &w, op->linear.k_in, 0);
    }
    return b.taken;
}

static size_t mlp_bytes(const tatvpr_mlp *op, int32_t t, int32_t workers) {
    bump b = {NULL, 0, 1, 0};
    image_gate g;
    workspace w;
    take_image_gate(&b, &g, &op->fc1, t);
    take_image_gate(&b, &g, &op->fc2, t);
    for (int32_t i = 0; i < workers; i++) {
        take_workspace(&b, &w, tatvpr_max_i32(op->fc1.linear.k_in, op->fc2.linear.k_in),
                       op->fc1.linear.n_out);
    }
    return b.taken;
}

size_t tatvpr_linear_scratch(const tatvpr_program *program, int32_t workers) {
    size_t most = 0;
    for (int32_t i = 0; i < program->linear_count; i++) {
        const size_t bytes = linear_bytes(program->linears[i], program->max_tokens, workers);
        most = bytes > most ? bytes : most;
    }
    for (int32_t i = 0; i < program->mlp_count; i++) {
        const size_t bytes = mlp_bytes(program->mlps[i], program->max_tokens, workers);
        most = bytes > most ? bytes : most;
    }
    return most;
}

int32_t tatvpr_tile_tokens(int32_t tokens, int32_t workers) {
    int32_t tiles = (tokens + TATVPR_TILE_TOKENS - 1) / TATVPR_TILE_TOKENS;
    tiles = (tiles + workers - 1) / workers * workers;
    const int32_t even = (tokens + tiles - 1) / tiles;
    const int32_t rounded =
        (even + TATVPR_TILE_ROUND - 1) / TATVPR_TILE_ROUND * TATVPR_TILE_ROUND;
    return tatvpr_min_i32(rounded, TATVPR_TILE_TOKENS);
}

/* ---- one token, one tile */

typedef struct plan {
    const tatvpr_context *c;
    const tatvpr_gated_linear *op;
    int32_t keep;   /* groups kept */
    int32_t sparse; /* 1: lists are made and multiplied */
} plan;

static plan make_plan(const tatvpr_context *c, const tatvpr_gated_linear *op) {
    const tatvpr_kernels *kernels = c->model->kernels;
    const float k = op->gate.fixed_k > 0.0f ? op->gate.fixed_k : c->k;
    plan p;
    p.c = c;
    p.op = op;
    p.keep = tatvpr_kept(k, op->linear.k_in / op->gate.group);
    p.sparse = kernels->sparse != NULL && k < kernels->sparse_below(&op->linear, op->gate.group);
    return p;
}

/* [GELU], [LayerNorm] and steps 1 and 2 of the gate, on one token. */
static float quantise_token(const plan *p, const float *x, float *row, int8_t *q) {
    const tatvpr_kernels *kernels = p->c->model->kernels;
    const tatvpr_norm *norm = p->op->norm;
    const int32_t k_in = p->op->linear.k_in;
    if (p->op->gelu) {
        kernels->gelu(x, k_in, row);
        x = row;
    }
    if (norm != NULL) {
        kernels->layer_norm(x, tatvpr_floats(p->c->model, norm->gamma),
                            tatvpr_floats(p->c->model, norm->beta), norm->eps, k_in, row);
        x = row;
    }
    return kernels->quantise(x, k_in, q);
}

static void size_tile(tatvpr_tile *tile, const plan *p, int32_t tokens) {
    tile->tokens = tokens;
    tile->k_in = p->op->linear.k_in;
    tile->q_stride = q_stride(tile->k_in);
    tile->list_stride = TATVPR_LIST_STRIDE(tile->k_in);
    tile->hint = 0.0f;
}

static void gate_tile(const plan *p, const float *x, int32_t tokens, workspace *w) {
    const int32_t k_in = p->op->linear.k_in;
    size_tile(&w->tile, p, tokens);
    for (int32_t t = 0; t < tokens; t++) {
        int8_t *q = w->tile.q + (ptrdiff_t)t * w->tile.q_stride;
        w->tile.s[t] = quantise_token(p, x + (ptrdiff_t)t * k_in, w->row, q);
        p->c->model->kernels->select(&w->tile, t, p->keep, p->op->gate.group, p->sparse);
    }
}

static void multiply(const plan *p, const workspace *w, const tatvpr_tile *tile,
                     const float *residual, float *y) {
    const tatvpr_ternary *linear = &p->op->linear;
    const tatvpr_model *model = p->c->model;
    tatvpr_matmul job;
    job.op = linear;
    job.weight = tatvpr_tensor(model, linear->weight);
    job.scale = tatvpr_floats(model, linear->scale);
    job.bias = tatvpr_floats(model, linear->bias);
    job.residual = residual;
    job.y = y;
    job.y_stride = linear->n_out;
    job.tile = tile;
    job.panel = w->panel;
    if (p->sparse) {
        model->kernels->sparse(&job);
    } else {
        model->kernels->dense(&job);
    }
}

/* ---- gates over the image */

static void score_image(const plan *p, image_gate *g, int32_t t, int32_t stride) {
    const int32_t k_in = p->op->linear.k_in;
    const int32_t group = p->op->gate.group;
    tatvpr_zero(g->scores, (size_t)k_in * sizeof(int32_t));
    for (int32_t i = 0; i < t; i++) {
        const int8_t *q = g->q + (ptrdiff_t)i * stride;
        for (int32_t j = 0; j < k_in; j++) {
            g->scores[j / group] += q[j] < 0 ? -q[j] : q[j];
        }
    }
}

/* Replaces scores by 1 (kept) or 0: the `keep` largest, ties to the lower index. */
static void rank_image(int32_t *scores, int32_t groups, int32_t keep) {
    int32_t least = 0;
    for (int32_t bit = 1 << 30; bit > 0; bit /= 2) {
        int32_t reached = 0;
        for (int32_t i = 0; i < groups; i++) {
            reached += scores[i] >= least + bit;
        }
        least += reached >= keep ? bit : 0;
    }
    int32_t ties = keep;
    for (int32_t i = 0; i < groups; i++) {
        ties -= scores[i] > least;
    }
    for (int32_t i = 0; i < groups; i++) {
        scores[i] = scores[i] > least || (scores[i] == least && ties-- > 0) ? 1 : 0;
    }
}

/* Drops the channels that the whole image drops, once all tokens are quantised. */
static void gate_image(const plan *p, image_gate *g, int32_t t) {
    const int32_t k_in = p->op->linear.k_in;
    const int32_t stride = q_stride(k_in);
    score_image(p, g, t, stride);
    rank_image(g->scores, k_in / p->op->gate.group, p->keep);
    for (int32_t i = 0; i < t; i++) {
        int8_t *q = g->q + (ptrdiff_t)i * stride;
        int32_t sum = 0;
        for (int32_t j = 0; j < k_in; j++) {
            q[j] = (int8_t)(q[j] * g->scores[j / p->op->gate.group]);
            sum += q[j];
        }
        g->sum[i] = sum;
    }
}

/* A tile that looks into the image's gated tokens, with lists of its own. */
static void view_tile(const plan *p, const image_gate *g, int32_t first, int32_t tokens,
                      workspace *w, tatvpr_tile *tile) {
    *tile = w->tile;
    size_tile(tile, p, tokens);
    tile->q = g->q + (ptrdiff_t)first * tile->q_stride;
    tile->s = g->s + first;
    tile->sum = g->sum + first;
    for (int32_t t = 0; p->sparse && t < tokens; t++) {
        tatvpr_list_row(tile, t);
    }
}

/* ---- the operators: what a worker does with tile number `item` */

typedef struct linear_job {
    plan first;      /* the linear, or an MLP's fc1 */
    plan second;     /* an MLP's fc2 */
    image_gate first_gate;
    image_gate second_gate;
    workspace workers[TATVPR_MAX_THREADS];
    const float *x;
    const float *residual;
    float *y;
    int32_t t;
    int32_t tile;
} linear_job;

static int32_t tile_at(const linear_job *job, int32_t item, int32_t *first) {
    *first = item * job->tile;
    return tatvpr_min_i32(job->tile, job->t - *first);
}

static void quantise_work(void *argument, int32_t item, int32_t worker) {
    linear_job *job = (linear_job *)argument;
    const plan *p = &job->first;
    const int32_t k_in = p->op->linear.k_in;
    int32_t first = 0;
    const int32_t tokens = tile_at(job, item, &first);
    for (int32_t t = first; t < first + tokens; t++) {
        job->first_gate.s[t] =
            quantise_token(p, job->x + (ptrdiff_t)t * k_in, job->workers[worker].row,
                           job->first_gate.q + (ptrdiff_t)t * q_stride(k_in));
    }
}

/* Gates (or looks up) the tile of the first plan and multiplies it to `y`. */
static void first_matmul(linear_job *job, workspace *w, int32_t first, int32_t tokens,
                         const float *residual, float *y) {
    const plan *p = &job->first;
    tatvpr_tile view;
    if (job->first_gate.q != NULL) {
        view_tile(p, &job->first_gate, first, tokens, w, &view);
        multiply(p, w, &view, residual, y);
        return;
    }
    gate_tile(p, job->x + (ptrdiff_t)first * p->op->linear.k_in, tokens, w);
    multiply(p, w, &w->tile, residual, y);
}

static void linear_work(void *argument, int32_t item, int32_t worker) {
    linear_job *job = (linear_job *)argument;
    int32_t first = 0;
    const int32_t tokens = tile_at(job, item, &first);
    const ptrdiff_t at = (ptrdiff_t)first * job->first.op->linear.n_out;
    first_matmul(job, &job->workers[worker], first, tokens,
                 job->residual == NULL ? NULL : job->residual + at, job->y + at);
}

static void mlp_work(void *argument, int32_t item, int32_t worker) {
    linear_job *job = (linear_job *)argument;
    workspace *w = &job->workers[worker];
    int32_t first = 0;
    const int32_t tokens = tile_at(job, item, &first);
    first_matmul(job, w, first, tokens, NULL, w->hidden);
    const int32_t k_in = job->second.op->linear.k_in;
    if (job->second_gate.q != NULL) { /* multiplied later, when all tokens are known */
        for (int32_t t = 0; t < tokens; t++) {
            int8_t *q = job->second_gate.q + (ptrdiff_t)(first + t) * q_stride(k_in);
            job->second_gate.s[first + t] =
                quantise_token(&job->second, w->hidden + (ptrdiff_t)t * k_in, w->row, q);
        }
        return;
    }
    const ptrdiff_t at = (ptrdiff_t)first * job->second.op->linear.n_out;
    gate_tile(&job->second, w->hidden, tokens, w);
    multiply(&job->second, w, &w->tile, job->residual + at, job->y + at);
}

static void mlp_second_work(void *argument, int32_t item, int32_t worker) {
    linear_job *job = (linear_job *)argument;
    int32_t first = 0;
    const int32_t tokens = tile_at(job, item, &first);
    const ptrdiff_t at = (ptrdiff_t)first * job->second.op->linear.n_out;
    tatvpr_tile view;
    view_tile(&job->second, &job->second_gate, first, tokens, &job->workers[worker], &view);
    multiply(&job->second, &job->workers[worker], &view, job->residual + at, job->y + at);
}

static tatvpr_status check_linear(const tatvpr_gated_linear *op, int32_t t) {
    const int32_t k_in = op->linear.k_in;
    if (t < 1 || k_in < 1 || k_in > 65535 || op->linear.n_out < 1 || op->gate.group < 1 ||
        k_in % op->gate.group != 0) {
        return TATVPR_ERR_ARGUMENT;
    }
    return TATVPR_OK;
}

static int32_t prepare_job(linear_job *job, const tatvpr_context *c, int32_t t) {
    const int32_t workers = tatvpr_workers(c);
    job->t = t;
    job->tile = tatvpr_tile_tokens(t, workers);
    return (t + job->tile - 1) / job->tile;
}

tatvpr_status tatvpr_op_gated_linear(tatvpr_context *c, const tatvpr_gated_linear *op,
                                     const float *x, int32_t t, const float *residual, float *y) {
    const tatvpr_status status = check_linear(op, t);
    if (status != TATVPR_OK) {
        return status;
    }
    const int32_t workers = tatvpr_workers(c);
    if (linear_bytes(op, t, workers) > c->scratch_bytes) {
        return TATVPR_ERR_ARENA;
    }
    tatvpr_trace_layer(c, op->name, 1);
    linear_job job;
    const int32_t tiles = prepare_job(&job, c, t);
    bump b = {c->scratch, c->scratch_bytes, 0, 0};
    job.first = make_plan(c, op);
    take_image_gate(&b, &job.first_gate, op, t);
    for (int32_t i = 0; i < workers; i++) {
        take_workspace(&b, &job.workers[i], op->linear.k_in, 0);
    }
    job.x = x;
    job.residual = residual;
    job.y = y;
    if (job.first_gate.q != NULL) {
        tatvpr_parallel(c, quantise_work, &job, tiles);
        gate_image(&job.first, &job.first_gate, t);
    }
    tatvpr_parallel(c, linear_work, &job, tiles);
    tatvpr_trace_layer(c, op->name, 0);
    return TATVPR_OK;
}

tatvpr_status tatvpr_op_mlp(tatvpr_context *c, const tatvpr_mlp *op, const float *x, int32_t t,
                            float *y) {
    if (check_linear(&op->fc1, t) != TATVPR_OK || check_linear(&op->fc2, t) != TATVPR_OK ||
        op->fc1.linear.n_out != op->fc2.linear.k_in ||
        op->fc2.linear.n_out != op->fc1.linear.k_in) {
        return TATVPR_ERR_ARGUMENT;
    }
    const int32_t workers = tatvpr_workers(c);
    if (mlp_bytes(op, t, workers) > c->scratch_bytes) {
        return TATVPR_ERR_ARENA;
    }
    tatvpr_trace_layer(c, op->name, 1);
    linear_job job;
    const int32_t tiles = prepare_job(&job, c, t);
    bump b = {c->scratch, c->scratch_bytes, 0, 0};
    job.first = make_plan(c, &op->fc1);
    job.second = make_plan(c, &op->fc2);
    take_image_gate(&b, &job.first_gate, &op->fc1, t);
    take_image_gate(&b, &job.second_gate, &op->fc2, t);
    for (int32_t i = 0; i < workers; i++) {
        take_workspace(&b, &job.workers[i],
                       tatvpr_max_i32(op->fc1.linear.k_in, op->fc2.linear.k_in),
                       op->fc1.linear.n_out);
    }
    job.x = x;
    job.residual = x;
    job.y = y;
    if (job.first_gate.q != NULL) {
        tatvpr_parallel(c, quantise_work, &job, tiles);
        gate_image(&job.first, &job.first_gate, t);
    }
    tatvpr_parallel(c, mlp_work, &job, tiles);
    if (job.second_gate.q != NULL) {
        gate_image(&job.second, &job.second_gate, t);
        tatvpr_parallel(c, mlp_second_work, &job, tiles);
    }
    tatvpr_trace_layer(c, op->name, 0);
    return TATVPR_OK;
}
