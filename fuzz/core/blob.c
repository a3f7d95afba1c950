/* A weights file for a small model (tests/core/small_vit.c, at its smallest). The first byte says which: 0, the rest
 * is the file; else, the rest fills a file with a right header over and over, so that every tensor
 * holds what no training gives. Of the latter one in ONE_IN, by its checksum, goes on to describe a frame,
 * which takes longer than reading it; a file of the former that is read always does. */
#include "fuzz.h"

enum { HEADER = 64, VERSION = 1, WIDTH = 12, HEIGHT = 10, ONE_IN = 4 };

static void describe(const tatvpr_model *model, const tatvpr_program *program, uint8_t setting) {
    float *descriptor = (float *)(void *)fuzz_memory(4 * (size_t)program->descriptor_size);
    const size_t arena_bytes = tatvpr_arena_bytes(model, 1);
    tatvpr_arena arena = {fuzz_large(arena_bytes), arena_bytes};
    uint8_t *pixels = fuzz_pattern(model->weights, 64, (size_t)WIDTH * HEIGHT);
    tatvpr_frame frame;
    memset(&frame, 0, sizeof(frame));
    frame.size = sizeof(frame);
    frame.format = TATVPR_GRAY8;
    frame.width = WIDTH;
    frame.height = HEIGHT;
    frame.planes[0] = pixels;
    frame.strides[0] = WIDTH;
    tatvpr_options options;
    memset(&options, 0, sizeof(options));
    options.size = sizeof(options);
    options.k = (float)(1 + (setting & 15)) / 16.0f;
    options.tokens = (float)(1 + (setting >> 4)) / 16.0f;
    options.threads = 1;
    (void)tatvpr_describe(model, arena, &frame, &options, descriptor);
    free(pixels);
    fuzz_large_free((uint8_t *)arena.base, arena_bytes);
    free(descriptor);
}

static void bind(const uint8_t *blob, size_t blob_bytes, uint8_t choice, uint8_t setting,
                 int describing) {
    const tatvpr_program *program = tatvpr_program_get();
    const char *kernels = fuzz_kernels(choice)->name;
    const size_t bytes = tatvpr_prepared_bytes(program, kernels);
    uint8_t *prepared = fuzz_memory(bytes);
    tatvpr_model model;
    memset(&model, 0, sizeof(model));
    if (tatvpr_model_init(&model, program, blob, blob_bytes, kernels, prepared, bytes) ==
            TATVPR_OK &&
        describing) {
        describe(&model, program, setting);
    }
    free(prepared);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 3) {
        return 0;
    }
    if (data[0] == 0) {
        uint8_t *file = fuzz_copy(data + 3, size - 3);
        bind(file, size - 3, data[1], data[2], 1);
        free(file);
        return 0;
    }
    const tatvpr_program *program = tatvpr_program_get();
    const size_t bytes = program->blob_bytes;
    uint8_t *blob = fuzz_pattern(data + 3, size - 3, bytes);
    memcpy(blob, "TVPRWTS1", 8);
    fuzz_put_u32(blob + 8, VERSION);
    fuzz_put_u32(blob + 12, program->layout);
    fuzz_put_u32(blob + 16, (uint32_t)bytes);
    fuzz_put_u32(blob + 20, 0);
    const uint32_t crc = tatvpr_crc32(0, blob + HEADER, bytes - HEADER);
    fuzz_put_u32(blob + 24, crc);
    fuzz_put_u32(blob + 28, 0);
    memcpy(blob + 32, program->model_hash, sizeof(program->model_hash));
    bind(blob, bytes, data[1], data[2], crc % ONE_IN == 0);
    free(blob);
    return 0;
}
