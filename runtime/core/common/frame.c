/* Frames: checks, pixel formats, and the squash to the model's square.
 *
 * The resize is Pillow's BILINEAR (antialiased triangle filter, 22-bit fixed-point weights computed
 * in double, rows first, bytes between the two passes), equal to it byte for byte. Rows are
 * streamed: one converted row, the horizontal weights and three rows of sums are all the memory.
 * Colours: docs/numerics.md (YUV is BT.601, limited range).
 */
#include "core.h"

#define PRECISION_BITS 22
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

static uint8_t clip_byte(int32_t x) { return (uint8_t)(x < 0 ? 0 : (x > 255 ? 255 : x)); }

/* BT.601, limited range, 8-bit fixed point: the usual integer form. */
static void yuv_pixel(int32_t y, int32_t u, int32_t v, uint8_t *rgb) {
    const int32_t c = 298 * (y - 16) + 128;
    const int32_t d = u - 128;
    const int32_t e = v - 128;
    rgb[0] = clip_byte((c + 409 * e) / 256);
    rgb[1] = clip_byte((c - 100 * d - 208 * e) / 256);
    rgb[2] = clip_byte((c + 516 * d) / 256);
}

/* Row `y` as bytes, 3 a pixel (1 for gray): in place where the format allows, else in `line`. */
static const uint8_t *read_row(const tatvpr_frame *frame, int32_t y, uint8_t *line) {
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

/* ---- weights of one output pixel, as Pillow's precompute_coeffs and normalize_coeffs_8bpc */

static double filter_support(int32_t in, int32_t out) {
    const double scale = (double)in / (double)out;
    return scale < 1.0 ? 1.0 : scale;
}

static int32_t most_weights(int32_t in, int32_t out) {
    const double support = filter_support(in, out);
    int32_t ceiling = (int32_t)support;
    if ((double)ceiling < support) {
        ceiling++;
    }
    return ceiling * 2 + 1;
}

static double triangle(double x) {
    const double a = x < 0.0 ? -x : x;
    return a < 1.0 ? 1.0 - a : 0.0;
}

/* Fills `weights`, answers the first input pixel in *first and how many there are. */
static int32_t pixel_weights(int32_t in, int32_t out, int32_t index, int32_t *first,
                             int32_t *weights) {
    const double scale = (double)in / (double)out;
    const double support = filter_support(in, out);
    const double inverse = 1.0 / support;
    const double center = ((double)index + 0.5) * scale;
    int32_t low = (int32_t)(center - support + 0.5);
    int32_t high = (int32_t)(center + support + 0.5);
    low = tatvpr_max_i32(low, 0);
    high = tatvpr_min_i32(high, in);
    double total = 0.0;
    for (int32_t x = low; x < high; x++) {
        total += triangle(((double)(x - low) + (double)low - center + 0.5) * inverse);
    }
    for (int32_t x = low; x < high; x++) {
        double w = triangle(((double)(x - low) + (double)low - center + 0.5) * inverse);
        if (total != 0.0) {
            w /= total;
        }
        weights[x - low] = (int32_t)(0.5 + w * (double)(1 << PRECISION_BITS));
    }
    *first = low;
    return high - low;
}

/* ---- the two passes */

typedef struct squash {
    const tatvpr_frame *frame;
    int32_t side;
    int32_t channels;    /* 1 for gray until the end */
    int32_t wide;        /* most weights of an output column */
    int32_t tall;        /* most weights of an output row */
    int32_t *first;      /* [side]: first input column of an output column */
    int32_t *count;      /* [side] */
    int32_t *weights;    /* [side, wide] */
    int32_t *row_weights; /* [4, tall]: of the output rows in progress and the next */
    int32_t *sums;       /* [3, side * channels]: of the output rows in progress */
    uint8_t *row;        /* [side * channels]: an input row, squashed */
    uint8_t *line;       /* [width * 3], for converted formats only */
    uint8_t *pixels;     /* [side, side, 3] */
} squash;

static int32_t *take_ints(uint8_t **room, size_t *left, size_t count) {
    const size_t bytes = tatvpr_round_up(count * sizeof(int32_t), 64);
    if (bytes > *left) {
        return NULL;
    }
    int32_t *taken = (int32_t *)(void *)*room;
    *room += bytes;
    *left -= bytes;
    return taken;
}

static int take_tables(squash *s, uint8_t *room, size_t left) {
    const size_t side = (size_t)s->side;
    const size_t row = side * (size_t)s->channels;
    s->first = take_ints(&room, &left, side);
    s->count = take_ints(&room, &left, side);
    s->weights = take_ints(&room, &left, side * (size_t)s->wide);
    s->row_weights = take_ints(&room, &left, 4 * (size_t)s->tall);
    s->sums = take_ints(&room, &left, 3 * row);
    s->row = (uint8_t *)take_ints(&room, &left, (row + 3) / 4);
    const uint32_t format = s->frame->format;
    const int converted =
        format == TATVPR_RGB565 || format == TATVPR_YUV422 || format == TATVPR_NV12;
    const size_t line = converted ? (size_t)s->frame->width * 3 : 0;
    s->line = (uint8_t *)take_ints(&room, &left, (line + 3) / 4);
    return s->first != NULL && s->count != NULL && s->weights != NULL && s->row_weights != NULL &&
           s->sums != NULL && s->row != NULL && s->line != NULL;
}

/* Input row `y`, squashed to `side` pixels. */
static void horizontal(const squash *s, int32_t y, uint8_t *out) {
    const uint8_t *row = read_row(s->frame, y, s->line);
    for (int32_t x = 0; x < s->side; x++) {
        const int32_t *w = s->weights + (ptrdiff_t)x * s->wide;
        const int32_t n = s->count[x];
        if (s->channels == 1) {
            const uint8_t *p = row + s->first[x];
            int32_t sum = 1 << (PRECISION_BITS - 1);
            for (int32_t i = 0; i < n; i++) {
                sum += p[i] * w[i];
            }
            out[x] = clip_byte(sum >> PRECISION_BITS);
            continue;
        }
        const uint8_t *p = row + (ptrdiff_t)3 * s->first[x];
        int32_t r = 1 << (PRECISION_BITS - 1);
        int32_t g = r;
        int32_t b = r;
        for (int32_t i = 0; i < n; i++) {
            r += p[3 * i] * w[i];
            g += p[3 * i + 1] * w[i];
            b += p[3 * i + 2] * w[i];
        }
        out[3 * x] = clip_byte(r >> PRECISION_BITS);
        out[3 * x + 1] = clip_byte(g >> PRECISION_BITS);
        out[3 * x + 2] = clip_byte(b >> PRECISION_BITS);
    }
}

/* Sums of one output row to its pixels: gray is spread, BGR swapped. */
static void write_row(const squash *s, int32_t j, const int32_t *sums) {
    uint8_t *out = s->pixels + (ptrdiff_t)j * s->side * 3;
    const int swap = s->frame->format == TATVPR_BGR888;
    for (int32_t x = 0; x < s->side; x++) {
        for (int32_t c = 0; c < 3; c++) {
            const int32_t from = s->channels == 1 ? x : 3 * x + (swap ? 2 - c : c);
            out[3 * x + c] = clip_byte(sums[from] >> PRECISION_BITS);
        }
    }
}

static void add_row(int32_t *sums, const uint8_t *row, int32_t weight, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        sums[i] += row[i] * weight;
    }
}

static void start_row(int32_t *sums, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        sums[i] = 1 << (PRECISION_BITS - 1);
    }
}

/* At least as many input rows as output rows: every input row is read once and added to the one
 * to three output rows that it belongs to. */
static void vertical_down(const squash *s) {
    const int32_t row_bytes = s->side * s->channels;
    int32_t first[4] = {0, 0, 0, 0};
    int32_t count[4] = {0, 0, 0, 0};
    int32_t oldest = 0;  /* first output row not yet written */
    int32_t started = 0; /* output rows begun so far */
    int32_t next_first = 0;
    int32_t next_count = pixel_weights(s->frame->height, s->side, 0, &next_first, s->row_weights);
    for (int32_t y = 0; y < s->frame->height; y++) {
        horizontal(s, y, s->row);
        while (started < s->side && next_first <= y) {
            first[started % 4] = next_first;
            count[started % 4] = next_count;
            start_row(s->sums + (ptrdiff_t)(started % 3) * row_bytes, row_bytes);
            started++;
            if (started < s->side) {
                next_count = pixel_weights(s->frame->height, s->side, started, &next_first,
                                           s->row_weights + (ptrdiff_t)(started % 4) * s->tall);
            }
        }
        for (int32_t j = oldest; j < started; j++) {
            int32_t *sums = s->sums + (ptrdiff_t)(j % 3) * row_bytes;
            const int32_t i = y - first[j % 4];
            if (i < count[j % 4]) {
                add_row(sums, s->row, s->row_weights[(ptrdiff_t)(j % 4) * s->tall + i], row_bytes);
            }
            if (i + 1 >= count[j % 4] && j == oldest) {
                write_row(s, j, sums);
                oldest++;
            }
        }
    }
}

/* More output rows than input rows: an output row needs at most three input rows, kept in a ring
 * (in the memory of the sums, whose other two rows are free here). */
static void vertical_up(const squash *s) {
    const int32_t row_bytes = s->side * s->channels;
    uint8_t *ring = (uint8_t *)(s->sums + row_bytes); /* 8 bytes a sum: room for 4 rows */
    int32_t loaded = 0;
    for (int32_t j = 0; j < s->side; j++) {
        int32_t first = 0;
        const int32_t count =
            pixel_weights(s->frame->height, s->side, j, &first, s->row_weights);
        for (; loaded < first + count; loaded++) {
            horizontal(s, loaded, ring + (ptrdiff_t)(loaded % 4) * row_bytes);
        }
        start_row(s->sums, row_bytes);
        for (int32_t i = 0; i < count; i++) {
            add_row(s->sums, ring + (ptrdiff_t)((first + i) % 4) * row_bytes, s->row_weights[i],
                    row_bytes);
        }
        write_row(s, j, s->sums);
    }
}

tatvpr_status tatvpr_frame_squash(const tatvpr_frame *frame, int32_t side, uint8_t *pixels,
                                  uint8_t *room, size_t room_bytes) {
    squash s;
    s.frame = frame;
    s.side = side;
    s.channels = frame->format == TATVPR_GRAY8 ? 1 : 3;
    s.wide = most_weights(frame->width, side);
    s.tall = most_weights(frame->height, side);
    s.pixels = pixels;
    if (!take_tables(&s, room, room_bytes)) {
        return TATVPR_ERR_FRAME_TOO_LARGE;
    }
    for (int32_t x = 0; x < side; x++) {
        s.count[x] = pixel_weights(frame->width, side, x, &s.first[x],
                                   s.weights + (ptrdiff_t)x * s.wide);
    }
    if (frame->height >= side) {
        vertical_down(&s);
    } else {
        vertical_up(&s);
    }
    return TATVPR_OK;
}
