/* Does this firmware compute what it should? Replays the golden vectors of an artifact.
 *
 * Compiled with the firmware: selftest.c, and golden.c with golden.S, which hold the vectors
 * (CMake: target tatvpr_selftest). What is not called takes no flash.
 */
#ifndef TATVPR_SELFTEST_H
#define TATVPR_SELFTEST_H

#include "tatvpr.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tatvpr_golden_frame {
    const uint8_t *pixels; /* RGB888 without padding */
    int32_t width;
    int32_t height;
} tatvpr_golden_frame;

typedef struct tatvpr_golden_point {
    float k;
    float tokens;
    float min_cosine;         /* for models that are not exact */
    const float *descriptors; /* [frames][descriptor_size] */
} tatvpr_golden_point;

typedef struct tatvpr_golden {
    int32_t exact; /* 1: every processor gives the same bytes */
    int32_t frames;
    int32_t points;
    const tatvpr_golden_frame *frame; /* [frames] */
    const tatvpr_golden_point *point; /* [points] */
} tatvpr_golden;

typedef struct tatvpr_selftest_job {
    const tatvpr_model *model;
    const tatvpr_golden *golden;
    tatvpr_arena arena;
    const tatvpr_options *options; /* k and tokens are those of the vectors, the rest is taken */
    float *descriptor;             /* room for info.descriptor_size floats */
    void (*say)(void *user, const char *line); /* one line a vector, without its end; may be null */
    void *user;
} tatvpr_selftest_job;

/* Describes every golden frame at every golden point; answers how many of them went wrong, or -1
 * where a pointer is null. Says the cycles of each call where the core has a counter that runs: DWT
 * CYCCNT (Cortex-M3 and up), the PMU (Cortex-M55), mcycle (RISC-V). They are counted modulo 2^32,
 * and in an emulator they are no cycles. */
int32_t tatvpr_selftest(const tatvpr_selftest_job *job);

#ifdef __cplusplus
}
#endif
#endif
