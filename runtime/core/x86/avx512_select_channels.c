/* AVX-512: the gate's choice among single channels, in the order of channel_select.h. */
#include "avx512_select.h"
#include "channel_select.h"

static inline __m512i magnitudes(const int8_t *q, int32_t i) {
    return _mm512_abs_epi8(_mm512_loadu_si512(q + i));
}

static inline int32_t reaching(__m512i magnitude, __m512i limit) {
    return __builtin_popcountll(_mm512_cmpge_epu8_mask(magnitude, limit));
}

static inline __attribute__((always_inline)) int32_t count(const int8_t *q, int32_t k_in,
                                                           int32_t limit) {
    const __m512i at = _mm512_set1_epi8((int8_t)limit);
    int32_t n = 0;
    for (int32_t i = 0; i < k_in; i += 64) {
        n += reaching(magnitudes(q, i), at);
    }
    return n;
}

static inline __attribute__((always_inline)) void count_near(const int8_t *q, int32_t k_in,
                                                             int32_t first, int32_t *n) {
    const __m512i one = _mm512_set1_epi8(1);
    const __m512i limit0 = _mm512_set1_epi8((int8_t)first);
    const __m512i limit1 = _mm512_add_epi8(limit0, one);
    const __m512i limit2 = _mm512_add_epi8(limit1, one);
    const __m512i limit3 = _mm512_add_epi8(limit2, one);
    int32_t n0 = 0, n1 = 0, n2 = 0, n3 = 0;
    for (int32_t i = 0; i < k_in; i += 64) {
        const __m512i a = magnitudes(q, i);
        n0 += reaching(a, limit0);
        n1 += reaching(a, limit1);
        n2 += reaching(a, limit2);
        n3 += reaching(a, limit3);
    }
    n[0] = n0;
    n[1] = n1;
    n[2] = n2;
    n[3] = n3;
}

static inline __attribute__((always_inline)) void keep_row(tatvpr_tile *tile, int32_t t,
                                                           int32_t k_in, int32_t keep,
                                                           int32_t list,
                                                           const tatvpr_cut_row *r) {
    int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    const __m512i ones = _mm512_set1_epi8(1);
    const __m512i cut = _mm512_set1_epi8((int8_t)r->least);
    __m512i sums = _mm512_setzero_si512();
    int32_t ties = keep - r->above; /* of those at the cut, the first ones stay */
    list_end end = begin_list(tile, t, list);
    for (int32_t i = 0; i < k_in; i += 64) {
        const __m512i v = _mm512_loadu_si512(q + i);
        const __m512i a = _mm512_abs_epi8(v);
        const __mmask64 above = _mm512_cmpgt_epu8_mask(a, cut);
        const uint64_t tied = first_ties(_mm512_cmpeq_epi8_mask(a, cut), &ties);
        /* One after the other: a mask that leaves its registers takes longer. */
        const __m512i kept = _mm512_mask_mov_epi8(_mm512_maskz_mov_epi8(above, v), tied, v);
        TATVPR_DP512(sums, ones, kept);
        if (list) {
            end = append_64(v, _mm512_set1_epi16((int16_t)i), above | tied, end);
        } else {
            _mm512_storeu_si512(q + i, kept);
        }
    }
    finish(tile, t, list, end, sums);
}

void tatvpr_avx512_select_channels(tatvpr_tile *tile, int32_t t, int32_t rows, int32_t keep,
                                   int32_t list) {
    static const tatvpr_channel_kernels own = {count, count_near, keep_row};
    tatvpr_select_channels(&own, tile, t, rows, keep, list);
}
