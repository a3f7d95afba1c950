/* Gating tokens and multiplying a tile of them: what GatedLinear and MLP (op_linear.c) are made of.
 */
#ifndef TATVPR_GATED_TILE_H
#define TATVPR_GATED_TILE_H

#include "core.h"

/* ---- scratch */

typedef struct tatvpr_bump {
    uint8_t *at;
    size_t left;
    int counting; /* only adds up how much would be taken */
    size_t taken;
} tatvpr_bump;

/* What one worker needs for one tile. */
typedef struct tatvpr_workspace {
    tatvpr_tile tile;
    float *rows;    /* [TATVPR_ROWS_TOGETHER, K]: GELU and LayerNorm of some tokens */
    float *hidden;  /* [tile, N of fc1]; null outside an MLP */
    uint8_t *panel; /* TATVPR_PANEL_BYTES of the widest: in the arena, or in options.tables */
} tatvpr_workspace;

/* What all workers share for gates over the image; unused (null) with scope 0. */
typedef struct tatvpr_image_gate {
    int8_t *q;       /* [T, q_stride] */
    float *s;        /* [T] */
    int32_t *sum;    /* [T] */
    int32_t *scores; /* [K / group] */
} tatvpr_image_gate;

/* Where the program's tables lie apart, without `panel`: that is the caller's to set. */
void tatvpr_take_workspace(tatvpr_bump *b, tatvpr_workspace *w, const tatvpr_program *program,
                           int32_t k_most, int32_t hidden);
void tatvpr_take_image_gate(tatvpr_bump *b, tatvpr_image_gate *g, const tatvpr_gated_linear *op,
                            int32_t t);

/* ---- one layer at this call's k */

typedef struct tatvpr_plan {
    const tatvpr_context *c;
    const tatvpr_gated_linear *op;
    int32_t keep;   /* groups kept */
    int32_t list;   /* TATVPR_LIST_...: what is listed and multiplied; nothing: the dense matmul */
} tatvpr_plan;

tatvpr_plan tatvpr_make_plan(const tatvpr_context *c, const tatvpr_gated_linear *op);

/* [GELU], [LayerNorm] and steps 1 and 2 of the gate, on `tokens` rows of x: padded rows of q
 * (tatvpr_q_stride) and their scales. `rows` is room for TATVPR_ROWS_TOGETHER * K floats. */
void tatvpr_quantise_tokens(const tatvpr_plan *p, const float *x, int32_t tokens, float *rows,
                            int8_t *q, float *s);
/* The gate's choice on all rows of a tile, as select() describes it. */
void tatvpr_select_tile(const tatvpr_kernels *kernels, tatvpr_tile *tile, int32_t keep,
                        int32_t group, int32_t list);
/* The whole gate on `tokens` tokens, to w->tile. */
void tatvpr_gate_tile(const tatvpr_plan *p, const float *x, int32_t tokens, tatvpr_workspace *w);
void tatvpr_multiply_tile(const tatvpr_plan *p, const tatvpr_workspace *w, const tatvpr_tile *tile,
                          const float *residual, float *y);

/* ---- gates over the image */

/* Drops the channels that the whole image drops, once all tokens are quantised. */
void tatvpr_gate_image(const tatvpr_plan *p, tatvpr_image_gate *g, int32_t t);
/* A tile that looks into the image's gated tokens, with lists of its own. */
void tatvpr_view_tile(const tatvpr_plan *p, const tatvpr_image_gate *g, int32_t first,
                      int32_t tokens, tatvpr_workspace *w, tatvpr_tile *tile);

/* Tokens of a tile at most. */
static inline int32_t tatvpr_most_tokens(const tatvpr_program *program) {
    return program->tile_tokens > 0 ? program->tile_tokens : TATVPR_TILE_TOKENS;
}

#endif
