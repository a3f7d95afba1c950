/* Frame in, place out, no Python: the public C interface on Linux.
 *
 *     export PKG_CONFIG_PATH=ARTIFACT/lib/pkgconfig
 *     cc -O2 linux_main.c $(pkg-config --cflags --libs tatvpr) -o where
 *     ./where ARTIFACT/weights.bin FRAME.ppm [MAP.placemap [K]]
 *
 * FRAME is a binary PPM (P6, 255). Without a map the descriptor's first values are printed.
 */
#include <ctype.h>

#include "example.h"

/* A binary PPM as a frame; its pixels stay in the file's bytes. */
static tatvpr_frame read_ppm(const char *path) {
    size_t bytes = 0;
    char *data = read_file(path, &bytes);
    int width = 0, height = 0, highest = 0, header = 0;
    char text[64] = {0};
    memcpy(text, data, bytes < sizeof(text) - 1 ? bytes : sizeof(text) - 1);
    if (sscanf(text, "P6 %9d %9d %3d%n", &width, &height, &highest, &header) != 3 ||
        highest != 255 || !isspace((unsigned char)text[header]) || width < 1 || height < 1 ||
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
    const tatvpr_model model = load_model(argv[1]);
    tatvpr_model_info info = {.size = sizeof(info)};
    check("model", tatvpr_model_get_info(model.program, &info));
    const tatvpr_arena arena = make_arena(&model);
    tatvpr_options options = {.size = sizeof(options), .k = 0.2f, .tokens = 1.0f};
    if (argc > 4) {
        options.k = (float)number(argv[4]);
    }
    const tatvpr_frame frame = read_ppm(argv[2]);
    float *descriptor = aligned((size_t)info.descriptor_size * sizeof(float));
    check(argv[2], tatvpr_describe(&model, arena, &frame, &options, descriptor));
    printf("%s: %d values with k = %g, beginning %.6f %.6f %.6f\n", info.name,
           info.descriptor_size, (double)options.k, (double)descriptor[0], (double)descriptor[1],
           (double)descriptor[2]);
    if (argc > 3) {
        const place_map map = load_map(argv[3], &model);
        tatvpr_match best = {.size = sizeof(best)};
        int32_t found = 0;
        check(argv[3], tatvpr_journal_search(&map.base, added_to(&map), &model, descriptor,
                                             options.k, options.tokens, &best, 1, &found));
        print_place(&map, &best);
    }
    return 0;
}

