/* AVX-512 VNNI and VPOPCNTDQ: dot products and distances of map search, sixteen rows at a time. */
#include "avx512_lanes.h"

/* Partial sums of one row, in every lane: `length` is that of a row. */
typedef __m512i sums_of_row(const int8_t *query, const uint8_t *row, int32_t length);

/* The sums of sixteen rows from number `n` on; beyond the last of `count`: that one again. Rows are
 * read one after the other, as they lie: four at a time are faster in a cache, and take twice as
 * long from memory. `sums_of` is a constant where this is inlined. */
static inline __attribute__((always_inline)) __m512i
sum_sixteen(sums_of_row *sums_of, const int8_t *query, const uint8_t *rows, int32_t length,
            int32_t stride, int32_t n, int32_t count) {
    __m512i four[4];
    for (int32_t g = 0; g < 4; g++) {
        __m512i sum[4];
        for (int32_t j = 0; j < 4; j++) {
            const int32_t at = tatvpr_min_i32(n + 4 * g + j, count - 1);
            sum[j] = sums_of(query, rows + (ptrdiff_t)at * stride, length);
        }
        four[g] = tatvpr_add_elements(sum[0], sum[1], sum[2], sum[3]);
    }
    return tatvpr_add_lanes(four[0], four[1], four[2], four[3]);
}

/* vpdpbusd wants one unsigned operand: rows + 128, whose surplus, 128 times the query's sum, is the
 * same for all rows. */
static int32_t surplus_of(const int8_t *query, int32_t dim) {
    const __m512i offset = _mm512_set1_epi8(-128); /* 128 as an unsigned byte */
    __m512i sums = _mm512_setzero_si512();
    for (int32_t i = 0; i < dim; i += 64) {
        const __m512i q = _mm512_maskz_loadu_epi8(tatvpr_first_bytes(dim - i), query + i);
        TATVPR_DP512(sums, offset, q);
    }
    return _mm512_reduce_add_epi32(sums);
}

static inline __m512i row_dots(const int8_t *query, const uint8_t *row, int32_t dim) {
    const __m512i offset = _mm512_set1_epi8(-128);
    __m512i sum = _mm512_setzero_si512();
    for (int32_t i = 0; i < dim; i += 64) {
        const __mmask64 there = tatvpr_first_bytes(dim - i);
        const __m512i q = _mm512_maskz_loadu_epi8(there, query + i);
        TATVPR_DP512(sum, _mm512_xor_si512(_mm512_maskz_loadu_epi8(there, row + i), offset), q);
    }
    return sum;
}

void tatvpr_avx512_dot_i8(const int8_t *query, const int8_t *rows, int32_t dim, int32_t stride,
                          int32_t count, int32_t *dot) {
    const __m512i surplus = _mm512_set1_epi32(surplus_of(query, dim));
    const uint8_t *bytes = (const uint8_t *)rows;
    for (int32_t n = 0; n < count; n += 16) {
        const __m512i sums = sum_sixteen(row_dots, query, bytes, dim, stride, n, count);
        _mm512_mask_storeu_epi32(dot + n, tatvpr_first_lanes(count - n),
                                 _mm512_sub_epi32(sums, surplus));
    }
}

/* 64-bit halves of lanes to the sums of two neighbours: of a, then of b, in every lane. */
static inline __m512i add_words(__m512i a, __m512i b) {
    return _mm512_add_epi64(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

/* Neighbouring lanes added: of a, then of b. */
static inline __m512i add_neighbours(__m512i a, __m512i b) {
    return _mm512_add_epi64(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xDD));
}

/* Rows of 256 bits without gaps: two a register, sixteen at a time. */
static void distances_256(const uint8_t *query, const uint8_t *rows, int32_t sixteens,
                          int32_t *distance) {
    const __m512i q = _mm512_broadcast_i64x4(
        _mm256_loadu_si256((const __m256i *)(const void *)query));
    const __m512i order =
        _mm512_set_epi32(30, 26, 28, 24, 22, 18, 20, 16, 14, 10, 12, 8, 6, 2, 4, 0);
    for (; sixteens > 0; sixteens--, rows += 512, distance += 16) {
        __m512i v[8];
        for (int i = 0; i < 8; i++) {
            v[i] = _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_loadu_si512(rows + 64 * i), q));
        }
        const __m512i low = add_neighbours(add_words(v[0], v[1]), add_words(v[2], v[3]));
        const __m512i high = add_neighbours(add_words(v[4], v[5]), add_words(v[6], v[7]));
        _mm512_storeu_si512(distance, _mm512_permutex2var_epi32(low, order, high));
    }
}

/* The distances of eight rows of 512 bits without gaps, one a lane. */
static inline __m512i eight_of_512(__m512i q, const uint8_t *rows) {
    __m512i v[8];
    for (int i = 0; i < 8; i++) {
        v[i] = _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_loadu_si512(rows + 64 * i), q));
    }
    return add_neighbours(add_neighbours(add_words(v[0], v[1]), add_words(v[2], v[3])),
                          add_neighbours(add_words(v[4], v[5]), add_words(v[6], v[7])));
}

/* Bytes ahead that rows are fetched from memory where a family of CPUs gains by it: of 2 to 32 KiB the
 * fastest on Zen 5, where a core's own fetching stops at the ends of pages (a million rows: 1.06x faiss
 * instead of .80x to .94x), and Sapphire Rapids gains by it, too (5.3 ms instead of 6.5). On Zen 4 every
 * distance costs a third of the time and more. */
#define AHEAD 8192

/* Rows of 512 bits without gaps, those of the shipped models: what a row differs in is added up
 * together with its neighbours'. A sum of lanes for each row took three times as long on Zen 5. */
static inline void distances_512(const uint8_t *query, const uint8_t *rows, int32_t sixteens,
                                 int32_t ahead, int32_t *distance) {
    const __m512i q = _mm512_loadu_si512(query);
    const __m512i order =
        _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    for (; sixteens > 0; sixteens--, rows += 1024, distance += 16) {
        for (int32_t i = 0; ahead > 0 && i < 1024; i += 64) {
            __builtin_prefetch(rows + ahead + i); /* behind the last row nothing is read */
        }
        const __m512i first = eight_of_512(q, rows);
        const __m512i second = eight_of_512(q, rows + 512);
        _mm512_storeu_si512(distance, _mm512_permutex2var_epi32(first, order, second));
    }
}

static inline __attribute__((always_inline)) void
distances(const uint8_t *query, const uint8_t *rows, int32_t bytes, int32_t stride, int32_t count,
          int32_t ahead, int32_t *distance) {
    int32_t n = 0;
    if (bytes == 32 && stride == 32) {
        n = count / 16 * 16;
        distances_256(query, rows, n / 16, distance);
    } else if (bytes == 64 && stride == 64) {
        n = count / 16 * 16;
        distances_512(query, rows, n / 16, ahead, distance);
    }
    for (; n < count; n++) {
        const uint8_t *row = rows + (ptrdiff_t)n * stride;
        __m512i sums = _mm512_setzero_si512();
        for (int32_t i = 0; i < bytes; i += 64) {
            const __mmask64 there = tatvpr_first_bytes(bytes - i);
            const __m512i differ = _mm512_xor_si512(_mm512_maskz_loadu_epi8(there, query + i),
                                                    _mm512_maskz_loadu_epi8(there, row + i));
            sums = _mm512_add_epi64(sums, _mm512_popcnt_epi64(differ));
        }
        distance[n] = _mm512_reduce_add_epi32(sums); /* the upper halves are zero */
    }
}

void tatvpr_avx512_hamming(const uint8_t *query, const uint8_t *rows, int32_t bytes,
                           int32_t stride, int32_t count, int32_t *distance) {
    distances(query, rows, bytes, stride, count, 0, distance);
}

void tatvpr_avx512_hamming_ahead(const uint8_t *query, const uint8_t *rows, int32_t bytes,
                                 int32_t stride, int32_t count, int32_t *distance) {
    distances(query, rows, bytes, stride, count, AHEAD, distance);
}

/* Of a row's numbers those whose bit is set: bits are a mask as they lie. */
static inline __m512i row_set(const int8_t *query, const uint8_t *row, int32_t bytes) {
    const __m512i one = _mm512_set1_epi8(1);
    __m512i sum = _mm512_setzero_si512();
    int32_t i = 0;
    for (; i + 8 <= bytes; i += 8) {
        uint64_t bits;
        __builtin_memcpy(&bits, row + i, sizeof(bits));
        TATVPR_DP512(sum, one, _mm512_maskz_loadu_epi8((__mmask64)bits, query + 8 * i));
    }
    if (i < bytes) {
        uint64_t bits = 0;
        for (int32_t j = i; j < bytes; j++) {
            bits |= (uint64_t)row[j] << (8 * (j - i));
        }
        TATVPR_DP512(sum, one, _mm512_maskz_loadu_epi8((__mmask64)bits, query + 8 * i));
    }
    return sum;
}

void tatvpr_avx512_dot_bits(const int8_t *query, const uint8_t *rows, int32_t bytes,
                            int32_t stride, int32_t count, int32_t *dot) {
    for (int32_t n = 0; n < count; n += 16) {
        _mm512_mask_storeu_epi32(dot + n, tatvpr_first_lanes(count - n),
                                 sum_sixteen(row_set, query, rows, bytes, stride, n, count));
    }
}
