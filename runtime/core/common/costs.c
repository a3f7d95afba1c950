/* Where the dense and the sparse matmul meet, from the costs of a CPU's family. */
#include "gated_tile.h"

/* Blocks of kind `i` in `*left` outputs: whole ones, and one for what the narrower kinds together
 * cannot take. */
static int32_t take_blocks(const tatvpr_costs *costs, int32_t i, int32_t *left) {
    int32_t narrower = 0;
    for (int32_t j = i + 1; j < TATVPR_BLOCK_KINDS; j++) {
        narrower += costs->blocks[j].outputs;
    }
    const int32_t outputs = costs->blocks[i].outputs;
    const int32_t count = *left / outputs + (*left % outputs > narrower);
    *left = tatvpr_max_i32(*left - count * outputs, 0);
    return count;
}

/* Tokens that share one unpacking, as the program's tokens are divided into tiles. */
static float tile_tokens(const tatvpr_program *program) {
    if (program == NULL || program->max_tokens <= 0) {
        return (float)TATVPR_TILE_TOKENS;
    }
    const int32_t most = tatvpr_most_tokens(program);
    return (float)program->max_tokens / (float)((program->max_tokens + most - 1) / most);
}

/* dense = sparse: fixed parts and a slope in k. */
static float meeting_point(const tatvpr_model *model, const tatvpr_ternary *op, int32_t group) {
    const tatvpr_costs *costs = model->costs;
    const float fours = (float)((op->k_in + 3) / 4);
    float dense = 0.0f;
    float fixed = costs->list_channel * (float)op->k_in;
    float slope = 0.0f;
    float unpacked = 0.0f; /* fours of channels, of all blocks */
    int32_t left = op->n_out;
    for (int32_t i = 0; i < TATVPR_BLOCK_KINDS && costs->blocks[i].outputs > 0; i++) {
        const tatvpr_block_cost *block = &costs->blocks[i];
        const float count = (float)take_blocks(costs, i, &left);
        const int aligned = group % 4 == 0 && block->fours_four > 0.0f;
        dense += count * (block->dense_fixed + block->dense_four * fours);
        fixed += count * (aligned ? block->fours_fixed : block->sparse_fixed);
        unpacked += count * fours;
        slope += count * (aligned ? block->fours_four : block->sparse_four) * fours;
    }
    fixed += costs->unpack_four * unpacked / tile_tokens(model->program);
    return dense > fixed ? (dense - fixed) / slope : 0.0f;
}

float tatvpr_sparse_below(const tatvpr_model *model, const tatvpr_ternary *op, int32_t group) {
    if (group >= op->k_in) { /* a row that is one group stays whole at any k */
        return 0.0f;
    }
#if defined(TATVPR_MCU)
    if (op->layout == TATVPR_LAYOUT_MCU_COLS) { /* laid out for sparse: dense lists every channel */
        return TATVPR_SPARSE_MOST;
    }
#endif
    const float below = model->costs != NULL ? meeting_point(model, op, group)
                                             : model->kernels->sparse_below(op, group);
    return below < TATVPR_SPARSE_MOST ? below : TATVPR_SPARSE_MOST;
}

static float pays_below(const tatvpr_model *model, const tatvpr_gated_linear *op, float most) {
    if (op->gate.fixed_k > 0.0f) { /* k of the call does not reach it */
        return most;
    }
    const float below = tatvpr_sparse_below(model, &op->linear, op->gate.group);
    return below > most ? below : most;
}

float tatvpr_k_pays_below(const tatvpr_model *model) {
    if (model == NULL || model->program == NULL || model->kernels == NULL ||
        model->kernels->sparse == NULL) {
        return 0.0f;
    }
    const tatvpr_program *program = model->program;
    float most = 0.0f;
    for (int32_t i = 0; i < program->linear_count; i++) {
        most = pays_below(model, program->linears[i], most);
    }
    for (int32_t i = 0; i < program->mlp_count; i++) {
        most = pays_below(model, &program->mlps[i]->fc1, most);
        most = pays_below(model, &program->mlps[i]->fc2, most);
    }
    return most;
}
