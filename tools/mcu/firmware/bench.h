/* What operations of bench.c work with: memory that begins anew with each job, and the payload's parts. */
#ifndef BENCH_H
#define BENCH_H

#include "../../../runtime/core/common/core.h"
#include "count.h"
#include "jobs.h"

enum { EXIT_BEYOND = 14, BEYOND = 1024 /* floats: more than a row */ };
#define UNTOUCHED 1234.5f

extern uint8_t pool[POOL_BYTES];

typedef struct bench {
    int32_t jobs, results;
    size_t used; /* of the pool */
    const tatvpr_kernels *kernels;
} bench;

static inline void *take(bench *b, size_t bytes)
{
    void *at = pool + b->used;
    b->used = tatvpr_round_up(b->used + bytes, 64);
    if (b->used > POOL_BYTES) {
        sh_text("bench: pool exhausted\n");
        sh_exit(EXIT_ROOM);
    }
    return at;
}

/* Room for `count` outputs of a kernel, and behind it for a row that no kernel may write. */
static inline float *take_outputs(bench *b, size_t count)
{
    float *y = take(b, (count + BEYOND) * sizeof(float));
    for (size_t i = count; i < count + BEYOND; i++)
        y[i] = UNTOUCHED;
    return y;
}

static inline void answer_outputs(const bench *b, const float *y, size_t count)
{
    for (size_t i = count; i < count + BEYOND; i++) {
        if (y[i] != UNTOUCHED) {
            sh_text("bench: a kernel wrote past its outputs\n");
            sh_exit(EXIT_BEYOND);
        }
    }
    answer(b->results, y, count * sizeof(float));
}

/* The payload's parts, in order. */
static inline const void *part(const uint8_t **payload, size_t bytes)
{
    const void *at = *payload;
    *payload += tatvpr_round_up(bytes, 64);
    return at;
}

/* Operations of another file, linked in under WITH_OTHERS. */
void run_other(bench *b, uint32_t operation, const int32_t *arguments, const uint8_t *payload);

#endif
