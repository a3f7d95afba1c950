/* The squash of a frame to the model's square: Pillow's BILINEAR (antialiased triangle filter, 22-bit
 * fixed-point weights computed in double, bytes between the passes), equal to it byte for byte; the
 * lines of tatvpr_edge/spec/resize.py. Across first, except where a tall frame shrinks (as Pillow
 * 13): each pass rounds, so the order shows.
 *
 * Rows are streamed: the weights of one axis, one row, and three rows of sums are all the memory.
 */
#include "core.h"
#include "frame.h"

/* ---- weights of one output pixel */

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
        weights[x - low] = (int32_t)(0.5 + w * (double)(1 << TATVPR_SQUASH_BITS));
    }
    *first = low;
    return high - low;
}

/* ---- state */

typedef struct squash {
    const tatvpr_kernels *kernels;
    const tatvpr_frame *frame;
    int32_t side;
    int32_t channels;     /* 1 for gray until the end */
    int32_t down_first;   /* the vertical pass comes first */
    int32_t wide;         /* most weights of an output column */
    int32_t tall;         /* most weights of an output row */
    int32_t length;       /* bytes of a row of the vertical pass */
    int32_t *first;       /* [side]: first input column of an output column */
    int32_t *count;       /* [side] */
    int32_t *weights;     /* [side, wide] */
    int32_t *row_weights; /* [4, tall]: of the output rows in progress and the next */
    int32_t *sums;        /* [3, length]: of the output rows in progress */
    uint8_t *row;         /* [length]: an input row of the vertical pass, or an output row */
    uint8_t *line;        /* [width, channels], for converted formats only */
    uint8_t *pixels;      /* [side, side, 3] */
} squash;

typedef struct room_left {
    uint8_t *at;
    size_t bytes;
} room_left;

static void *take(room_left *room, size_t bytes) {
    bytes = tatvpr_round_up(bytes, 64);
    if (bytes > room->bytes) {
        return NULL;
    }
    uint8_t *taken = room->at;
    room->at += bytes;
    room->bytes -= bytes;
    return taken;
}

static int take_tables(squash *s, room_left room) {
    const size_t side = (size_t)s->side * sizeof(int32_t);
    const size_t length = (size_t)s->length;
    const size_t line = tatvpr_frame_converts(s->frame) ? (size_t)(s->frame->width * s->channels) : 0;
    s->first = (int32_t *)take(&room, side);
    s->count = (int32_t *)take(&room, side);
    s->weights = (int32_t *)take(&room, side * (size_t)s->wide);
    s->row_weights = (int32_t *)take(&room, 4 * (size_t)s->tall * sizeof(int32_t));
    s->sums = (int32_t *)take(&room, 3 * length * sizeof(int32_t));
    s->row = (uint8_t *)take(&room, length);
    s->line = (uint8_t *)take(&room, line);
    return s->first != NULL && s->count != NULL && s->weights != NULL && s->row_weights != NULL &&
           s->sums != NULL && s->row != NULL && s->line != NULL;
}

static uint8_t to_byte(int32_t sum) {
    const int32_t v = sum >> TATVPR_SQUASH_BITS; /* weights are not negative: nor are sums */
    return (uint8_t)(v > 255 ? 255 : v);
}

/* ---- across: one row of `width` pixels to `side` pixels */

static void across_gray(const squash *s, const uint8_t *row, uint8_t *out) {
    for (int32_t x = 0; x < s->side; x++) {
        const int32_t *w = s->weights + (ptrdiff_t)x * s->wide;
        const uint8_t *p = row + s->first[x];
        int32_t sum = 1 << (TATVPR_SQUASH_BITS - 1);
        for (int32_t i = 0; i < s->count[x]; i++) {
            sum += p[i] * w[i];
        }
        out[x] = to_byte(sum);
    }
}

static inline void one_column(const uint8_t *p, const int32_t *w, int32_t count, uint8_t *out) {
    int32_t r = 1 << (TATVPR_SQUASH_BITS - 1);
    int32_t g = r;
    int32_t b = r;
    for (int32_t i = 0; i < count; i++) {
        r += p[3 * i] * w[i];
        g += p[3 * i + 1] * w[i];
        b += p[3 * i + 2] * w[i];
    }
    out[0] = to_byte(r);
    out[1] = to_byte(g);
    out[2] = to_byte(b);
}

#if defined(TATVPR_WIDE)
void tatvpr_squash_column(const tatvpr_squash_columns *c, const uint8_t *row, int32_t x,
                          uint8_t *out) {
    one_column(row + (ptrdiff_t)3 * c->first[x], c->weights + (ptrdiff_t)x * c->stride,
               c->count[x], out);
}
#endif

static void across(const squash *s, const uint8_t *row, uint8_t *out) {
    if (s->channels == 1) {
        across_gray(s, row, out);
        return;
    }
#if defined(TATVPR_WIDE)
    if (s->kernels->squash_across != NULL) {
        const tatvpr_squash_columns c = {s->frame->width, s->side,  s->wide,
                                         s->first,        s->count, s->weights};
        s->kernels->squash_across(&c, row, out);
        return;
    }
#endif
    for (int32_t x = 0; x < s->side; x++) {
        one_column(row + (ptrdiff_t)3 * s->first[x], s->weights + (ptrdiff_t)x * s->wide,
                   s->count[x], out + 3 * x);
    }
}

/* ---- down: what goes in and what comes out of the vertical pass */

static const uint8_t *read_row(const squash *s, int32_t y, uint8_t *to) {
    const uint8_t *row = tatvpr_frame_row(s->frame, y, s->line);
    if (s->down_first) {
        return row;
    }
    across(s, row, to);
    return to;
}

/* Gray is spread to three channels, BGR swapped. */
static void write_pixels(const squash *s, int32_t j, const uint8_t *row /* [side, channels] */) {
    uint8_t *out = s->pixels + (ptrdiff_t)j * s->side * 3;
    const int swap = s->frame->format == TATVPR_BGR888;
#if defined(TATVPR_WIDE)
    if (s->channels == 3 && !swap) {
        tatvpr_copy(out, row, (size_t)s->side * 3);
        return;
    }
#endif
    for (int32_t x = 0; x < s->side; x++) {
        for (int32_t c = 0; c < 3; c++) {
            out[3 * x + c] = row[s->channels == 1 ? x : 3 * x + (swap ? 2 - c : c)];
        }
    }
}

static void to_bytes(const squash *s, int32_t *sums, uint8_t *bytes) {
#if defined(TATVPR_WIDE)
    if (s->kernels->squash_bytes != NULL) {
        s->kernels->squash_bytes(sums, s->length, bytes);
        return;
    }
#endif
    for (int32_t i = 0; i < s->length; i++) { /* byte i never lies beyond sum i */
        const uint8_t v = to_byte(sums[i]);
        bytes[i] = v;
    }
}

/* The sums of output row `j` are complete; they are overwritten. */
static void finish_row(const squash *s, int32_t j, int32_t *sums) {
    uint8_t *bytes = (uint8_t *)sums;
    to_bytes(s, sums, bytes);
    if (s->down_first) {
        uint8_t *squashed = s->row; /* free: rows are read in place or from the line */
        across(s, bytes, squashed);
        bytes = squashed;
    }
    write_pixels(s, j, bytes);
}

static void start_row(int32_t *sums, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        sums[i] = 1 << (TATVPR_SQUASH_BITS - 1);
    }
}

static void add_row(const squash *s, int32_t *sums, const uint8_t *row, int32_t weight) {
#if defined(TATVPR_WIDE)
    if (s->kernels->squash_add != NULL) {
        s->kernels->squash_add(sums, row, weight, s->length);
        return;
    }
#endif
    for (int32_t i = 0; i < s->length; i++) {
        sums[i] += row[i] * weight;
    }
}

/* At least as many input rows as output rows: every input row is read once and added to the one
 * to three output rows that it belongs to. */
static void shrink_down(const squash *s) {
    const int32_t height = s->frame->height;
    int32_t first[4] = {0, 0, 0, 0};
    int32_t count[4] = {0, 0, 0, 0};
    int32_t oldest = 0;  /* first output row not yet written */
    int32_t started = 0; /* output rows begun so far */
    int32_t next_first = 0;
    int32_t next_count = pixel_weights(height, s->side, 0, &next_first, s->row_weights);
    for (int32_t y = 0; y < height; y++) {
        const uint8_t *row = read_row(s, y, s->row);
        while (started < s->side && next_first <= y) {
            first[started % 4] = next_first;
            count[started % 4] = next_count;
            start_row(s->sums + (ptrdiff_t)(started % 3) * s->length, s->length);
            started++;
            if (started < s->side) {
                next_count = pixel_weights(height, s->side, started, &next_first,
                                           s->row_weights + (ptrdiff_t)(started % 4) * s->tall);
            }
        }
        const int32_t done = oldest;
        for (int32_t j = done; j < started; j++) {
            int32_t *sums = s->sums + (ptrdiff_t)(j % 3) * s->length;
            const int32_t i = y - first[j % 4];
            if (i < count[j % 4]) {
                add_row(s, sums, row, s->row_weights[(ptrdiff_t)(j % 4) * s->tall + i]);
            }
        }
        while (oldest < started && y + 1 >= first[oldest % 4] + count[oldest % 4]) {
            finish_row(s, oldest, s->sums + (ptrdiff_t)(oldest % 3) * s->length);
            oldest++;
        }
    }
}

/* More output rows than input rows: an output row needs at most three input rows, kept in a ring
 * of four (in the memory of the other two rows of sums, which are free here). */
static void grow_down(const squash *s) {
    uint8_t *ring = (uint8_t *)(s->sums + s->length);
    int32_t loaded = 0;
    for (int32_t j = 0; j < s->side; j++) {
        int32_t first = 0;
        const int32_t count = pixel_weights(s->frame->height, s->side, j, &first, s->row_weights);
        for (; loaded < first + count; loaded++) {
            uint8_t *to = ring + (ptrdiff_t)(loaded % 4) * s->length;
            (void)read_row(s, loaded, to); /* never down_first: the frame does not shrink */
        }
        start_row(s->sums, s->length);
        for (int32_t i = 0; i < count; i++) {
            add_row(s, s->sums, ring + (ptrdiff_t)((first + i) % 4) * s->length,
                    s->row_weights[i]);
        }
        finish_row(s, j, s->sums);
    }
}

tatvpr_status tatvpr_frame_squash(const tatvpr_kernels *kernels, const tatvpr_frame *frame,
                                  int32_t side, uint8_t *pixels, uint8_t *room,
                                  size_t room_bytes) {
    squash s;
    s.kernels = kernels;
    const room_left all = {room, room_bytes};
    s.frame = frame;
    s.side = side;
    s.channels = tatvpr_frame_channels(frame);
    s.pixels = pixels;
    if (frame->width == side && frame->height == side && !tatvpr_frame_converts(frame)) {
        for (int32_t y = 0; y < side; y++) { /* both passes would be the identity */
            write_pixels(&s, y, tatvpr_frame_row(frame, y, NULL));
        }
        return TATVPR_OK;
    }
    s.down_first = frame->height - side > tatvpr_max_i32(2 * (frame->width - side), 0);
    s.wide = most_weights(frame->width, side);
    s.tall = most_weights(frame->height, side);
    s.length = (s.down_first ? tatvpr_max_i32(frame->width, side) : side) * s.channels;
    if (!take_tables(&s, all)) {
        return TATVPR_ERR_FRAME_TOO_LARGE;
    }
    if (s.down_first) {
        s.length = frame->width * s.channels;
    }
    for (int32_t x = 0; x < side; x++) {
        s.count[x] = pixel_weights(frame->width, side, x, &s.first[x],
                                   s.weights + (ptrdiff_t)x * s.wide);
    }
    if (frame->height >= side) {
        shrink_down(&s);
    } else {
        grow_down(&s);
    }
    return TATVPR_OK;
}
