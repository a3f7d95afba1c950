/* One frame to one descriptor: checks, the arena's layout, the generated code.
 *
 * Arena: descriptor float [D] | planned buffers | scratch | workers. The pixels uint8 [S, S, 3] are
 * the end of the scratch: only PatchEmbed, which comes first, reads them. While the frame is
 * squashed, everything between the descriptor and the pixels is room for its tables.
 */
#include "core.h"
#include "map.h"

typedef struct arena_plan {
    size_t planned;
    size_t scratch;
    size_t pixels;
    size_t pool;
    size_t end;
} arena_plan;

static arena_plan plan_arena(const tatvpr_program *program, int32_t threads) {
    const size_t side = (size_t)program->image_size;
    const size_t pixels = tatvpr_round_up(side * side * 3, 64);
    const size_t embed = tatvpr_round_up(TATVPR_PATCH_SCRATCH(program->patch_embed), 64) *
                         (size_t)threads;
    const size_t scratch = tatvpr_round_up(tatvpr_scratch_bytes(program, threads), 64);
    arena_plan p;
    p.planned = tatvpr_round_up((size_t)program->descriptor_size * sizeof(float), 64);
    p.scratch = p.planned + tatvpr_round_up(program->planned_bytes, 64);
    p.pool = p.scratch + (scratch > embed + pixels ? scratch : embed + pixels);
    p.pixels = p.pool - pixels;
    p.end = p.pool + tatvpr_round_up(tatvpr_pool_bytes(threads), 64);
    return p;
}

size_t tatvpr_arena_bytes(const tatvpr_model *model, int32_t threads) {
    if (model == NULL || model->program == NULL || !tatvpr_threads_valid(threads)) {
        return 0;
    }
    return plan_arena(model->program, tatvpr_max_i32(threads, 1)).end;
}

size_t tatvpr_tables_bytes(const tatvpr_model *model, int32_t threads) {
    if (model == NULL || model->program == NULL || !model->program->tables_apart ||
        !tatvpr_threads_valid(threads)) {
        return 0;
    }
    return tatvpr_panel_bytes(model->program) * (size_t)tatvpr_max_i32(threads, 1);
}

/* Whether what the caller gave for look-up tables does, where the program wants it. */
static tatvpr_status check_tables(const tatvpr_model *model, const tatvpr_options *options) {
    const size_t needed = tatvpr_tables_bytes(model, options->threads);
    if (needed == 0) {
        return TATVPR_OK;
    }
    if (options->tables == NULL) {
        return TATVPR_ERR_NULL;
    }
    if (!tatvpr_aligned(options->tables)) {
        return TATVPR_ERR_ALIGNMENT;
    }
    return options->tables_bytes < needed ? TATVPR_ERR_ARENA : TATVPR_OK;
}

/* The caller's options in today's structure: what an older caller does not know is zero; what a
 * newer one sets beyond it is refused, because it would be ignored. */
static tatvpr_status read_options(const tatvpr_options *given, tatvpr_options *options) {
    const size_t least = offsetof(tatvpr_options, tokens) + sizeof(options->tokens);
    if (!tatvpr_sized(given->size, least)) {
        return TATVPR_ERR_ABI;
    }
    tatvpr_zero(options, sizeof(*options));
    const size_t known = given->size < sizeof(*options) ? given->size : sizeof(*options);
    tatvpr_copy(options, given, known);
    for (size_t i = sizeof(*options); i < given->size; i++) {
        if (((const uint8_t *)given)[i] != 0) {
            return TATVPR_ERR_ABI;
        }
    }
    options->size = sizeof(*options);
    if (!(options->k > 0.0f && options->k <= 1.0f)) { /* a NaN fails both */
        return TATVPR_ERR_K;
    }
    if (!(options->tokens > 0.0f && options->tokens <= 1.0f)) {
        return TATVPR_ERR_TOKENS;
    }
    if (!tatvpr_threads_valid(options->threads)) {
        return TATVPR_ERR_THREADS;
    }
    return TATVPR_OK;
}

static int all_finite(const float *x, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        if (!(x[i] - x[i] == 0.0f)) { /* NaN and infinity are not 0 here */
            return 0;
        }
    }
    return 1;
}

tatvpr_status tatvpr_describe(const tatvpr_model *model, tatvpr_arena arena,
                              const tatvpr_frame *frame, const tatvpr_options *options,
                              float *descriptor) {
    if (model == NULL || model->program == NULL || model->weights == NULL ||
        model->kernels == NULL || arena.base == NULL || frame == NULL || options == NULL ||
        descriptor == NULL) {
        return TATVPR_ERR_NULL;
    }
    const tatvpr_program *program = model->program;
    if (program->abi != TATVPR_ABI) {
        return TATVPR_ERR_ABI;
    }
    tatvpr_options today;
    tatvpr_status status = read_options(options, &today);
    if (status != TATVPR_OK) {
        return status;
    }
    if (!tatvpr_aligned(arena.base)) {
        return TATVPR_ERR_ALIGNMENT;
    }
    const int32_t threads = tatvpr_max_i32(today.threads, 1);
    const arena_plan plan = plan_arena(program, threads);
    if (arena.bytes < plan.end) {
        return TATVPR_ERR_ARENA;
    }
    status = check_tables(model, &today);
    if (status == TATVPR_OK) {
        status = tatvpr_frame_check(frame);
    }
    if (status != TATVPR_OK) {
        return status;
    }
    uint8_t *base = (uint8_t *)arena.base;
    tatvpr_context context;
    tatvpr_zero(&context, sizeof(context));
    context.model = model;
    context.options = &today;
    context.pixels = base + plan.pixels;
    context.arena = base + plan.planned;
    context.scratch = base + plan.scratch;
    context.scratch_bytes = plan.pool - plan.scratch;
    context.k = today.k;
    context.tokens = today.tokens;
    context.descriptor = (float *)(void *)base;
    context.tables = program->tables_apart ? (uint8_t *)today.tables : NULL;
    tatvpr_trace_layer(&context, "frame", 1);
    status = tatvpr_frame_squash(model->kernels, frame, program->image_size, base + plan.pixels,
                                 base + plan.planned, plan.pixels - plan.planned);
    tatvpr_trace_layer(&context, "frame", 0);
    if (status != TATVPR_OK) {
        return status;
    }
    status = tatvpr_pool_start(&context, base + plan.pool, threads);
    if (status != TATVPR_OK) {
        return status;
    }
    status = program->run(&context);
    tatvpr_pool_stop(&context);
    if (status != TATVPR_OK) {
        return status;
    }
    if (!all_finite(context.descriptor, program->descriptor_size)) {
        return TATVPR_ERR_NOT_FINITE;
    }
    tatvpr_copy(descriptor, context.descriptor, (size_t)program->descriptor_size * sizeof(float));
    return TATVPR_OK;
}

tatvpr_status tatvpr_query(const tatvpr_model *model, tatvpr_arena arena,
                           const tatvpr_frame *frame, const tatvpr_options *options,
                           const tatvpr_map *map, tatvpr_match *matches, int32_t count,
                           int32_t *found) {
    if (options == NULL) {
        return TATVPR_ERR_NULL;
    }
    /* A mistake about the map is told before a frame's work. */
    tatvpr_options today;
    tatvpr_status status = read_options(options, &today);
    if (status == TATVPR_OK) {
        status = tatvpr_map_check(map, model, today.k, today.tokens, matches, count, found);
    }
    /* The descriptor's own place in the arena serves as the caller's buffer. */
    float *descriptor = (float *)arena.base;
    if (status == TATVPR_OK) {
        status = tatvpr_describe(model, arena, frame, options, descriptor);
    }
    return status != TATVPR_OK ? status
                               : tatvpr_map_search(map, model, descriptor, today.k, today.tokens,
                                                   matches, count, found);
}
