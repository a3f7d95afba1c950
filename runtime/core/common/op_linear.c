/* GatedLinear and MLP: [GELU], [LayerNorm], TopKGate and TernaryMatMul, in tiles of tokens.
 *
 * Gate scope 0 (token) works tile by tile, so that a block's hidden layer never exists as a whole.
 * Scope 1 (image) first quantises every token, ranks channels over all of them, then multiplies.
 */
#include "gated_tile.h"

typedef struct linear_job {
    tatvpr_plan first;  /* the linear, or an MLP's fc1 */
    tatvpr_plan second; /* an MLP's fc2 */
    tatvpr_image_gate first_gate;
    tatvpr_image_gate second_gate;
    tatvpr_workspace workers[TATVPR_MAX_THREADS];
    const float *x;
    const float *residual;
    float *y;
    int32_t t;
    int32_t tile;  /* tokens of one */
    int32_t tiles;
} linear_job;

/* ---- scratch */

/* Lays out what a linear, or the two of an MLP (`second`, else null), works in; or counts it. */
static void take_scratch(tatvpr_bump *b, linear_job *job, const tatvpr_program *program,
                         const tatvpr_gated_linear *first, const tatvpr_gated_linear *second,
                         int32_t t, int32_t workers) {
    int32_t k_most = first->linear.k_in;
    int32_t hidden = 0;
    tatvpr_take_image_gate(b, &job->first_gate, first, t);
    if (second != NULL) {
        tatvpr_take_image_gate(b, &job->second_gate, second, t);
        k_most = tatvpr_max_i32(k_most, second->linear.k_in);
        hidden = second->linear.k_in;
    }
    for (int32_t i = 0; i < workers; i++) {
        tatvpr_take_workspace(b, &job->workers[i], program, k_most, hidden);
    }
}

static size_t scratch_bytes(const tatvpr_program *program, const tatvpr_gated_linear *first,
                            const tatvpr_gated_linear *second, int32_t workers) {
    tatvpr_bump b = {NULL, 0, 1, 0};
    linear_job job;
    take_scratch(&b, &job, program, first, second, program->max_tokens, workers);
    return b.taken;
}

size_t tatvpr_linear_scratch(const tatvpr_program *program, int32_t workers) {
    size_t most = 0;
    for (int32_t i = 0; i < program->linear_count; i++) {
        const size_t bytes = scratch_bytes(program, program->linears[i], NULL, workers);
        most = bytes > most ? bytes : most;
    }
    for (int32_t i = 0; i < program->mlp_count; i++) {
        const tatvpr_mlp *mlp = program->mlps[i];
        const size_t bytes = scratch_bytes(program, &mlp->fc1, &mlp->fc2, workers);
        most = bytes > most ? bytes : most;
    }
    return most;
}

size_t tatvpr_panel_bytes(const tatvpr_program *program) {
    int32_t k_most = 0;
    for (int32_t i = 0; i < program->ternary_count; i++) {
        k_most = tatvpr_max_i32(k_most, program->ternaries[i]->k_in);
    }
    return tatvpr_round_up(TATVPR_PANEL_BYTES(k_most), TATVPR_ARENA_ALIGN);
}

int32_t tatvpr_tile_tokens(const tatvpr_program *program, int32_t tokens, int32_t workers) {
    const int32_t most = tatvpr_most_tokens(program);
    int32_t tiles = (tokens + most - 1) / most;
    tiles = (tiles + workers - 1) / workers * workers;
    const int32_t even = (tokens + tiles - 1) / tiles;
    const int32_t rounded =
        (even + TATVPR_TILE_ROUND - 1) / TATVPR_TILE_ROUND * TATVPR_TILE_ROUND;
    return tatvpr_min_i32(rounded, most);
}

/* ---- the operators: what a worker does with tile number `item` */

static int32_t tile_at(const linear_job *job, int32_t item, int32_t *first) {
    *first = item * job->tile;
    return tatvpr_min_i32(job->tile, job->t - *first);
}

static void quantise_work(void *argument, int32_t item, int32_t worker) {
    linear_job *job = (linear_job *)argument;
    const tatvpr_plan *p = &job->first;
    const int32_t k_in = p->op->linear.k_in;
    int32_t first = 0;
    const int32_t tokens = tile_at(job, item, &first);
    tatvpr_quantise_tokens(p, job->x + (ptrdiff_t)first * k_in, tokens,
                           job->workers[worker].rows,
                           job->first_gate.q + (ptrdiff_t)first * tatvpr_q_stride(k_in),
                           job->first_gate.s + first);
}

/* Gates (or looks up) the tile of the first plan and multiplies it to `y`. */
static void first_matmul(linear_job *job, tatvpr_workspace *w, int32_t first, int32_t tokens,
                         const float *residual, float *y) {
    const tatvpr_plan *p = &job->first;
    tatvpr_tile view;
    if (job->first_gate.q != NULL) {
        tatvpr_view_tile(p, &job->first_gate, first, tokens, w, &view);
        tatvpr_multiply_tile(p, w, &view, residual, y);
        return;
    }
    tatvpr_gate_tile(p, job->x + (ptrdiff_t)first * p->op->linear.k_in, tokens, w);
    tatvpr_multiply_tile(p, w, &w->tile, residual, y);
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
    tatvpr_workspace *w = &job->workers[worker];
    int32_t first = 0;
    const int32_t tokens = tile_at(job, item, &first);
    first_matmul(job, w, first, tokens, NULL, w->hidden);
    const int32_t k_in = job->second.op->linear.k_in;
    if (job->second_gate.q != NULL) { /* multiplied later, when all tokens are known */
        tatvpr_quantise_tokens(&job->second, w->hidden, tokens, w->rows,
                               job->second_gate.q + (ptrdiff_t)first * tatvpr_q_stride(k_in),
                               job->second_gate.s + first);
        return;
    }
    const ptrdiff_t at = (ptrdiff_t)first * job->second.op->linear.n_out;
    tatvpr_gate_tile(&job->second, w->hidden, tokens, w);
    tatvpr_multiply_tile(&job->second, w, &w->tile, job->residual + at, job->y + at);
}

static void mlp_second_work(void *argument, int32_t item, int32_t worker) {
    linear_job *job = (linear_job *)argument;
    int32_t first = 0;
    const int32_t tokens = tile_at(job, item, &first);
    const ptrdiff_t at = (ptrdiff_t)first * job->second.op->linear.n_out;
    tatvpr_tile view;
    tatvpr_view_tile(&job->second, &job->second_gate, first, tokens, &job->workers[worker], &view);
    tatvpr_multiply_tile(&job->second, &job->workers[worker], &view, job->residual + at,
                         job->y + at);
}

static tatvpr_status check_linear(const tatvpr_gated_linear *op, int32_t t) {
    const int32_t k_in = op->linear.k_in;
    if (t < 1 || k_in < 1 || k_in > 65535 || op->linear.n_out < 1 || op->gate.group < 1 ||
        k_in % op->gate.group != 0) {
        return TATVPR_ERR_ARGUMENT;
    }
    return TATVPR_OK;
}

/* Fills the job's tiles, plans and scratch; TATVPR_ERR_ARENA where it does not fit. */
static tatvpr_status prepare_job(linear_job *job, const tatvpr_context *c,
                                 const tatvpr_gated_linear *first,
                                 const tatvpr_gated_linear *second, int32_t t) {
    const int32_t workers = tatvpr_workers(c);
    tatvpr_bump b = {c->scratch, c->scratch_bytes, 0, 0};
    take_scratch(&b, job, c->model->program, first, second, t, workers);
    if (b.taken > c->scratch_bytes) {
        return TATVPR_ERR_ARENA;
    }
    for (int32_t i = 0; c->tables != NULL && i < workers; i++) {
        job->workers[i].panel = c->tables + (size_t)i * tatvpr_panel_bytes(c->model->program);
    }
    job->first = tatvpr_make_plan(c, first);
    if (second != NULL) {
        job->second = tatvpr_make_plan(c, second);
    }
    job->t = t;
    job->tile = tatvpr_tile_tokens(c->model->program, t, workers);
    job->tiles = (t + job->tile - 1) / job->tile;
    return TATVPR_OK;
}

tatvpr_status tatvpr_op_gated_linear(tatvpr_context *c, const tatvpr_gated_linear *op,
                                     const float *x, int32_t t, const float *residual, float *y) {
    linear_job job;
    tatvpr_status status = check_linear(op, t);
    if (status == TATVPR_OK) {
        status = prepare_job(&job, c, op, NULL, t);
    }
    if (status != TATVPR_OK) {
        return status;
    }
    tatvpr_trace_layer(c, op->name, 1);
    job.x = x;
    job.residual = residual;
    job.y = y;
    if (job.first_gate.q != NULL) {
        tatvpr_parallel(c, quantise_work, &job, job.tiles);
        tatvpr_gate_image(&job.first, &job.first_gate, t);
    }
    tatvpr_parallel(c, linear_work, &job, job.tiles);
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
    linear_job job;
    const tatvpr_status status = prepare_job(&job, c, &op->fc1, &op->fc2, t);
    if (status != TATVPR_OK) {
        return status;
    }
    tatvpr_trace_layer(c, op->name, 1);
    job.x = x;
    job.residual = x;
    job.y = y;
    if (job.first_gate.q != NULL) {
        tatvpr_parallel(c, quantise_work, &job, job.tiles);
        tatvpr_gate_image(&job.first, &job.first_gate, t);
    }
    tatvpr_parallel(c, mlp_work, &job, job.tiles);
    if (job.second_gate.q != NULL) {
        tatvpr_gate_image(&job.second, &job.second_gate, t);
        tatvpr_parallel(c, mlp_second_work, &job, job.tiles);
    }
    tatvpr_trace_layer(c, op->name, 0);
    return TATVPR_OK;
}
