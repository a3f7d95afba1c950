/* AVX2: PatchEmbed, and the dot products and distances of map search. */
#include "avx2.h"

/* Pixels of one row of patches as int16 minus 128, [patches, padded]; the padding is zero. */
static void gather(const tatvpr_patch_job *job, int32_t row, int32_t padded, int16_t *patches) {
    const tatvpr_patch_embed *op = job->op;
    const int32_t side = op->image_size / op->patch;
    const int32_t run = op->patch * 3;
    for (int32_t i = 0; i < side; i++) {
        int16_t *to = patches + (ptrdiff_t)i * padded;
        for (int32_t r = 0; r < op->patch; r++) {
            const uint8_t *p = job->pixels +
                               ((ptrdiff_t)(row * op->patch + r) * op->image_size) * 3 +
                               (ptrdiff_t)i * run;
            for (int32_t c = 0; c < run; c++) {
                *to++ = (int16_t)(p[c] - 128);
            }
        }
        for (int32_t c = run * op->patch; c < padded; c++) {
            *to++ = 0;
        }
    }
}

/* 16 weights as int16; beyond `left` they are zero (the last row ends where the blob may end). */
static inline __m256i weights_16(const int8_t *w, int32_t left) {
    if (left >= 16) {
        return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)w));
    }
    int8_t tail[16] = {0};
    for (int32_t i = 0; i < left; i++) {
        tail[i] = w[i];
    }
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)tail));
}

/* Four patches by two outputs. */
static void four_by_two(const int16_t *const patch[4], const int8_t *w0, const int8_t *w1,
                        int32_t length, int32_t *acc /* [4][2] */) {
    __m256i a[8];
    for (int i = 0; i < 8; i++) {
        a[i] = _mm256_setzero_si256();
    }
    for (int32_t c = 0; c < length; c += 16) {
        const __m256i x0 = weights_16(w0 + c, length - c);
        const __m256i x1 = weights_16(w1 + c, length - c);
        for (int i = 0; i < 4; i++) {
            const __m256i p =
                _mm256_loadu_si256((const __m256i *)(const void *)(patch[i] + c));
            a[2 * i] = _mm256_add_epi32(a[2 * i], _mm256_madd_epi16(p, x0));
            a[2 * i + 1] = _mm256_add_epi32(a[2 * i + 1], _mm256_madd_epi16(p, x1));
        }
    }
    for (int i = 0; i < 8; i++) {
        acc[i] = tatvpr_sum_epi32(a[i]);
    }
}

void tatvpr_avx2_patch_embed(const tatvpr_patch_job *job) {
    const tatvpr_patch_embed *op = job->op;
    const int32_t side = op->image_size / op->patch;
    const int32_t length = op->patch * op->patch * 3;
    const int32_t padded = (length + 31) / 32 * 32;
    int16_t *patches = (int16_t *)(void *)job->scratch;
    for (int32_t row = job->first_row; row < job->first_row + job->rows; row++) {
        gather(job, row, padded, patches);
        for (int32_t d = 0; d < op->dim; d += 2) {
            const int32_t other = tatvpr_min_i32(d + 1, op->dim - 1);
            const int8_t *w0 = job->weight + (ptrdiff_t)d * length;
            const int8_t *w1 = job->weight + (ptrdiff_t)other * length;
            for (int32_t i = 0; i < side; i += 4) {
                const int16_t *four[4];
                for (int32_t j = 0; j < 4; j++) {
                    four[j] = patches + (ptrdiff_t)tatvpr_min_i32(i + j, side - 1) * padded;
                }
                int32_t acc[8];
                four_by_two(four, w0, w1, length, acc);
                for (int32_t j = 0; j < 4 && i + j < side; j++) {
                    float *y = job->y + ((ptrdiff_t)row * side + i + j) * op->dim;
                    y[d] = (float)acc[2 * j] * job->scale[d] + job->bias[d];
                    y[other] = (float)acc[2 * j + (other - d)] * job->scale[other] +
                               job->bias[other];
                }
            }
        }
    }
}

/* |a| * (b with a's sign) is a * b, with 7 bits unsigned times 8 signed: two products fit 16. */
static inline __m256i dot_32(const uint8_t *magnitude, const int8_t *query, const int8_t *row) {
    const __m256i q = _mm256_loadu_si256((const __m256i *)(const void *)query);
    const __m256i m = _mm256_loadu_si256((const __m256i *)(const void *)magnitude);
    const __m256i r = _mm256_loadu_si256((const __m256i *)(const void *)row);
    return _mm256_madd_epi16(_mm256_maddubs_epi16(m, _mm256_sign_epi8(r, q)),
                             _mm256_set1_epi16(1));
}

void tatvpr_avx2_dot_i8(const int8_t *query, const int8_t *rows, int32_t dim, int32_t stride,
                        int32_t count, int32_t *dot) {
    enum { MOST = 1024 }; /* what the search hands over at once */
    uint8_t magnitude[MOST];
    if (dim > MOST) {
        tatvpr_portable_dot_i8(query, rows, dim, stride, count, dot);
        return;
    }
    const int32_t whole = dim / 32 * 32;
    for (int32_t i = 0; i < whole; i++) {
        magnitude[i] = (uint8_t)(query[i] < 0 ? -query[i] : query[i]);
    }
    for (int32_t n = 0; n < count; n++) {
        const int8_t *row = rows + (ptrdiff_t)n * stride;
        __m256i a = _mm256_setzero_si256();
        __m256i b = a;
        int32_t i = 0;
        for (; i + 64 <= whole; i += 64) {
            a = _mm256_add_epi32(a, dot_32(magnitude + i, query + i, row + i));
            b = _mm256_add_epi32(b, dot_32(magnitude + i + 32, query + i + 32, row + i + 32));
        }
        if (i < whole) {
            a = _mm256_add_epi32(a, dot_32(magnitude + i, query + i, row + i));
        }
        int32_t sum = tatvpr_sum_epi32(_mm256_add_epi32(a, b));
        for (i = whole; i < dim; i++) {
            sum += query[i] * row[i];
        }
        dot[n] = sum;
    }
}

static inline uint64_t word(const uint8_t *p) {
    uint64_t v;
    __builtin_memcpy(&v, p, sizeof(v));
    return v;
}

void tatvpr_avx2_hamming(const uint8_t *query, const uint8_t *rows, int32_t bytes, int32_t stride,
                         int32_t count, int32_t *distance) {
    const int32_t whole = bytes / 8 * 8;
    if (bytes == 32) { /* 256 bits, the usual descriptor */
        const uint64_t q0 = word(query), q1 = word(query + 8);
        const uint64_t q2 = word(query + 16), q3 = word(query + 24);
        for (int32_t n = 0; n < count; n++, rows += stride) {
            const int64_t low = __builtin_popcountll(q0 ^ word(rows)) +
                                __builtin_popcountll(q1 ^ word(rows + 8));
            const int64_t high = __builtin_popcountll(q2 ^ word(rows + 16)) +
                                 __builtin_popcountll(q3 ^ word(rows + 24));
            distance[n] = (int32_t)(low + high);
        }
        return;
    }
    for (int32_t n = 0; n < count; n++) {
        const uint8_t *row = rows + (ptrdiff_t)n * stride;
        int64_t sum = 0;
        for (int32_t i = 0; i < whole; i += 8) {
            sum += __builtin_popcountll(word(query + i) ^ word(row + i));
        }
        for (int32_t i = whole; i < bytes; i++) {
            sum += __builtin_popcount((uint32_t)(query[i] ^ row[i]));
        }
        distance[n] = (int32_t)sum;
    }
}
