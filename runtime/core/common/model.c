/* Binding a program to its weights and to the kernels of this CPU. */
#include "core.h"

#define BLOB_HEADER 64u
#define BLOB_VERSION 1u

#if defined(TATVPR_CORE_ID)
const uint8_t TATVPR_CORE_ID = 1;
#endif

static const tatvpr_kernels *kernels_named(const char *name) {
    for (int32_t i = 0; tatvpr_kernels_list[i] != NULL; i++) {
        if (tatvpr_same_text(tatvpr_kernels_list[i]->name, name)) {
            return tatvpr_kernels_list[i];
        }
    }
    return NULL;
}

/* The kernels of that name, or the best that run here and can read the program's weights. */
static const tatvpr_kernels *choose_kernels(const tatvpr_program *program, const char *name,
                                            tatvpr_status *status) {
    if (name != NULL) {
        const tatvpr_kernels *kernels = kernels_named(name);
        if (kernels == NULL || !kernels->usable()) {
            *status = TATVPR_ERR_KERNELS;
            return NULL;
        }
        if (!tatvpr_layouts_fit(program, kernels)) {
            *status = TATVPR_ERR_BLOB_LAYOUT;
            return NULL;
        }
        return kernels;
    }
    for (int32_t i = 0; tatvpr_kernels_list[i] != NULL; i++) {
        const tatvpr_kernels *kernels = tatvpr_kernels_list[i];
        if (kernels->usable() && tatvpr_layouts_fit(program, kernels)) {
            return kernels;
        }
    }
    *status = TATVPR_ERR_BLOB_LAYOUT;
    return NULL;
}

const char *tatvpr_kernels_name(int32_t index) {
    if (index < 0) {
        return NULL;
    }
    for (int32_t i = 0; tatvpr_kernels_list[i] != NULL; i++) {
        if (i == index) {
            return tatvpr_kernels_list[i]->name;
        }
    }
    return NULL;
}

int32_t tatvpr_kernels_usable(const char *name) {
    const tatvpr_kernels *kernels = name == NULL ? NULL : kernels_named(name);
    return kernels != NULL && kernels->usable() ? 1 : 0;
}

size_t tatvpr_prepared_bytes(const tatvpr_program *program, const char *name) {
    tatvpr_status status = TATVPR_OK;
    if (program == NULL || program->abi != TATVPR_ABI) {
        return 0;
    }
    const tatvpr_kernels *kernels = choose_kernels(program, name, &status);
    return kernels == NULL ? 0 : tatvpr_prepared_size(program, kernels);
}

static tatvpr_status check_blob(const tatvpr_program *program, const uint8_t *blob,
                                size_t blob_bytes) {
    static const uint8_t magic[8] = {'T', 'V', 'P', 'R', 'W', 'T', 'S', '1'};
    if (blob_bytes < BLOB_HEADER) {
        return TATVPR_ERR_BLOB_TRUNCATED;
    }
    for (size_t i = 0; i < sizeof(magic); i++) {
        if (blob[i] != magic[i]) {
            return TATVPR_ERR_BLOB_MAGIC;
        }
    }
    if (tatvpr_read_u32(blob + 8) != BLOB_VERSION || tatvpr_read_u32(blob + 28) != 0) {
        return TATVPR_ERR_BLOB_VERSION;
    }
    if (tatvpr_read_u32(blob + 12) != program->layout) {
        return TATVPR_ERR_BLOB_LAYOUT;
    }
    for (size_t i = 0; i < sizeof(program->model_hash); i++) {
        if (blob[32 + i] != program->model_hash[i]) {
            return TATVPR_ERR_BLOB_MODEL;
        }
    }
    const uint64_t total = tatvpr_read_u64(blob + 16);
    if (total > blob_bytes || total != program->blob_bytes) {
        return TATVPR_ERR_BLOB_TRUNCATED;
    }
    if (tatvpr_crc32(0, blob + BLOB_HEADER, (size_t)total - BLOB_HEADER) !=
        tatvpr_read_u32(blob + 24)) {
        return TATVPR_ERR_BLOB_CRC;
    }
    return TATVPR_OK;
}

static void bind(tatvpr_model *model, const tatvpr_program *program,
                 const tatvpr_kernels *kernels) {
    model->program = program;
    model->kernels = kernels;
    model->costs = kernels->costs == NULL ? NULL : kernels->costs();
}

tatvpr_status tatvpr_model_init(tatvpr_model *model, const tatvpr_program *program,
                                const void *blob, size_t blob_bytes, const char *kernels_name,
                                void *prepared, size_t prepared_bytes) {
    if (model == NULL || program == NULL || blob == NULL) {
        return TATVPR_ERR_NULL;
    }
    if (program->abi != TATVPR_ABI) {
        return TATVPR_ERR_ABI;
    }
    if (!tatvpr_aligned(blob) || !tatvpr_aligned(prepared)) {
        return TATVPR_ERR_ALIGNMENT;
    }
    tatvpr_status status = check_blob(program, (const uint8_t *)blob, blob_bytes);
    if (status != TATVPR_OK) {
        return status;
    }
    const tatvpr_kernels *kernels = choose_kernels(program, kernels_name, &status);
    if (kernels == NULL) {
        return status;
    }
    const size_t needed = tatvpr_prepared_size(program, kernels);
    if (needed > 0) {
        if (prepared == NULL) {
            return TATVPR_ERR_NULL;
        }
        if (prepared_bytes < needed) {
            return TATVPR_ERR_ARGUMENT;
        }
    }
    bind(model, program, kernels);
    tatvpr_place_weights(model, (const uint8_t *)blob, (uint8_t *)prepared);
    return TATVPR_OK;
}

tatvpr_status tatvpr_model_searcher(tatvpr_model *model, const tatvpr_program *program,
                                    const char *kernels_name) {
    if (model == NULL || program == NULL) {
        return TATVPR_ERR_NULL;
    }
    if (program->abi != TATVPR_ABI) {
        return TATVPR_ERR_ABI;
    }
    tatvpr_status status = TATVPR_OK;
    const tatvpr_kernels *kernels = choose_kernels(program, kernels_name, &status);
    if (kernels == NULL) {
        return status;
    }
    tatvpr_zero(model, sizeof(*model));
    bind(model, program, kernels);
    return TATVPR_OK;
}

tatvpr_status tatvpr_model_get_info(const tatvpr_program *program, tatvpr_model_info *info) {
    if (program == NULL || info == NULL) {
        return TATVPR_ERR_NULL;
    }
    if (program->abi != TATVPR_ABI || !tatvpr_sized(info->size, sizeof(info->size))) {
        return TATVPR_ERR_ABI;
    }
    tatvpr_model model;
    tatvpr_zero(&model, sizeof(model));
    model.program = program;
    tatvpr_model_info full;
    tatvpr_zero(&full, sizeof(full)); /* padding too: an older caller compares bytes */
    full.size = info->size;
    full.abi = TATVPR_ABI;
    full.name = program->name;
    full.model_hash = program->model_hash;
    full.image_size = program->image_size;
    full.descriptor_size = program->descriptor_size;
    full.token_dim = program->token_dim;
    full.max_tokens = program->max_tokens;
    full.arena_bytes = tatvpr_arena_bytes(&model, 1);
    full.weight_bytes = program->blob_bytes;
    /* An older caller's structure is filled as far as it goes; a newer one's tail is zeroed. */
    const size_t room = info->size;
    tatvpr_copy(info, &full, room < sizeof(full) ? room : sizeof(full));
    if (room > sizeof(full)) {
        tatvpr_zero((uint8_t *)info + sizeof(full), room - sizeof(full));
    }
    return TATVPR_OK;
}
