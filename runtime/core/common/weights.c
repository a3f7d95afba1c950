/* Weights: where a tensor lies, and rewriting ternary matrices for kernels that want another
 * layout than the file's, without holding two copies: what needs no rewriting is moved along, so
 * that the blob can be unmapped afterwards.
 *
 * Prepared memory begins with a table of segments, sorted by their offset in the blob. A segment
 * is either a stretch of the blob as it was or one ternary matrix in the kernels' own layout.
 */
#include "core.h"

typedef struct tatvpr_segment {
    uint32_t blob_offset;
    uint32_t prepared_offset;
} tatvpr_segment;

typedef struct tatvpr_segments {
    uint32_t count;
    uint32_t zero;
    tatvpr_segment at[];
} tatvpr_segments;

static size_t stored_bytes(const tatvpr_ternary *op) {
    const size_t per_byte = op->layout == TATVPR_LAYOUT_TRIT5 ? 5 : 4;
    return (size_t)op->n_out * (((size_t)op->k_in + per_byte - 1) / per_byte);
}

static int wants_preparation(const tatvpr_ternary *op, const tatvpr_kernels *kernels) {
    return (kernels->in_place & TATVPR_LAYOUT_BIT(op->layout)) == 0;
}

int tatvpr_layouts_fit(const tatvpr_program *program, const tatvpr_kernels *kernels) {
    for (int32_t i = 0; i < program->ternary_count; i++) {
        const tatvpr_ternary *op = program->ternaries[i];
        if (wants_preparation(op, kernels) &&
            (kernels->prepare == NULL || (op->layout != TATVPR_LAYOUT_ROWS2 &&
                                          op->layout != TATVPR_LAYOUT_TRIT5))) {
            return 0;
        }
    }
    return 1;
}

/* The matrix with the lowest offset at or after `cursor` that needs preparation, or null. */
static const tatvpr_ternary *next_ternary(const tatvpr_program *program,
                                          const tatvpr_kernels *kernels, size_t cursor) {
    const tatvpr_ternary *next = NULL;
    for (int32_t i = 0; i < program->ternary_count; i++) {
        const tatvpr_ternary *op = program->ternaries[i];
        if (wants_preparation(op, kernels) && op->weight >= cursor &&
            (next == NULL || op->weight < next->weight)) {
            next = op;
        }
    }
    return next;
}

/* One walk for both the size and the writing: `prepared` null only counts. */
static size_t walk(const tatvpr_program *program, const tatvpr_kernels *kernels,
                   const uint8_t *blob, uint8_t *prepared) {
    const size_t most = 2 * (size_t)program->ternary_count + 1;
    size_t target = tatvpr_round_up(sizeof(tatvpr_segments) + most * sizeof(tatvpr_segment), 64);
    size_t cursor = 0;
    tatvpr_segments *table = (tatvpr_segments *)(void *)prepared;
    uint32_t segments = 0;
    for (;;) {
        const tatvpr_ternary *op = next_ternary(program, kernels, cursor);
        const size_t end = op != NULL ? op->weight : program->blob_bytes;
        if (end > cursor) {
            target += cursor % 64; /* tensors stay aligned as they were */
            if (prepared != NULL) {
                table->at[segments].blob_offset = (uint32_t)cursor;
                table->at[segments].prepared_offset = (uint32_t)target;
                tatvpr_copy(prepared + target, blob + cursor, end - cursor);
            }
            segments++;
            target = tatvpr_round_up(target + (end - cursor), 64);
        }
        if (op == NULL) {
            break;
        }
        if (prepared != NULL) {
            table->at[segments].blob_offset = op->weight;
            table->at[segments].prepared_offset = (uint32_t)target;
            kernels->prepare(op, blob + op->weight, prepared + target);
        }
        segments++;
        target = tatvpr_round_up(target + kernels->prepared_bytes(op), 64);
        cursor = op->weight + stored_bytes(op);
    }
    if (prepared != NULL) {
        table->count = segments;
        table->zero = 0;
    }
    return target;
}

size_t tatvpr_prepared_size(const tatvpr_program *program, const tatvpr_kernels *kernels) {
    if (next_ternary(program, kernels, 0) == NULL) {
        return 0;
    }
    return walk(program, kernels, NULL, NULL);
}

void tatvpr_place_weights(tatvpr_model *model, const uint8_t *blob, uint8_t *prepared) {
    if (tatvpr_prepared_size(model->program, model->kernels) == 0) {
        model->weights = blob;
        model->segments = NULL;
        return;
    }
    (void)walk(model->program, model->kernels, blob, prepared);
    model->weights = prepared;
    model->segments = (const tatvpr_segments *)(const void *)prepared;
}

const uint8_t *tatvpr_tensor(const tatvpr_model *model, uint32_t offset) {
    const tatvpr_segments *table = model->segments;
    if (table == NULL) {
        return model->weights + offset;
    }
    uint32_t low = 0; /* the last segment that begins at or before the offset */
    uint32_t high = table->count;
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        if (table->at[middle].blob_offset <= offset) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return model->weights + table->at[low].prepared_offset + (offset - table->at[low].blob_offset);
}

void tatvpr_read_codes(const tatvpr_ternary *op, const uint8_t *stored, int32_t n, int32_t first,
                       int32_t count, uint8_t *codes) {
    const size_t k_in = (size_t)op->k_in;
    if (op->layout == TATVPR_LAYOUT_TRIT5) {
        const uint8_t *from = stored + (size_t)n * ((k_in + 4) / 5) + first / 5;
        int32_t i = 0;
        for (; i + 5 <= count; i += 5, from++) { /* quotients do not wait for each other */
            const uint32_t d0 = *from;
            const uint32_t d1 = d0 / 3u;
            const uint32_t d2 = d0 / 9u;
            const uint32_t d3 = d0 / 27u;
            const uint32_t d4 = d0 / 81u;
            codes[i] = (uint8_t)(d0 - 3u * d1);
            codes[i + 1] = (uint8_t)(d1 - 3u * d2);
            codes[i + 2] = (uint8_t)(d2 - 3u * d3);
            codes[i + 3] = (uint8_t)(d3 - 3u * d4);
            codes[i + 4] = (uint8_t)(d4 % 3u);
        }
        for (uint32_t byte = i < count ? *from : 0; i < count; i++, byte /= 3u) {
            codes[i] = (uint8_t)(byte % 3u);
        }
        return;
    }
    const uint8_t *from = stored + (size_t)n * ((k_in + 3) / 4) + first / 4;
    for (int32_t i = 0; i < count; i++) {
        codes[i] = (uint8_t)(from[i / 4] >> (2 * (i % 4)) & 3);
    }
}
