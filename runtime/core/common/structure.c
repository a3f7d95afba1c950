/* Whether a frame shows anything: brightness averaged over cells, which takes noise away, less the
 * smooth surface nearest to it, which takes vignetting and the glow around a finger away.
 *
 * The surface is a polynomial of degree 4. Over evenly spaced cells the products of Gram's
 * polynomials, which are whole numbers, are at right angles, so that what each of them explains is
 * one product, and every sum is exact. */
#include "core.h"
#include "floats.h"

enum { CELLS = 16, SAMPLES = 8, SIDE = CELLS * SAMPLES, DEGREES = 5 };

/* Gram's polynomials over 16 points, and the sums of their squares. */
static const int16_t gram[DEGREES][CELLS] = {
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {-15, -13, -11, -9, -7, -5, -3, -1, 1, 3, 5, 7, 9, 11, 13, 15},
    {35, 21, 9, -1, -9, -15, -19, -21, -21, -19, -15, -9, -1, 9, 21, 35},
    {-455, -91, 143, 267, 301, 265, 179, 63, -63, -179, -265, -301, -267, -143, 91, 455},
    {273, -91, -221, -201, -101, 23, 129, 189, 189, 129, 23, -101, -201, -221, -91, 273},
};
static const double squares[DEGREES] = {16.0, 1360.0, 5712.0, 1007760.0, 470288.0};

/* Where a pixel's brightness lies in its bytes: luma, else green. */
typedef struct light {
    uint8_t bytes; /* of a pixel in the first plane */
    uint8_t first; /* the byte to take */
    uint8_t bits;  /* of a word of two bytes; 0: one byte is all of it */
} light;

static const light lights[] = {
    [TATVPR_RGB888] = {3, 1, 0}, [TATVPR_BGR888] = {3, 1, 0},  [TATVPR_GRAY8] = {1, 0, 0},
    [TATVPR_RGB565] = {2, 0, 6}, [TATVPR_YUV422] = {2, 0, 0},  [TATVPR_NV12] = {1, 0, 0},
    [TATVPR_RGBA] = {4, 1, 0},   [TATVPR_BGRA] = {4, 1, 0},    [TATVPR_UYVY] = {2, 1, 0},
    [TATVPR_I420] = {1, 0, 0},   [TATVPR_NV21] = {1, 0, 0},    [TATVPR_GRAY10] = {2, 0, 10},
    [TATVPR_GRAY12] = {2, 0, 12}, [TATVPR_GRAY16] = {2, 0, 16},
};

/* Sample `i` of SIDE, evenly over 0 .. size - 1; small frames repeat some. */
static int32_t sample(int32_t i, int32_t size) { return (2 * i + 1) * size / (2 * SIDE); }

static uint32_t of_word(const uint8_t *p, uint32_t bits) {
    const uint32_t word = (uint32_t)p[0] | (uint32_t)p[1] << 8;
    if (bits == 6) { /* RGB565: green stands in the middle */
        return (word >> 5 & 63u) << 2;
    }
    const uint32_t most = (1u << bits) - 1u;
    return (word > most ? most : word) >> (bits - 8u);
}

/* One row of cells: the sums of SAMPLES x SAMPLES samples each; `at`: bytes from the begin of a row to
 * each sample of it. */
static void cells_of(const tatvpr_frame *frame, int32_t row, const int32_t *at, int32_t *cells) {
    const uint32_t bits = lights[frame->format].bits;
    const uint8_t *lines[SAMPLES];
    for (int32_t i = 0; i < SAMPLES; i++) {
        const ptrdiff_t line = sample(row * SAMPLES + i, frame->height);
        lines[i] = frame->planes[0] + line * frame->strides[0];
    }
    for (int32_t c = 0; c < CELLS; c++) {
        uint32_t sum = 0;
        for (int32_t x = c * SAMPLES; x < (c + 1) * SAMPLES; x++) {
            for (int32_t i = 0; i < SAMPLES; i++) {
                const uint8_t *p = lines[i] + at[x];
                sum += bits == 0 ? *p : of_word(p, bits);
            }
        }
        cells[c] = (int32_t)sum;
    }
}

tatvpr_status tatvpr_frame_structure(const tatvpr_frame *frame, float *levels) {
    if (frame == NULL || levels == NULL) {
        return TATVPR_ERR_NULL;
    }
    const tatvpr_status status = tatvpr_frame_check(frame);
    if (status != TATVPR_OK) {
        return status;
    }
    const light *of = &lights[frame->format];
    int32_t at[SIDE];
    for (int32_t x = 0; x < SIDE; x++) {
        at[x] = sample(x, frame->width) * of->bytes + of->first;
    }
    int64_t total = 0; /* of the cells' squares */
    int64_t parts[DEGREES][DEGREES] = {{0}}; /* [down, across] */
    for (int32_t row = 0; row < CELLS; row++) {
        int32_t cells[CELLS];
        cells_of(frame, row, at, cells);
        for (int32_t x = 0; x < CELLS; x++) {
            total += (int64_t)cells[x] * cells[x];
        }
        for (int32_t i = 0; i < DEGREES; i++) {
            int32_t across = 0;
            for (int32_t x = 0; x < CELLS; x++) {
                across += gram[i][x] * cells[x];
            }
            for (int32_t j = 0; j + i < DEGREES; j++) {
                parts[j][i] += (int64_t)gram[j][row] * across;
            }
        }
    }
    double left = (double)total;
    for (int32_t j = 0; j < DEGREES; j++) {
        for (int32_t i = 0; i + j < DEGREES; i++) {
            const double part = (double)parts[j][i];
            left -= part * part / (squares[j] * squares[i]);
        }
    }
    const double samples = (double)(SAMPLES * SAMPLES), cells = (double)(CELLS * CELLS);
    const double mean = left / (samples * samples * cells);
    *levels = mean > 0.0 ? tatvpr_sqrt((float)mean) : 0.0f;
    return TATVPR_OK;
}
