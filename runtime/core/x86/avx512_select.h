/* AVX-512: what the gate's choice among single channels and among groups shares. */
#ifndef TATVPR_AVX512_SELECT_H
#define TATVPR_AVX512_SELECT_H

#include "avx512.h"
#include "group_select.h"

/* The lowest bits of `bits`, one for each bit of `at`; the lowest `count` of 64 bits. */
static inline uint64_t deposit(uint64_t bits, uint64_t at) { return _pdep_u64(bits, at); }

static inline uint64_t lowest_bits(int32_t count) {
    return _bzhi_u64(~(uint64_t)0, (uint32_t)count);
}

/* The lowest `*ties` ones of `equal`; takes them off *ties. No branch: how many there are in a
 * register cannot be predicted. */
static inline uint64_t first_ties(uint64_t equal, int32_t *ties) {
    const int32_t count = tatvpr_min_i32(__builtin_popcountll(equal), *ties);
    *ties -= count;
    return deposit(lowest_bits(count), equal);
}

/* ---- lists */

#if defined(TATVPR_SIMDE)
#define compress_bytes(mask, v) _mm512_maskz_compress_epi8(mask, v)
#else
/* Zen 5's vpcompressb waits for its destination's old value even where it zeroes: five cycles from
 * one to the next. A destination that was just cleared waits for nothing. */
static inline __m512i compress_bytes(uint64_t mask, __m512i v) {
    __m512i to = _mm512_setzero_si512();
    __asm__("vpcompressb %1, %0%{%2%}" : "+v"(to) : "v"(v), "Yk"((__mmask64)mask));
    return to;
}
#endif

static const uint8_t iota[64] __attribute__((aligned(64))) = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
    22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
    44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};

/* Appends the channels first .. first + 63 of `mask`; `first` in every lane. Up to 32, the usual
 * case, half a register holds them: a store across two lines costs two. */
static inline list_end append_64(__m512i q, __m512i first, uint64_t mask, list_end end) {
    const int32_t count = __builtin_popcountll(mask);
    const __m512i where = compress_bytes(mask, _mm512_load_si512(iota));
    const __m512i value = compress_bytes(mask, q);
    const __m512i low = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(where));
    _mm256_storeu_si256((__m256i *)(void *)end.value, _mm512_castsi512_si256(value));
    _mm512_storeu_si512(end.index, _mm512_add_epi16(low, first));
    if (__builtin_expect(count > 32, 0)) {
        const __m512i high = _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(where, 1));
        _mm512_storeu_si512(end.value, value);
        _mm512_storeu_si512(end.index + 32, _mm512_add_epi16(high, first));
    }
    end.index += count;
    end.value += count;
    return end;
}

/* Writes the sum and, of a list, its length; four more entries are zeros, which pads any list. */
static inline void finish(tatvpr_tile *tile, int32_t t, int32_t list, list_end end, __m512i sums) {
    static const uint16_t zeros[4] = {0};
    tile->sum[t] = _mm512_reduce_add_epi32(sums);
    if (list != TATVPR_LIST_NOTHING) {
        tile->count[t] =
            (int32_t)(end.index - (tile->index + (ptrdiff_t)t * tile->list_stride));
        __builtin_memcpy(end.index, zeros, sizeof(zeros));
        __builtin_memcpy(end.value, zeros, 4);
    }
}

TATVPR_SELECT_PARTS(avx512);

#endif
