/* AVX-512: the gate's choice, with compare masks, popcount and byte compression. */
#include "avx2.h"
#include "avx512.h"

enum { MOST_CHANNELS = 4096 }; /* rows up to this are ranked from the stack; longer: portable */

#if defined(TATVPR_SIMDE)
static __m512i compress(uint64_t mask, __m512i v) {
    uint8_t from[64];
    uint8_t to[64] = {0};
    int n = 0;
    _mm512_storeu_si512(from, v);
    for (int i = 0; i < 64; i++) {
        if (mask >> i & 1u) {
            to[n++] = from[i];
        }
    }
    return _mm512_loadu_si512(to);
}
#else
static inline __m512i compress(uint64_t mask, __m512i v) {
    return _mm512_maskz_compress_epi8((__mmask64)mask, v);
}
#endif

static inline int32_t count_above(const uint8_t *a, int32_t padded, int32_t bound) {
    const __m512i limit = _mm512_set1_epi8((int8_t)bound);
    int32_t count = 0;
    for (int32_t i = 0; i < padded; i += 64) {
        count += __builtin_popcountll(_mm512_cmpgt_epi8_mask(_mm512_loadu_si512(a + i), limit));
    }
    return count;
}

/* The lowest `*ties` ones of `equal`; takes them off *ties. */
static inline uint64_t first_ties(uint64_t equal, int32_t *ties) {
    const int32_t count = __builtin_popcountll(equal);
    if (count <= *ties) {
        *ties -= count;
        return equal;
    }
    uint64_t kept = 0;
    for (; *ties > 0; (*ties)--) { /* once a row at most */
        kept |= equal & (~equal + 1u);
        equal &= equal - 1u;
    }
    return kept;
}

/* Appends the channels base .. base + 63 of `mask` to the list; answers its new length. Stores go
 * beyond the end, into the slack of TATVPR_LIST_STRIDE. */
static int32_t append_64(__m512i q, int32_t base, uint64_t mask, uint16_t *index, int8_t *value,
                         int32_t n) {
    static const uint8_t iota[64] = {
        0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
        22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
        44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};
    const __m512i where = compress(mask, _mm512_loadu_si512(iota));
    const __m512i first = _mm512_set1_epi16((int16_t)base);
    _mm512_storeu_si512(value + n, compress(mask, q));
    const __m512i low = tatvpr_bytes_to_words(_mm512_castsi512_si256(where));
    const __m512i high = tatvpr_bytes_to_words(_mm512_extracti64x4_epi64(where, 1));
    _mm512_storeu_si512(index + n, _mm512_add_epi16(low, first));
    _mm512_storeu_si512(index + n + 32, _mm512_add_epi16(high, first));
    return n + __builtin_popcountll(mask);
}

void tatvpr_avx512_select(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t group,
                          int32_t list) {
    if (group != 1 || tile->k_in > MOST_CHANNELS) {
        tatvpr_avx2_select(tile, t, keep, group, list);
        return;
    }
    uint8_t magnitude[MOST_CHANNELS];
    const int32_t padded = (tile->k_in + 63) / 64 * 64; /* the row is padded that far */
    int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    uint16_t *index = list ? tile->index + (ptrdiff_t)t * tile->list_stride : NULL;
    int8_t *value = list ? tile->value + (ptrdiff_t)t * tile->list_stride : NULL;
    for (int32_t i = 0; i < padded; i += 64) {
        _mm512_storeu_si512(magnitude + i, _mm512_abs_epi8(_mm512_loadu_si512(q + i)));
    }
    int32_t least = 0; /* the largest threshold that at least `keep` channels reach */
    for (int32_t bit = 64; bit > 0 && keep < tile->k_in; bit /= 2) {
        least += count_above(magnitude, padded, least + bit - 1) >= keep ? bit : 0;
    }
    int32_t ties = keep - count_above(magnitude, padded, least);
    const __m512i bound = _mm512_set1_epi8((int8_t)least);
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i sums = _mm512_setzero_si512();
    int32_t n = 0;
    for (int32_t i = 0; i < padded; i += 64) {
        const __m512i a = _mm512_loadu_si512(magnitude + i);
        const uint64_t equal = _mm512_cmpeq_epi8_mask(a, bound);
        const uint64_t mask = _mm512_cmpgt_epi8_mask(a, bound) | first_ties(equal, &ties);
        const __m512i kept = _mm512_maskz_mov_epi8(mask, _mm512_loadu_si512(q + i));
        _mm512_storeu_si512(q + i, kept);
        TATVPR_DP512(sums, ones, kept);
        if (list) {
            n = append_64(kept, i, _mm512_test_epi8_mask(kept, kept), index, value, n);
        }
    }
    int32_t lanes[16];
    _mm512_storeu_si512(lanes, sums);
    int32_t sum = 0;
    for (int i = 0; i < 16; i++) {
        sum += lanes[i];
    }
    tile->sum[t] = sum;
    if (list) {
        tile->count[t] = n;
        for (; n % 4 != 0; n++) {
            index[n] = 0;
            value[n] = 0;
        }
    }
}
