/* AVX-512: from sums to outputs, y = (acc * s) * scale + bias [+ residual]. */
#ifndef TATVPR_AVX512_EPILOGUE_H
#define TATVPR_AVX512_EPILOGUE_H

#include "avx512.h"

/* The constants of a block of up to 256 outputs: where they lie, or a copy where the scale is one
 * for all rows or the matrix ends within the block (a copy costs some 800 cycles). */
typedef struct tatvpr_outputs {
    const tatvpr_matmul *job;
    int32_t first;
    int32_t columns; /* that exist */
    const float *scale;
    const float *bias;
    float copy[2][256] __attribute__((aligned(64))); /* a load across two lines costs two */
} tatvpr_outputs;

static inline void tatvpr_begin_outputs(tatvpr_outputs *o, const tatvpr_matmul *job, int32_t first,
                                        int32_t count) {
    o->job = job;
    o->first = first;
    o->columns = tatvpr_min_i32(count, job->op->n_out - first);
    o->scale = job->scale + first;
    o->bias = job->bias + first;
    if (!job->op->scale_per_row) {
        for (int32_t i = 0; i < count; i += 16) {
            _mm512_store_ps(o->copy[0] + i, _mm512_set1_ps(job->scale[0]));
        }
        o->scale = o->copy[0];
    } else if (o->columns < count) {
        for (int32_t i = 0; i < count; i += 16) {
            const __mmask16 there = tatvpr_first_lanes(o->columns - i);
            _mm512_store_ps(o->copy[0] + i, _mm512_maskz_loadu_ps(there, o->scale + i));
        }
        o->scale = o->copy[0];
    }
    if (o->columns < count) {
        for (int32_t i = 0; i < count; i += 16) {
            const __mmask16 there = tatvpr_first_lanes(o->columns - i);
            _mm512_store_ps(o->copy[1] + i, _mm512_maskz_loadu_ps(there, o->bias + i));
        }
        o->bias = o->copy[1];
    }
}

/* Where a token's outputs of a block go. */
typedef struct tatvpr_place {
    const float *scale;
    const float *bias;
    const float *residual; /* null: nothing is added */
    float *y;
    int32_t columns;
} tatvpr_place;

static inline tatvpr_place tatvpr_place_of(const tatvpr_outputs *o, int32_t t) {
    const ptrdiff_t to = (ptrdiff_t)t * o->job->y_stride + o->first;
    const tatvpr_place place = {o->scale, o->bias,
                                o->job->residual == NULL ? NULL : o->job->residual + to,
                                o->job->y + to, o->columns};
    return place;
}

/* How outputs are written, a constant where it is used so that no condition remains. */
enum { TATVPR_WHOLE = 1, TATVPR_ADDED = 2 };

/* 16 outputs from number `at` of the block on. `s` is the token's scale; where sums are multiples
 * by a power of two, divided by that, which gives the same bits. */
static inline __attribute__((always_inline)) void tatvpr_write_16(const tatvpr_place *p, int how,
                                                                  int32_t at, __m512i sums,
                                                                  __m512 s) {
    __m512 v = _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), s),
                             _mm512_loadu_ps(p->scale + at));
    v = _mm512_add_ps(v, _mm512_loadu_ps(p->bias + at));
    if (how & TATVPR_WHOLE) {
        if (how & TATVPR_ADDED) {
            v = _mm512_add_ps(_mm512_loadu_ps(p->residual + at), v);
        }
        _mm512_storeu_ps(p->y + at, v);
    } else if (at < p->columns) {
        const __mmask16 there = tatvpr_first_lanes(p->columns - at);
        if (p->residual != NULL) {
            v = _mm512_add_ps(_mm512_maskz_loadu_ps(there, p->residual + at), v);
        }
        _mm512_mask_storeu_ps(p->y + at, there, v);
    }
}

#endif
