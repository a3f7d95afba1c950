/* AVX2: the gate's choice, by select_order.h: single channels and groups are next door. */
#include "avx2_select.h"
#include "select_order.h"

static void keep_all(tatvpr_tile *tile, int32_t t, int32_t list) {
    int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    list_end end = begin_list(tile, t, list);
    __m256i sums = _mm256_setzero_si256();
    for (int32_t i = 0; i < tile->k_in; i += 32) {
        const __m256i v = load(q + i);
        sums = _mm256_add_epi32(sums, sum_32(v));
        end = list ? list_32(q, i, nonzero(v), end) : end;
    }
    finish(tile, t, list, end, sums);
}

TATVPR_DEFINE_SELECT(avx2)
