/* Gates of tokens, tile by tile (scope 0) or over the image (scope 1), and what they need. */
#include "gated_tile.h"
#include "fetch.h"

/* ---- scratch */

static void *take(tatvpr_bump *b, size_t bytes) {
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

void tatvpr_take_workspace(tatvpr_bump *b, tatvpr_workspace *w, const tatvpr_program *program,
                           int32_t k_most, int32_t hidden) {
    const size_t rows = (size_t)tatvpr_most_tokens(program);
    const size_t list = (size_t)TATVPR_LIST_STRIDE(k_most);
    w->tile.q = (int8_t *)take(b, rows * (size_t)tatvpr_q_stride(k_most));
    w->tile.s = (float *)take(b, rows * sizeof(float));
    w->tile.sum = (int32_t *)take(b, rows * sizeof(int32_t));
    w->tile.count = (int32_t *)take(b, rows * sizeof(int32_t));
    w->tile.index = (uint16_t *)take(b, rows * list * sizeof(uint16_t));
    w->tile.value = (int8_t *)take(b, rows * list);
    w->rows = (float *)take(b, (size_t)k_most * TATVPR_ROWS_TOGETHER * sizeof(float));
    w->hidden = hidden > 0 ? (float *)take(b, rows * (size_t)hidden * sizeof(float)) : NULL;
    w->panel =
        program->tables_apart ? NULL : (uint8_t *)take(b, TATVPR_PANEL_BYTES(k_most));
}

void tatvpr_take_image_gate(tatvpr_bump *b, tatvpr_image_gate *g, const tatvpr_gated_linear *op,
                            int32_t t) {
    if (op->gate.scope == 0) {
        g->q = NULL;
        return;
    }
    g->q = (int8_t *)take(b, (size_t)t * (size_t)tatvpr_q_stride(op->linear.k_in));
    g->s = (float *)take(b, (size_t)t * sizeof(float));
    g->sum = (int32_t *)take(b, (size_t)t * sizeof(int32_t));
    g->scores = (int32_t *)take(b, (size_t)op->linear.k_in * sizeof(int32_t));
}

/* ---- one token, one tile */

static int32_t list_of(const tatvpr_model *model, const tatvpr_gated_linear *op, float k) {
    const tatvpr_kernels *kernels = model->kernels;
    const int32_t group = op->gate.group;
    const int sparse =
        kernels->sparse != NULL && k < tatvpr_sparse_below(model, &op->linear, group);
#if defined(TATVPR_WIDE)
    if (sparse && kernels->fours != NULL && group % 4 == 0) {
        return TATVPR_LIST_FOURS;
    }
#endif
    return sparse ? TATVPR_LIST_CHANNELS : TATVPR_LIST_NOTHING;
}

tatvpr_plan tatvpr_make_plan(const tatvpr_context *c, const tatvpr_gated_linear *op) {
    const float k = op->gate.fixed_k > 0.0f ? op->gate.fixed_k : c->k;
    const int32_t groups = op->linear.k_in / op->gate.group;
    tatvpr_plan p;
    p.c = c;
    p.op = op;
    p.keep = tatvpr_kept(k, groups);
    /* Where all stay, as a row that is one group does at any k, lists may have no room for them. */
    p.list = p.keep < groups ? list_of(c->model, op, k) : TATVPR_LIST_NOTHING;
    return p;
}

/* [LayerNorm] and quantisation of up to TATVPR_ROWS_TOGETHER rows. */
static void quantise_rows(const tatvpr_plan *p, const float *x, int32_t count, float *rows,
                          int8_t *q, float *s) {
    const tatvpr_model *model = p->c->model;
    const tatvpr_kernels *kernels = model->kernels;
    const tatvpr_norm *norm = p->op->norm;
    const int32_t k_in = p->op->linear.k_in;
    const int32_t stride = tatvpr_q_stride(k_in);
    const float *gamma = norm == NULL ? NULL : tatvpr_floats(model, norm->gamma);
    const float *beta = norm == NULL ? NULL : tatvpr_floats(model, norm->beta);
#if defined(TATVPR_WIDE)
    if (norm != NULL && count == TATVPR_ROWS_TOGETHER && kernels->norm_quantise != NULL) {
        kernels->norm_quantise(x, gamma, beta, norm->eps, k_in, rows, q, stride, s);
        return;
    }
#endif
    for (int32_t i = 0; i < count; i++, x += k_in, q += stride) {
        if (norm != NULL) {
            kernels->layer_norm(x, gamma, beta, norm->eps, k_in, rows);
        }
        s[i] = kernels->quantise(norm == NULL ? x : rows, k_in, q);
    }
}

#if defined(TATVPR_WIDE)
/* What the first token multiplies by. Nothing reads it before, so that this token would wait. */
static tatvpr_fetch first_weights(const tatvpr_plan *p, int32_t tokens) {
    const tatvpr_ternary *op = &p->op->linear;
    const tatvpr_kernels *kernels = p->c->model->kernels;
    const uint8_t *from = tatvpr_tensor(p->c->model, op->weight);
    const uint8_t *end = kernels->first_row > 0 ? from + kernels->prepared_bytes(op) : from;
    const int32_t shares = (tokens + TATVPR_ROWS_TOGETHER - 1) / TATVPR_ROWS_TOGETHER;
    return tatvpr_begin_fetch(from, end, (ptrdiff_t)op->k_in * kernels->first_row, shares);
}
#endif

void tatvpr_quantise_tokens(const tatvpr_plan *p, const float *x, int32_t tokens, float *rows,
                            int8_t *q, float *s) {
    const int32_t k_in = p->op->linear.k_in;
    const int32_t stride = tatvpr_q_stride(k_in);
#if defined(TATVPR_WIDE)
    tatvpr_fetch weights = first_weights(p, tokens);
#endif
    for (int32_t t = 0; t < tokens; t += TATVPR_ROWS_TOGETHER) {
#if defined(TATVPR_WIDE)
        tatvpr_fetch_share(&weights);
#endif
        const int32_t count = tatvpr_min_i32(TATVPR_ROWS_TOGETHER, tokens - t);
        const float *from = x + (ptrdiff_t)t * k_in;
        if (p->op->gelu) {
            p->c->model->kernels->gelu(from, count * k_in, rows);
            from = rows;
        }
        quantise_rows(p, from, count, rows, q + (ptrdiff_t)t * stride, s + t);
    }
}

static void size_tile(tatvpr_tile *tile, const tatvpr_plan *p, int32_t tokens) {
    tile->tokens = tokens;
    tile->k_in = p->op->linear.k_in;
    tile->q_stride = tatvpr_q_stride(tile->k_in);
    tile->list_stride = TATVPR_LIST_STRIDE(tile->k_in);
    tile->hint = 0.0f;
}

void tatvpr_select_tile(const tatvpr_kernels *kernels, tatvpr_tile *tile, int32_t keep,
                        int32_t group, int32_t list) {
#if defined(TATVPR_WIDE)
    if (kernels->select_rows != NULL) {
        kernels->select_rows(tile, keep, group, list);
        return;
    }
#endif
    for (int32_t t = 0; t < tile->tokens; t++) {
        kernels->select(tile, t, keep, group, list);
    }
}

void tatvpr_gate_tile(const tatvpr_plan *p, const float *x, int32_t tokens, tatvpr_workspace *w) {
    size_tile(&w->tile, p, tokens);
    tatvpr_quantise_tokens(p, x, tokens, w->rows, w->tile.q, w->tile.s);
    tatvpr_select_tile(p->c->model->kernels, &w->tile, p->keep, p->op->gate.group, p->list);
}

void tatvpr_multiply_tile(const tatvpr_plan *p, const tatvpr_workspace *w, const tatvpr_tile *tile,
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
    if (p->list == TATVPR_LIST_NOTHING) {
        model->kernels->dense(&job);
        return;
    }
#if defined(TATVPR_WIDE)
    if (p->list == TATVPR_LIST_FOURS) {
        model->kernels->fours(&job);
        return;
    }
#endif
    model->kernels->sparse(&job);
}

/* ---- gates over the image */

static void score_image(const tatvpr_plan *p, tatvpr_image_gate *g, int32_t t, int32_t stride) {
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

void tatvpr_gate_image(const tatvpr_plan *p, tatvpr_image_gate *g, int32_t t) {
    const int32_t k_in = p->op->linear.k_in;
    const int32_t stride = tatvpr_q_stride(k_in);
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

void tatvpr_view_tile(const tatvpr_plan *p, const tatvpr_image_gate *g, int32_t first,
                      int32_t tokens, tatvpr_workspace *w, tatvpr_tile *tile) {
    *tile = w->tile;
    size_tile(tile, p, tokens);
    tile->q = g->q + (ptrdiff_t)first * tile->q_stride;
    tile->s = g->s + first;
    tile->sum = g->sum + first;
#if defined(TATVPR_WIDE)
    for (int32_t t = 0; p->list == TATVPR_LIST_FOURS && t < tokens; t++) {
        tatvpr_list_fours(tile, t);
    }
#endif
    for (int32_t t = 0; p->list == TATVPR_LIST_CHANNELS && t < tokens; t++) {
        tatvpr_list_row(tile, t);
    }
}

