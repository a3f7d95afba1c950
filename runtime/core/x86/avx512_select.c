/* AVX-512: the gate's choice, by select_order.h: single channels and groups are next door. */
#include "avx512_select.h"
#include "select_order.h"

static void keep_all(tatvpr_tile *tile, int32_t t, int32_t list) {
    const int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i sums = _mm512_setzero_si512();
    list_end end = begin_list(tile, t, list);
    for (int32_t i = 0; i < tile->k_in; i += 64) {
        const __m512i v = _mm512_loadu_si512(q + i);
        TATVPR_DP512(sums, ones, v);
        if (list) {
            const uint64_t mask = _mm512_test_epi8_mask(v, v);
            end = append_64(v, _mm512_set1_epi16((int16_t)i), mask, end);
        }
    }
    finish(tile, t, list, end, sums);
}

TATVPR_DEFINE_SELECT(avx512)
