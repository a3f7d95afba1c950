/* A map's bytes: opened as they are and with both checksums made right, and whatever opens is
 * searched and read to its last byte. */
#include "fuzz.h"

enum { AT_HASH = 32, AT_DESCRIPTOR = 72, MOST = 5 };

static void read_tags(const tatvpr_map *map) {
    volatile char last = 0;
    for (uint64_t place = 0; place < map->places; place++) {
        const char *tag = NULL;
        size_t bytes = 0;
        MUST(tatvpr_map_tag(map, place, &tag, &bytes) == TATVPR_OK);
        for (size_t i = 0; i < bytes; i++) {
            last = tag[i];
        }
    }
    (void)last;
}

static void search(const tatvpr_map *map, const tatvpr_model *model, uint32_t elements,
                   const uint8_t *data, size_t size) {
    float *descriptor = (float *)(void *)fuzz_pattern(data, size, 4 * (size_t)elements);
    for (uint32_t i = 0; i < elements; i++) { /* numbers, of any size: a describe gives no others */
        if (!(descriptor[i] - descriptor[i] == 0.0f)) {
            descriptor[i] = 1.0f;
        }
    }
    tatvpr_match matches[MOST];
    memset(matches, 0, sizeof(matches));
    for (int i = 0; i < MOST; i++) {
        matches[i].size = sizeof(matches[i]);
    }
    int32_t found = 0;
    const tatvpr_status status =
        tatvpr_map_search(map, model, descriptor, 0.4f, 1.0f, matches, MOST, &found);
    if (status == TATVPR_OK) {
        MUST(found >= 0 && found <= MOST && (uint64_t)found <= map->places);
        for (int32_t i = 0; i < found; i++) {
            MUST(matches[i].place < map->places && matches[i].band < map->bands);
            MUST(matches[i].score >= -1.0f && matches[i].score <= 1.0f);
            MUST(i == 0 || matches[i].score <= matches[i - 1].score);
        }
    }
    free(descriptor);
}

/* A searcher of these kernels, made once: making one asks the CPU. */
static tatvpr_model searcher(const tatvpr_program *program, uint8_t choice) {
    static tatvpr_model made[256];
    tatvpr_model *model = &made[choice];
    if (model->program == NULL) {
        MUST(tatvpr_model_searcher(model, program, fuzz_kernels(choice)->name) == TATVPR_OK);
    }
    model->program = program;
    return *model;
}

static void open(const uint8_t *data, size_t size) {
    tatvpr_map map;
    memset(&map, 0, sizeof(map));
    map.size = sizeof(map);
    if (tatvpr_map_open(&map, data, size, NULL) != TATVPR_OK) {
        return;
    }
    read_tags(&map);
    tatvpr_program program;
    memset(&program, 0, sizeof(program));
    program.abi = TATVPR_ABI;
    program.descriptor_size = (int32_t)tatvpr_read_u32(data + AT_DESCRIPTOR);
    memcpy(program.model_hash, data + AT_HASH, sizeof(program.model_hash));
    const tatvpr_model model = searcher(&program, data[AT_HASH]);
    MUST(tatvpr_map_open(&map, data, size, &model) == TATVPR_OK);
    search(&map, &model, (uint32_t)program.descriptor_size, data, size);
    program.descriptor_size++; /* another model's descriptor: refused before it is read */
    MUST(tatvpr_map_open(&map, data, size, &model) == TATVPR_ERR_MAP_MODEL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *map = fuzz_copy(data, size);
    open(map, size);
    fuzz_reseal_map(map, size);
    open(map, size);
    free(map);
    return 0;
}
