/* Frames: checks, and rows of the pixel formats as RGB or gray (tatvpr_edge/spec/frames.py). */
#include "core.h"
#include "frame.h"

#define MOST_SIDE 32768 /* pixels; keeps every product below within 32 bits */

/* ---- layouts */

typedef struct layout {
    uint8_t planes;
    uint8_t bytes;  /* of a pixel in plane 0 */
    uint8_t chroma; /* planes with chroma: pixels that a byte of theirs stands for, across */
    uint8_t across; /* the width is a multiple of this */
    uint8_t down;   /* the height is */
    uint8_t bits;   /* of gray, else 0 */
} layout;

static const layout layouts[] = {
    [TATVPR_RGB888] = {1, 3, 0, 1, 1, 0}, [TATVPR_BGR888] = {1, 3, 0, 1, 1, 0},
    [TATVPR_GRAY8] = {1, 1, 0, 1, 1, 8},  [TATVPR_RGB565] = {1, 2, 0, 1, 1, 0},
    [TATVPR_YUV422] = {1, 2, 0, 2, 1, 0}, [TATVPR_NV12] = {2, 1, 1, 2, 2, 0},
    [TATVPR_RGBA] = {1, 4, 0, 1, 1, 0},   [TATVPR_BGRA] = {1, 4, 0, 1, 1, 0},
    [TATVPR_UYVY] = {1, 2, 0, 2, 1, 0},   [TATVPR_I420] = {3, 1, 2, 2, 2, 0},
    [TATVPR_NV21] = {2, 1, 1, 2, 2, 0},   [TATVPR_GRAY10] = {1, 2, 0, 1, 1, 10},
    [TATVPR_GRAY12] = {1, 2, 0, 1, 1, 12}, [TATVPR_GRAY16] = {1, 2, 0, 1, 1, 16},
};

/* Range and matrix by tatvpr_frame.yuv; all but `black` times 65536. */
typedef struct yuv_numbers {
    int32_t black, gain, rv, gu, gv, bu;
} yuv_numbers;

static const yuv_numbers yuv_of[4] = {
    {0, 65536, 91881, 22554, 46802, 116130},
    {16, 76309, 104597, 25675, 53279, 132201},
    {0, 65536, 103206, 12276, 30679, 121609},
    {16, 76309, 117489, 13975, 34925, 138438},
};

static uint32_t yuv_bits(const tatvpr_frame *frame) {
    const size_t known = offsetof(tatvpr_frame, yuv) + sizeof(frame->yuv);
    return frame->size < known ? 0u : frame->yuv; /* an older caller ends before it */
}

/* ---- checks */

static int plane_valid(const tatvpr_frame *frame, int plane, int32_t row_bytes) {
    const int64_t stride = frame->strides[plane];
    return frame->planes[plane] != NULL && (stride < 0 ? -stride : stride) >= row_bytes;
}

tatvpr_status tatvpr_frame_check(const tatvpr_frame *frame) {
    if (!tatvpr_sized(frame->size, offsetof(tatvpr_frame, strides) + sizeof(frame->strides))) {
        return TATVPR_ERR_ABI;
    }
    if (frame->format < TATVPR_RGB888 || frame->format > TATVPR_GRAY16) {
        return TATVPR_ERR_FORMAT;
    }
    if (frame->width < 1 || frame->height < 1) {
        return TATVPR_ERR_FRAME;
    }
    if (frame->width > MOST_SIDE || frame->height > MOST_SIDE) {
        return TATVPR_ERR_FRAME_TOO_LARGE;
    }
    const layout *of = &layouts[frame->format];
    if (frame->width % of->across != 0 || frame->height % of->down != 0) {
        return TATVPR_ERR_FORMAT;
    }
    /* every format with chroma shares it across, and no other asks for an even width */
    if (yuv_bits(frame) > (of->across == 2 ? 3u : 0u)) {
        return TATVPR_ERR_FORMAT;
    }
    if (!plane_valid(frame, 0, frame->width * of->bytes)) {
        return TATVPR_ERR_FRAME;
    }
    for (int plane = 1; plane < of->planes; plane++) {
        if (!plane_valid(frame, plane, frame->width / of->chroma)) {
            return TATVPR_ERR_FRAME;
        }
    }
    return TATVPR_OK;
}

int tatvpr_frame_converts(const tatvpr_frame *frame) {
    return frame->format > TATVPR_GRAY8;
}

int32_t tatvpr_frame_channels(const tatvpr_frame *frame) {
    return layouts[frame->format].bits != 0 ? 1 : 3;
}

/* ---- rows */

static const uint8_t *plane_row(const tatvpr_frame *frame, int plane, int32_t y) {
    return frame->planes[plane] + (ptrdiff_t)frame->strides[plane] * (ptrdiff_t)y;
}

static uint32_t word(const uint8_t *row, int32_t x) {
    return (uint32_t)row[2 * x] | (uint32_t)row[2 * x + 1] << 8;
}

static uint8_t clip_fixed(int32_t a) {
    return (uint8_t)(a < 0 ? 0 : (a >= 256 * 65536 ? 255 : a / 65536));
}

/* Where the bytes of a row's luma and chroma lie: luma `y_step` apart, chroma `c_step`. */
typedef struct yuv_row {
    const uint8_t *y, *u, *v;
    int32_t y_step, c_step;
} yuv_row;

static void convert_yuv(const yuv_row *row, const yuv_numbers *by, int32_t width, uint8_t *rgb) {
    for (int32_t x = 0; x < width; x++) {
        const int32_t base = by->gain * (row->y[x * row->y_step] - by->black) + 32768;
        const int32_t d = row->u[x / 2 * row->c_step] - 128;
        const int32_t e = row->v[x / 2 * row->c_step] - 128;
        rgb[3 * x] = clip_fixed(base + by->rv * e);
        rgb[3 * x + 1] = clip_fixed(base - by->gu * d - by->gv * e);
        rgb[3 * x + 2] = clip_fixed(base + by->bu * d);
    }
}

static void convert_rgb565(const uint8_t *row, int32_t width, uint8_t *rgb) {
    for (int32_t x = 0; x < width; x++) {
        const uint32_t p = word(row, x);
        const uint32_t r = p >> 11;
        const uint32_t g = p >> 5 & 63u;
        const uint32_t b = p & 31u;
        rgb[3 * x] = (uint8_t)(r << 3 | r >> 2);
        rgb[3 * x + 1] = (uint8_t)(g << 2 | g >> 4);
        rgb[3 * x + 2] = (uint8_t)(b << 3 | b >> 2);
    }
}

/* `red` is the place of red in a pixel of four bytes: 0 or 2. */
static void drop_fourth(const uint8_t *row, int32_t red, int32_t width, uint8_t *rgb) {
    for (int32_t x = 0; x < width; x++) {
        rgb[3 * x] = row[4 * x + red];
        rgb[3 * x + 1] = row[4 * x + 1];
        rgb[3 * x + 2] = row[4 * x + 2 - red];
    }
}

static void convert_gray(const uint8_t *row, uint32_t bits, int32_t width, uint8_t *gray) {
    const uint32_t most = (1u << bits) - 1u;
    for (int32_t x = 0; x < width; x++) {
        const uint32_t v = word(row, x);
        gray[x] = (uint8_t)((v > most ? most : v) >> (bits - 8u));
    }
}

const uint8_t *tatvpr_frame_row(const tatvpr_frame *frame, int32_t y, uint8_t *line) {
    const uint8_t *row = plane_row(frame, 0, y);
    const int32_t width = frame->width;
    yuv_row yuv = {row, NULL, NULL, 1, 2};
    switch (frame->format) {
    case TATVPR_RGB565: convert_rgb565(row, width, line); return line;
    case TATVPR_RGBA: drop_fourth(row, 0, width, line); return line;
    case TATVPR_BGRA: drop_fourth(row, 2, width, line); return line;
    case TATVPR_GRAY10:
    case TATVPR_GRAY12:
    case TATVPR_GRAY16: convert_gray(row, layouts[frame->format].bits, width, line); return line;
    case TATVPR_YUV422: yuv = (yuv_row){row, row + 1, row + 3, 2, 4}; break;
    case TATVPR_UYVY: yuv = (yuv_row){row + 1, row, row + 2, 2, 4}; break;
    case TATVPR_I420:
        yuv.u = plane_row(frame, 1, y / 2);
        yuv.v = plane_row(frame, 2, y / 2);
        yuv.c_step = 1;
        break;
    case TATVPR_NV12:
        yuv.u = plane_row(frame, 1, y / 2);
        yuv.v = yuv.u + 1;
        break;
    case TATVPR_NV21:
        yuv.v = plane_row(frame, 1, y / 2);
        yuv.u = yuv.v + 1;
        break;
    default: return row; /* RGB888, BGR888 (swapped at the end), GRAY8 (spread at the end) */
    }
    convert_yuv(&yuv, &yuv_of[yuv_bits(frame)], width, line);
    return line;
}
