/* Frame in, place out, no Python: the public C interface on Linux.
 *
 *     cc -O2 linux_main.c -I ../include -L ARTIFACT/lib -ltatvpr_model -o where
 *     LD_LIBRARY_PATH=ARTIFACT/lib ./where ARTIFACT/weights.bin FRAME.ppm [MAP.placemap [K]]
 *
 * FRAME is a binary PPM (P6, 255). Without a map the descriptor's first values are printed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tatvpr.h>

static void fail(const char *what, const char *why) {
    fprintf(stderr, "where: %s: %s\n", what, why);
    exit(1);
}

static void check(const char *what, tatvpr_status status) {
    if (status != TATVPR_OK) {
        fail(what, tatvpr_status_text(status));
    }
}

static void *aligned(size_t bytes) {
    void *p = aligned_alloc(TATVPR_ARENA_ALIGN, (bytes / TATVPR_ARENA_ALIGN + 1) * TATVPR_ARENA_ALIGN);
    if (p == NULL) {
        fail("memory", strerror(ENOMEM));
    }
    return p;
}

static void *read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        fail(path, strerror(errno));
    }
    const long size = ftell(file);
    rewind(file);
    void *data = aligned((size_t)(size < 0 ? 0 : size));
    if (size < 0 || fread(data, 1, (size_t)size, file) != (size_t)size) {
        fail(path, "cannot be read");
    }
    fclose(file);
    *bytes = (size_t)size;
    return data;
}

/* A binary PPM as a frame; its pixels stay in the file's bytes. */
static tatvpr_frame read_ppm(const char *path) {
    size_t bytes = 0;
    char *data = read_file(path, &bytes);
    int width = 0, height = 0, highest = 0, header = 0;
    char text[64] = {0};
    memcpy(text, data, bytes < sizeof(text) - 1 ? bytes : sizeof(text) - 1);
    if (sscanf(text, "P6 %d %d %d%n", &width, &height, &highest, &header) != 3 || highest != 255 ||
        width < 1 || height < 1 ||
        bytes < (size_t)header + 1 + 3 * (size_t)width * (size_t)height) {
        fail(path, "no binary PPM (P6) with 8 bits and no comments");
    }
    tatvpr_frame frame = {0};
    frame.size = sizeof(frame);
    frame.format = TATVPR_RGB888;
    frame.width = width;
    frame.height = height;
    frame.planes[0] = (const uint8_t *)data + header + 1;
    frame.strides[0] = 3 * width;
    return frame;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: where WEIGHTS FRAME.ppm [MAP.placemap [K]]\n");
        return 2;
    }
    size_t blob_bytes = 0;
    void *blob = read_file(argv[1], &blob_bytes);
    const tatvpr_program *program = tatvpr_program_get();
    const size_t prepared_bytes = tatvpr_prepared_bytes(program, NULL);
    void *prepared = prepared_bytes > 0 ? aligned(prepared_bytes) : NULL;
    tatvpr_model model;
    check(argv[1], tatvpr_model_init(&model, program, blob, blob_bytes, NULL, prepared,
                                     prepared_bytes));
    if (prepared != NULL) {
        free(blob); /* the prepared copy is complete */
    }
    tatvpr_model_info info = {.size = sizeof(info)};
    check("model", tatvpr_model_get_info(program, &info));

    tatvpr_arena arena = {NULL, tatvpr_arena_bytes(&model, 1)};
    arena.base = aligned(arena.bytes);
    tatvpr_options options = {.size = sizeof(options), .k = 0.2f, .tokens = 1.0f};
    if (argc > 4) {
        options.k = strtof(argv[4], NULL);
    }
    const tatvpr_frame frame = read_ppm(argv[2]);
    float *descriptor = aligned((size_t)info.descriptor_size * sizeof(float));
    check(argv[2], tatvpr_describe(&model, arena, &frame, &options, descriptor));
    printf("%s: %d values with k = %g, beginning %.6f %.6f %.6f\n", info.name,
           info.descriptor_size, (double)options.k, (double)descriptor[0], (double)descriptor[1],
           (double)descriptor[2]);
    if (argc > 3) {
        size_t map_bytes = 0;
        const void *bytes = read_file(argv[3], &map_bytes);
        tatvpr_map map = {.size = sizeof(map)};
        check(argv[3], tatvpr_map_open(&map, bytes, map_bytes, &model));
        tatvpr_match best = {.size = sizeof(best)};
        int32_t found = 0;
        check(argv[3], tatvpr_map_search(&map, &model, descriptor, options.k, options.tokens,
                                         &best, 1, &found));
        printf("place %llu of %llu, score %.4f, at %.2f %.2f %.2f%s\n",
               (unsigned long long)best.place, (unsigned long long)map.places, (double)best.score,
               best.pose[0], best.pose[1], best.pose[2],
               best.accepted == 0 ? " (below the map's threshold)" : "");
    }
    return 0;
}
