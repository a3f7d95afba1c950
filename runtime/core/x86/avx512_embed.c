/* AVX-512 VNNI: PatchEmbed. Pixels are the unsigned bytes of vpdpbusd and weights the signed ones,
 * both as they are stored. The rule's pixels are p - 128: 128 times the sum of a row of weights is
 * taken off at the end. Four patches by four outputs, 64 colours a step; a tree of shuffles makes
 * one register of the sixteen with partial sums. */
#include "avx512_lanes.h"

/* Pixels of one row of patches, [patches, padded]; the padding is zero. */
static void gather(const tatvpr_patch_job *job, int32_t row, int32_t padded, uint8_t *patches) {
    const tatvpr_patch_embed *op = job->op;
    const int32_t side = op->image_size / op->patch;
    const int32_t run = op->patch * 3;
    for (int32_t i = 0; i < side; i++) {
        uint8_t *to = patches + (ptrdiff_t)i * padded;
        for (int32_t r = 0; r < op->patch; r++, to += run) {
            const uint8_t *p = job->pixels +
                               ((ptrdiff_t)(row * op->patch + r) * op->image_size) * 3 +
                               (ptrdiff_t)i * run;
            for (int32_t c = 0; c < run; c += 64) {
                const __mmask64 there = tatvpr_first_bytes(run - c);
                _mm512_mask_storeu_epi8(to + c, there, _mm512_maskz_loadu_epi8(there, p + c));
            }
        }
        tatvpr_zero(to, (size_t)(patches + (ptrdiff_t)(i + 1) * padded - to));
    }
}

/* Four rows of weights; the last one may end where the blob ends. */
typedef struct four_rows {
    const int8_t *w[4];
    int32_t length;
} four_rows;

#define BEGIN(p) __m512i a##p = _mm512_setzero_si512(), b##p = a##p, c##p = a##p, d##p = a##p;

#define MULTIPLY(p, x)           \
    TATVPR_DP512(a##p, x, w0);   \
    TATVPR_DP512(b##p, x, w1);   \
    TATVPR_DP512(c##p, x, w2);   \
    TATVPR_DP512(d##p, x, w3);

#define SUMS(p) tatvpr_add_elements(a##p, b##p, c##p, d##p)

/* `STEP` for each 64 colours, with the weights of four rows; masked where they end. */
#define EACH_64(rows, STEP)                                                                  \
    int32_t i = 0;                                                                           \
    for (; i + 64 <= (rows)->length; i += 64) {                                              \
        const __m512i w0 = _mm512_loadu_si512((rows)->w[0] + i);                             \
        const __m512i w1 = _mm512_loadu_si512((rows)->w[1] + i);                             \
        const __m512i w2 = _mm512_loadu_si512((rows)->w[2] + i);                             \
        const __m512i w3 = _mm512_loadu_si512((rows)->w[3] + i);                             \
        STEP                                                                                 \
    }                                                                                        \
    if (i < (rows)->length) {                                                                \
        const __mmask64 there = tatvpr_first_bytes((rows)->length - i);                      \
        const __m512i w0 = _mm512_maskz_loadu_epi8(there, (rows)->w[0] + i);                 \
        const __m512i w1 = _mm512_maskz_loadu_epi8(there, (rows)->w[1] + i);                 \
        const __m512i w2 = _mm512_maskz_loadu_epi8(there, (rows)->w[2] + i);                 \
        const __m512i w3 = _mm512_maskz_loadu_epi8(there, (rows)->w[3] + i);                 \
        STEP                                                                                 \
    }

/* What is taken off: in every lane, 128 times the sums of the four rows. */
static inline __m512i gray_by_four(const four_rows *rows) {
    const __m512i gray = _mm512_set1_epi8(-128); /* 128 as an unsigned byte */
    BEGIN(0)
    EACH_64(rows, MULTIPLY(0, gray))
    const __m512i sums = SUMS(0);
    return tatvpr_add_lanes(sums, sums, sums, sums);
}

/* Lane p: patch p's sums of four outputs. */
static inline __m512i four_by_four(const uint8_t *const patch[4], const four_rows *rows) {
    BEGIN(0) BEGIN(1) BEGIN(2) BEGIN(3)
    EACH_64(rows, MULTIPLY(0, _mm512_loadu_si512(patch[0] + i))
                  MULTIPLY(1, _mm512_loadu_si512(patch[1] + i))
                  MULTIPLY(2, _mm512_loadu_si512(patch[2] + i))
                  MULTIPLY(3, _mm512_loadu_si512(patch[3] + i)))
    return tatvpr_add_lanes(SUMS(0), SUMS(1), SUMS(2), SUMS(3));
}

/* Outputs n .. n + 3 (the last one repeated) of a row of patches. */
static void four_outputs(const tatvpr_patch_job *job, int32_t row, int32_t n,
                         const uint8_t *patches, int32_t padded) {
    const tatvpr_patch_embed *op = job->op;
    const int32_t side = op->image_size / op->patch;
    const __mmask16 there = tatvpr_first_lanes(tatvpr_min_i32(op->dim - n, 4));
    four_rows rows;
    rows.length = op->patch * op->patch * 3;
    for (int32_t j = 0; j < 4; j++) {
        rows.w[j] = job->weight + (ptrdiff_t)tatvpr_min_i32(n + j, op->dim - 1) * rows.length;
    }
    const __m512i gray = gray_by_four(&rows);
    const __m512 scale = _mm512_maskz_loadu_ps(there, job->scale + n);
    const __m512 bias = _mm512_maskz_loadu_ps(there, job->bias + n);
    const __m512 scales = _mm512_broadcast_f32x4(_mm512_castps512_ps128(scale));
    const __m512 biases = _mm512_broadcast_f32x4(_mm512_castps512_ps128(bias));
    for (int32_t i = 0; i < side; i += 4) {
        const uint8_t *four[4];
        for (int32_t j = 0; j < 4; j++) {
            four[j] = patches + (ptrdiff_t)tatvpr_min_i32(i + j, side - 1) * padded;
        }
        const __m512i acc = _mm512_sub_epi32(four_by_four(four, &rows), gray);
        __m512 v = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc), scales), biases);
        float *y = job->y + ((ptrdiff_t)row * side + i) * op->dim + n;
        for (int32_t j = 0; j < tatvpr_min_i32(4, side - i); j++, y += op->dim) {
            _mm512_mask_storeu_ps(y, there, v);
            v = _mm512_shuffle_f32x4(v, v, 0x39); /* the next lane to the front */
        }
    }
}

void tatvpr_avx512_patch_embed(const tatvpr_patch_job *job) {
    const int32_t length = job->op->patch * job->op->patch * 3;
    const int32_t padded = (length + 63) / 64 * 64;
    for (int32_t row = job->first_row; row < job->first_row + job->rows; row++) {
        gather(job, row, padded, job->scratch);
        for (int32_t n = 0; n < job->op->dim; n += 4) {
            four_outputs(job, row, n, job->scratch, padded);
        }
    }
}
