/* Frames of every format, size, stride and direction, from planes of exactly the size that the
 * frame states: refused by name, or squashed to the same bytes by every variant of the kernels. */
#include "fuzz.h"

/* Planes and sides as small as every loop of the kernels allows: whole vectors, several, a rest. */
enum { NUMBERS = 22, MOST_BYTES = 1 << 13, MOST_SIDE = 40 };

static int32_t word(const uint8_t *p) { return (int32_t)(p[0] | (uint32_t)p[1] << 8); }

/* Bytes of a row of a plane and rows of it, as tatvpr.h states each format. */
static void plane_size(const tatvpr_frame *f, int plane, int64_t *row_bytes, int64_t *rows) {
    static const uint8_t pixel[] = {
        [TATVPR_RGB888] = 3, [TATVPR_BGR888] = 3, [TATVPR_GRAY8] = 1,  [TATVPR_RGB565] = 2,
        [TATVPR_YUV422] = 2, [TATVPR_NV12] = 1,   [TATVPR_RGBA] = 4,   [TATVPR_BGRA] = 4,
        [TATVPR_UYVY] = 2,   [TATVPR_I420] = 1,   [TATVPR_NV21] = 1,   [TATVPR_GRAY10] = 2,
        [TATVPR_GRAY12] = 2, [TATVPR_GRAY16] = 2,
    };
    *row_bytes = plane == 0 ? (int64_t)f->width * pixel[f->format]
                            : (f->format == TATVPR_I420 ? f->width / 2 : f->width);
    *rows = plane == 0 ? f->height : f->height / 2;
}

static int planes_of(const tatvpr_frame *f) {
    return f->format == TATVPR_I420 ? 3
           : f->format == TATVPR_NV12 || f->format == TATVPR_NV21 ? 2
                                                                  : 1;
}

/* Whether an earlier variant squashes by the same functions. */
static int seen_before(size_t index) {
#if defined(TATVPR_WIDE)
    const tatvpr_kernels *this = fuzz_usable(index);
    for (size_t i = 0; i < index; i++) {
        const tatvpr_kernels *other = fuzz_usable(i);
        if (this->squash_across == other->squash_across && this->squash_add == other->squash_add &&
            this->squash_bytes == other->squash_bytes) {
            return 1;
        }
    }
    return 0;
#else
    return index > 0;
#endif
}

/* Free memory of a squash: up to 1 MB, seldom more than 120 kB, which is enough for most frames:
 * telling AddressSanitizer of more takes longer than the squash. */
static size_t room_of(int32_t number) {
    return (size_t)(number < 0xF000 ? number % 0x1E00 : number) * 16;
}

static void squash(const tatvpr_frame *frame, int32_t side, size_t room_bytes) {
    const size_t pixel_bytes = (size_t)side * (size_t)side * 3;
    uint8_t *first = NULL;
    for (size_t i = 0; fuzz_usable(i) != NULL; i++) {
        if (seen_before(i)) {
            continue;
        }
        uint8_t *pixels = fuzz_memory(pixel_bytes);
        uint8_t *room = fuzz_large(room_bytes);
        memset(pixels, 0, pixel_bytes);
        const tatvpr_status status =
            tatvpr_frame_squash(fuzz_usable(i), frame, side, pixels, room, room_bytes);
        MUST(status == TATVPR_OK || status == TATVPR_ERR_FRAME_TOO_LARGE);
        fuzz_large_free(room, room_bytes);
        if (first == NULL) {
            first = pixels;
        } else {
            MUST(memcmp(first, pixels, pixel_bytes) == 0);
            free(pixels);
        }
    }
    free(first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < NUMBERS) {
        return 0;
    }
    tatvpr_frame frame;
    memset(&frame, 0, sizeof(frame));
    frame.size = sizeof(frame);
    frame.format = data[0] % 18u;
    frame.yuv = data[1] % 6u;
    frame.width = word(data + 2);
    frame.height = word(data + 4);
    const int32_t side = 1 + data[6] % MOST_SIDE;
    const size_t room_bytes = room_of(word(data + 7));
    const uint8_t turned = data[9], missing = data[10];
    uint8_t *planes[3] = {NULL, NULL, NULL};
    const int known = frame.format >= TATVPR_RGB888 && frame.format <= TATVPR_GRAY16;
    for (int p = 0; p < 3; p++) { /* strides: what the row takes and some more, or anything */
        int64_t row_bytes = 1, rows = 1;
        if (known) {
            plane_size(&frame, p, &row_bytes, &rows);
        }
        const uint8_t *at = data + 11 + 3 * p;
        int64_t stride = at[0] & 1 ? word(at + 1) : row_bytes + word(at + 1) % 64;
        const int64_t bytes = rows < 1 ? 0 : (rows - 1) * stride + row_bytes;
        frame.strides[p] = (int32_t)(turned >> p & 1 ? -stride : stride);
        if (bytes > MOST_BYTES) {
            for (int q = 0; q < p; q++) {
                free(planes[q]);
            }
            return 0;
        }
        planes[p] = fuzz_pattern(data + NUMBERS, size - NUMBERS, (size_t)bytes);
        frame.planes[p] = planes[p] + (turned >> p & 1 && rows > 0 ? (rows - 1) * stride : 0);
        if (missing >> p & 1) {
            frame.planes[p] = NULL;
        }
    }
    const tatvpr_status status = tatvpr_frame_check(&frame);
    if (status == TATVPR_OK) {
        MUST(known && frame.width > 0 && frame.height > 0);
        for (int p = 0; p < planes_of(&frame); p++) {
            MUST(frame.planes[p] != NULL);
        }
        squash(&frame, side, room_bytes);
    }
    for (int p = 0; p < 3; p++) {
        free(planes[p]);
    }
    return 0;
}
