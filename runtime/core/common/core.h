/* What the files of common/ share: rounding, weights by offset, scratch, parallel work. */
#ifndef TATVPR_CORE_H
#define TATVPR_CORE_H

#include "kernels.h"

/* TATVPR_THREADS: the build has POSIX threads. */
#if defined(TATVPR_THREADS)
#define TATVPR_MAX_THREADS 16
#else
#define TATVPR_MAX_THREADS 1
#endif

static inline size_t tatvpr_round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

static inline int32_t tatvpr_min_i32(int32_t a, int32_t b) { return a < b ? a : b; }
static inline int32_t tatvpr_max_i32(int32_t a, int32_t b) { return a > b ? a : b; }

/* Plain loops rather than <string.h>: a freestanding build has no library; compilers turn them
 * into calls or vector code where that pays. */
static inline void tatvpr_copy(void *to, const void *from, size_t bytes) {
    uint8_t *t = (uint8_t *)to;
    const uint8_t *f = (const uint8_t *)from;
    for (size_t i = 0; i < bytes; i++) {
        t[i] = f[i];
    }
}

static inline void tatvpr_zero(void *to, size_t bytes) {
    uint8_t *t = (uint8_t *)to;
    for (size_t i = 0; i < bytes; i++) {
        t[i] = 0;
    }
}

/* Bytes from row to row of int8 activations. */
static inline int32_t tatvpr_q_stride(int32_t k_in) {
    return (int32_t)tatvpr_round_up((size_t)k_in, TATVPR_ROW_ALIGN);
}

/* The zeros behind a row's K. */
static inline void tatvpr_pad_row(int8_t *q, int32_t k_in) {
    const int32_t padded = tatvpr_q_stride(k_in);
    for (int32_t i = k_in; i < padded; i++) {
        q[i] = 0;
    }
}

static inline int tatvpr_aligned(const void *p) {
    return ((uintptr_t)p % TATVPR_ARENA_ALIGN) == 0;
}

/* The size that a caller's structure begins with: from what this library needs. One that was never
 * set is 0 or any number: what lies so many bytes on is not the caller's to be written. */
static inline int tatvpr_sized(uint32_t size, size_t least) {
    return size >= least && size <= 4096u;
}

static inline int tatvpr_same_text(const char *a, const char *b) {
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

/* How many of `total` a fraction keeps: clip(floor(double(fraction) * total + 0.5), 1, total). */
int32_t tatvpr_kept(float fraction, int32_t total);

uint32_t tatvpr_crc32(uint32_t crc, const uint8_t *bytes, size_t count);
uint32_t tatvpr_read_u32(const uint8_t *p);
uint64_t tatvpr_read_u64(const uint8_t *p);
float tatvpr_read_f32(const uint8_t *p);
double tatvpr_read_f64(const uint8_t *p);

static inline const float *tatvpr_floats(const tatvpr_model *model, uint32_t offset) {
    return (const float *)(const void *)tatvpr_tensor(model, offset);
}

/* ---- weights.c: preparation of a blob for kernels that do not read it in place */
int tatvpr_layouts_fit(const tatvpr_program *program, const tatvpr_kernels *kernels);
size_t tatvpr_prepared_size(const tatvpr_program *program, const tatvpr_kernels *kernels);
/* Sets model->weights and ->segments: the blob itself, or what is written to `prepared`
 * (tatvpr_prepared_size() bytes). The model has its program and kernels already. */
void tatvpr_place_weights(tatvpr_model *model, const uint8_t *blob, uint8_t *prepared);

/* ---- costs.c */
/* The share of kept channels below which the sparse matmul costs less than the dense one. */
float tatvpr_sparse_below(const tatvpr_model *model, const tatvpr_ternary *op, int32_t group);

/* ---- frame.c */
tatvpr_status tatvpr_frame_check(const tatvpr_frame *frame);
/* Squashes a checked frame to uint8 [side, side, 3]; `room` is free memory for tables. */
tatvpr_status tatvpr_frame_squash(const tatvpr_kernels *kernels, const tatvpr_frame *frame,
                                  int32_t side, uint8_t *pixels, uint8_t *room,
                                  size_t room_bytes);

/* ---- threads.c */
typedef struct tatvpr_pool tatvpr_pool;
typedef void (*tatvpr_work)(void *argument, int32_t item, int32_t worker);
/* Runs work(argument, item, worker) for item = 0 .. items - 1 on all workers of the call; which
 * worker takes which item is chance, so that work may write nothing but its item's results. */
void tatvpr_parallel(const tatvpr_context *c, tatvpr_work work, void *argument, int32_t items);
int32_t tatvpr_workers(const tatvpr_context *c);
/* 1 when this build can run `threads` threads. */
int tatvpr_threads_valid(int32_t threads);
size_t tatvpr_pool_bytes(int32_t threads);
tatvpr_status tatvpr_pool_start(tatvpr_context *c, void *memory, int32_t threads);
void tatvpr_pool_stop(tatvpr_context *c);

/* ---- op_linear.c */
size_t tatvpr_linear_scratch(const tatvpr_program *program, int32_t workers);
/* Tokens of a tile: even tiles, at least one for each worker. */
int32_t tatvpr_tile_tokens(const tatvpr_program *program, int32_t tokens, int32_t workers);
/* Look-up tables of one worker, for the widest matrix. */
size_t tatvpr_panel_bytes(const tatvpr_program *program);

#endif
