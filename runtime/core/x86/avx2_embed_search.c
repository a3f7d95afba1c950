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

/* One row of weights as int16; the padding is zero. */
static void widen_weights(const int8_t *w, int32_t length, int32_t padded, int16_t *to) {
    int32_t i = 0;
    for (; i + 16 <= length; i += 16) {
        const __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(w + i));
        _mm256_store_si256((__m256i *)(void *)(to + i), _mm256_cvtepi8_epi16(v));
    }
    for (; i < padded; i += 16) { /* the last row ends where the blob may end */
        int8_t tail[16] = {0};
        for (int32_t j = i; j < length; j++) {
            tail[j - i] = w[j];
        }
        const __m128i v = _mm_loadu_si128((const __m128i *)(const void *)tail);
        _mm256_store_si256((__m256i *)(void *)(to + i), _mm256_cvtepi8_epi16(v));
    }
}

/* One patch by two outputs, 16 colours. Assembly, because compilers otherwise delay the additions
 * and spill. */
#define DOTS(i)                                                                  \
    x = _mm256_load_si256((const __m256i *)(const void *)(patch[i] + c));        \
    __asm__("vpmaddwd %[w0], %[x], %[y]\n\t"                                     \
            "vpmaddwd %[w1], %[x], %[x]\n\t"                                     \
            "vpaddd %[y], %[a], %[a]\n\t"                                        \
            "vpaddd %[x], %[b], %[b]"                                            \
            : [a] "+x"(a##i), [b] "+x"(b##i), [x] "+x"(x), [y] "=&x"(y)          \
            : [w0] "x"(w0), [w1] "x"(w1));

/* Four patches by two outputs: patch 0's two sums, patch 1's, ... */
static inline __m256i four_by_two(const int16_t *const patch[4], const int16_t *weights,
                                  int32_t padded) {
    __m256i a0 = _mm256_setzero_si256(), a1 = a0, a2 = a0, a3 = a0;
    __m256i b0 = a0, b1 = a0, b2 = a0, b3 = a0;
    for (int32_t c = 0; c < padded; c += 16) {
        const __m256i *w = (const __m256i *)(const void *)(weights + c);
        const __m256i w0 = _mm256_load_si256(w);
        const __m256i w1 = _mm256_load_si256(w + padded / 16);
        __m256i x;
        __m256i y;
        DOTS(0) DOTS(1) DOTS(2) DOTS(3)
    }
    const __m256i low = _mm256_hadd_epi32(_mm256_hadd_epi32(a0, b0), _mm256_hadd_epi32(a1, b1));
    const __m256i high = _mm256_hadd_epi32(_mm256_hadd_epi32(a2, b2), _mm256_hadd_epi32(a3, b3));
    return _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20),
                            _mm256_permute2x128_si256(low, high, 0x31));
}

void tatvpr_avx2_patch_embed(const tatvpr_patch_job *job) {
    const tatvpr_patch_embed *op = job->op;
    const int32_t side = op->image_size / op->patch;
    const int32_t length = op->patch * op->patch * 3;
    const int32_t padded = (length + 31) / 32 * 32;
    int16_t *patches = (int16_t *)(void *)job->scratch;
    int16_t *weights = patches + (ptrdiff_t)side * padded; /* [2, padded] */
    for (int32_t row = job->first_row; row < job->first_row + job->rows; row++) {
        gather(job, row, padded, patches);
        for (int32_t d = 0; d < op->dim; d += 2) {
            const int32_t outputs = tatvpr_min_i32(2, op->dim - d);
            for (int32_t j = 0; j < 2; j++) { /* an odd last output is multiplied twice */
                const int32_t n = d + tatvpr_min_i32(j, outputs - 1);
                widen_weights(job->weight + (ptrdiff_t)n * length, length, padded,
                              weights + j * padded);
            }
            for (int32_t i = 0; i < side; i += 4) {
                const int16_t *four[4];
                for (int32_t j = 0; j < 4; j++) {
                    four[j] = patches + (ptrdiff_t)tatvpr_min_i32(i + j, side - 1) * padded;
                }
                int32_t acc[8];
                _mm256_storeu_si256((__m256i *)(void *)acc, four_by_two(four, weights, padded));
                for (int32_t j = 0; j < 4 && i + j < side; j++) {
                    float *y = job->y + ((ptrdiff_t)row * side + i + j) * op->dim + d;
                    for (int32_t o = 0; o < outputs; o++) {
                        y[o] = (float)acc[2 * j + o] * job->scale[d + o] + job->bias[d + o];
                    }
                }
            }
        }
    }
}

/* |row| * (query with the row's sign), unsigned times signed: two products fit 16 bits. Not the other
 * way round: a row may hold -128, which has no opposite; a query does not. */
static inline __m256i dot_32(const int8_t *query, const int8_t *row) {
    const __m256i q = _mm256_loadu_si256((const __m256i *)(const void *)query);
    const __m256i r = _mm256_loadu_si256((const __m256i *)(const void *)row);
    const __m256i products = _mm256_maddubs_epi16(_mm256_abs_epi8(r), _mm256_sign_epi8(q, r));
    return _mm256_madd_epi16(products, _mm256_set1_epi16(1));
}

void tatvpr_avx2_dot_i8(const int8_t *query, const int8_t *rows, int32_t dim, int32_t stride,
                        int32_t count, int32_t *dot) {
    const int32_t whole = dim / 32 * 32;
    for (int32_t n = 0; n < count; n++) {
        const int8_t *row = rows + (ptrdiff_t)n * stride;
        __m256i a = _mm256_setzero_si256();
        __m256i b = a;
        int32_t i = 0;
        for (; i + 64 <= whole; i += 64) {
            a = _mm256_add_epi32(a, dot_32(query + i, row + i));
            b = _mm256_add_epi32(b, dot_32(query + i + 32, row + i + 32));
        }
        if (i < whole) {
            a = _mm256_add_epi32(a, dot_32(query + i, row + i));
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

/* Sixteen sums of 32 numbers whose bit is set, two a lane: at most 254 either way, so that 64 of
 * them fit. */
static inline __m256i set_of_32(const int8_t *query, const uint8_t *bits) {
    const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2,
                                            2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i bit = _mm256_set1_epi64x((int64_t)0x8040201008040201u);
    int32_t four;
    __builtin_memcpy(&four, bits, sizeof(four));
    const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(four), spread);
    const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
    const __m256i q = _mm256_loadu_si256((const __m256i *)(const void *)query);
    return _mm256_maddubs_epi16(_mm256_set1_epi8(1), _mm256_and_si256(q, set));
}

void tatvpr_avx2_dot_bits(const int8_t *query, const uint8_t *rows, int32_t bytes, int32_t stride,
                          int32_t count, int32_t *dot) {
    const int32_t whole = bytes / 4 * 4;
    for (int32_t n = 0; n < count; n++) {
        const uint8_t *row = rows + (ptrdiff_t)n * stride;
        __m256i pairs = _mm256_setzero_si256();
        for (int32_t i = 0; i < whole; i += 4) {
            pairs = _mm256_add_epi16(pairs, set_of_32(query + 8 * i, row + i));
        }
        int32_t rest = 0;
        if (whole < bytes) {
            tatvpr_portable_dot_bits(query + 8 * whole, row + whole, bytes - whole, stride, 1,
                                     &rest);
        }
        dot[n] = rest + tatvpr_sum_epi32(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
}
