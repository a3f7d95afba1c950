/* Frames: checks, and rows of the six pixel formats as RGB bytes (tatvpr_edge/spec/frames.py). */
#include "core.h"
#include "frame.h"

#define MOST_SIDE 32768 /* pixels; keeps every product below within 32 bits */

static int32_t bytes_per_pixel(uint32_t format) {
    switch (format) {
    case TATVPR_RGB888:
    case TATVPR_BGR888: return 3;
    case TATVPR_RGB565:
    case TATVPR_YUV422: return 2;
    default: return 1;
    }
}

static int plane_valid(const tatvpr_frame *frame, int plane, int32_t row_bytes) {
    const int64_t stride = frame->strides[plane];
    return frame->planes[plane] != NULL && (stride < 0 ? -stride : stride) >= row_bytes;
}

tatvpr_status tatvpr_frame_check(const tatvpr_frame *frame) {
    if (frame->size < offsetof(tatvpr_frame, strides) + sizeof(frame->strides)) {
        return TATVPR_ERR_ABI;
    }
    if (frame->format < TATVPR_RGB888 || frame->format > TATVPR_NV12) {
        return TATVPR_ERR_FORMAT;
    }
    if (frame->width < 1 || frame->height < 1) {
        return TATVPR_ERR_FRAME;
    }
    if (frame->width > MOST_SIDE || frame->height > MOST_SIDE) {
        return TATVPR_ERR_FRAME_TOO_LARGE;
    }
    if ((frame->format == TATVPR_YUV422 && frame->width % 2 != 0) ||
        (frame->format == TATVPR_NV12 && (frame->width % 2 != 0 || frame->height % 2 != 0))) {
        return TATVPR_ERR_FORMAT;
    }
    if (!plane_valid(frame, 0, frame->width * bytes_per_pixel(frame->format)) ||
        (frame->format == TATVPR_NV12 && !plane_valid(frame, 1, frame->width))) {
        return TATVPR_ERR_FRAME;
    }
    return TATVPR_OK;
}

static const uint8_t *plane_row(const tatvpr_frame *frame, int plane, int32_t y) {
    return frame->planes[plane] + (ptrdiff_t)frame->strides[plane] * (ptrdiff_t)y;
}

/* BT.601 full range (ITU-T T.871) with 16 fractional bits. */
static uint8_t clip_fixed(int32_t a) {
    return (uint8_t)(a < 0 ? 0 : (a >= 256 * 65536 ? 255 : a / 65536));
}

static void yuv_pixel(int32_t y, int32_t u, int32_t v, uint8_t *rgb) {
    const int32_t base = 65536 * y + 32768;
    const int32_t d = u - 128;
    const int32_t e = v - 128;
    rgb[0] = clip_fixed(base + 91881 * e);
    rgb[1] = clip_fixed(base - 22554 * d - 46802 * e);
    rgb[2] = clip_fixed(base + 116130 * d);
}

int tatvpr_frame_converts(const tatvpr_frame *frame) {
    return frame->format == TATVPR_RGB565 || frame->format == TATVPR_YUV422 ||
           frame->format == TATVPR_NV12;
}

const uint8_t *tatvpr_frame_row(const tatvpr_frame *frame, int32_t y, uint8_t *line) {
    const uint8_t *row = plane_row(frame, 0, y);
    switch (frame->format) {
    case TATVPR_RGB565:
        for (int32_t x = 0; x < frame->width; x++) {
            const uint32_t p = (uint32_t)row[2 * x] | (uint32_t)row[2 * x + 1] << 8;
            const uint32_t r = p >> 11;
            const uint32_t g = p >> 5 & 63u;
            const uint32_t b = p & 31u;
            line[3 * x] = (uint8_t)(r << 3 | r >> 2);
            line[3 * x + 1] = (uint8_t)(g << 2 | g >> 4);
            line[3 * x + 2] = (uint8_t)(b << 3 | b >> 2);
        }
        return line;
    case TATVPR_YUV422:
        for (int32_t x = 0; x < frame->width; x++) {
            const uint8_t *pair = row + 4 * (x / 2);
            yuv_pixel(pair[2 * (x % 2)], pair[1], pair[3], line + 3 * x);
        }
        return line;
    case TATVPR_NV12: {
        const uint8_t *uv = plane_row(frame, 1, y / 2);
        for (int32_t x = 0; x < frame->width; x++) {
            yuv_pixel(row[x], uv[x / 2 * 2], uv[x / 2 * 2 + 1], line + 3 * x);
        }
        return line;
    }
    default: return row; /* RGB888, BGR888 (swapped at the end), GRAY8 (spread at the end) */
    }
}
