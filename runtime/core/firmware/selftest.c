/* Replays golden vectors: see tatvpr_selftest.h. No stdio, no allocation. */
#include "tatvpr_selftest.h"

#include "tatvpr_cycles.h"

typedef struct line {
    char text[120];
    uint32_t length;
} line;

static void add(line *to, const char *text) {
    while (*text != '\0' && to->length + 1 < sizeof(to->text)) {
        to->text[to->length++] = *text++;
    }
    to->text[to->length] = '\0';
}

static void add_number(line *to, uint32_t n) {
    char digits[11];
    uint32_t at = sizeof(digits) - 1;
    digits[at] = '\0';
    do {
        digits[--at] = (char)('0' + n % 10u);
        n /= 10u;
    } while (n > 0);
    add(to, digits + at);
}

/* Three decimals of a number in [0, 1000). */
static void add_fraction(line *to, float x) {
    const uint32_t thousandths = (uint32_t)(x * 1000.0f + 0.5f);
    add_number(to, thousandths / 1000u);
    const char decimals[5] = {'.', (char)('0' + thousandths / 100u % 10u),
                              (char)('0' + thousandths / 10u % 10u),
                              (char)('0' + thousandths % 10u), '\0'};
    add(to, decimals);
}

static int same_bytes(const float *a, const float *b, int32_t floats) {
    const uint8_t *p = (const uint8_t *)a, *q = (const uint8_t *)b;
    for (int32_t i = 0; i < floats * (int32_t)sizeof(float); i++) {
        if (p[i] != q[i]) {
            return 0;
        }
    }
    return 1;
}

/* Of two vectors of unit length. */
static float cosine(const float *a, const float *b, int32_t floats) {
    float sum = 0.0f;
    for (int32_t i = 0; i < floats; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

/* 1 where the descriptor is the golden one, as far as the model is exact. */
static int judge(const tatvpr_golden *golden, const tatvpr_golden_point *point, const float *want,
                 const float *got, int32_t floats, line *said) {
    if (same_bytes(want, got, floats)) {
        add(said, "same bytes");
        return 1;
    }
    const float found = cosine(want, got, floats);
    const int good = !golden->exact && found >= point->min_cosine;
    add(said, good ? "near enough" : golden->exact ? "OTHER BYTES" : "TOO FAR");
    return good;
}

/* One call; 1 where it gave what it should. */
static int replay(const tatvpr_selftest_job *job, int32_t at, int32_t frame_at, int32_t floats,
                  int counted) {
    const tatvpr_golden *golden = job->golden;
    const tatvpr_golden_point *point = &golden->point[at];
    const tatvpr_golden_frame *shown = &golden->frame[frame_at];
    tatvpr_frame frame = {.size = sizeof(frame), .format = TATVPR_RGB888};
    frame.width = shown->width;
    frame.height = shown->height;
    frame.planes[0] = shown->pixels;
    frame.strides[0] = 3 * shown->width;
    tatvpr_options options = *job->options;
    options.k = point->k;
    options.tokens = point->tokens;
    const uint32_t begin = tatvpr_cycles();
    const tatvpr_status status =
        tatvpr_describe(job->model, job->arena, &frame, &options, job->descriptor);
    const uint32_t cycles = tatvpr_cycles() - begin;
    line said = {{'\0'}, 0};
    add(&said, "frame ");
    add_number(&said, (uint32_t)frame_at);
    add(&said, " k ");
    add_fraction(&said, point->k);
    add(&said, " tokens ");
    add_fraction(&said, point->tokens);
    add(&said, ": ");
    int good = 0;
    if (status != TATVPR_OK) {
        add(&said, tatvpr_status_text(status));
    } else {
        const float *want = point->descriptors + (ptrdiff_t)frame_at * floats;
        good = judge(golden, point, want, job->descriptor, floats, &said);
    }
    if (counted) {
        add(&said, ", ");
        add_number(&said, cycles);
        add(&said, " cycles");
    }
    if (job->say != NULL) {
        job->say(job->user, said.text);
    }
    return good;
}

int32_t tatvpr_selftest(const tatvpr_selftest_job *job) {
    if (job == NULL || job->model == NULL || job->golden == NULL || job->options == NULL ||
        job->descriptor == NULL) {
        return -1;
    }
    tatvpr_model_info info = {.size = sizeof(info)};
    if (tatvpr_model_get_info(job->model->program, &info) != TATVPR_OK) {
        return -1;
    }
    const int counted = tatvpr_cycles_run();
    int32_t wrong = 0;
    for (int32_t at = 0; at < job->golden->points; at++) {
        for (int32_t i = 0; i < job->golden->frames; i++) {
            wrong += !replay(job, at, i, info.descriptor_size, counted);
        }
    }
    return wrong;
}
