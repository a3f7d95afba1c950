/* AVX2: the gate's choice. A threshold is found bit by bit with compare-and-count over the whole
 * row; ties at the threshold go to the lower index; kept channels are compressed by table. */
#include "avx2.h"
#include "compress_table.h"

enum { MOST_CHANNELS = 4096 }; /* rows up to this are ranked from the stack; longer: portable */

static __m256i load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* All ones in every byte whose bit of `mask` is set. */
static __m256i spread_bits(uint32_t mask) {
    const __m256i which = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2,
                                           2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i bits = _mm256_set1_epi64x((int64_t)0x8040201008040201);
    const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32((int32_t)mask), which);
    return _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bits), bits);
}

/* The lowest `*ties` ones of `equal`; takes them off *ties. */
static uint32_t first_ties(uint32_t equal, int32_t *ties) {
    const int32_t count = __builtin_popcount(equal);
    if (count <= *ties) {
        *ties -= count;
        return equal;
    }
    uint32_t kept = 0;
    for (; *ties > 0; (*ties)--) { /* once a row at most */
        kept |= equal & (~equal + 1u);
        equal &= equal - 1u;
    }
    return kept;
}

/* Appends the channels of `mask` (32 channels from `base`) to the list; answers its new length. */
static int32_t append(const int8_t *q, int32_t base, uint32_t mask, uint16_t *index, int8_t *value,
                      int32_t n) {
    for (int32_t part = 0; part < 4; part++, mask >>= 8) {
        const uint32_t byte = mask & 255u;
        const __m128i shuffle =
            _mm_loadl_epi64((const __m128i *)(const void *)&tatvpr_compress_table[byte]);
        const int32_t first = base + 8 * part;
        const __m128i values =
            _mm_shuffle_epi8(_mm_loadl_epi64((const __m128i *)(const void *)(q + first)), shuffle);
        const __m128i indices =
            _mm_add_epi16(_mm_cvtepu8_epi16(shuffle), _mm_set1_epi16((int16_t)first));
        _mm_storeu_si128((__m128i *)(void *)(index + n), indices);
        _mm_storel_epi64((__m128i *)(void *)(value + n), values);
        n += __builtin_popcount(byte);
    }
    return n;
}

static void close_list(tatvpr_tile *tile, int32_t t, int32_t n) {
    tile->count[t] = n;
    uint16_t *index = tile->index + (ptrdiff_t)t * tile->list_stride;
    int8_t *value = tile->value + (ptrdiff_t)t * tile->list_stride;
    for (; n % 4 != 0; n++) {
        index[n] = 0;
        value[n] = 0;
    }
}

/* What selection of channels and of groups share: 32 channels with the mask of the kept ones. */
typedef struct writer {
    tatvpr_tile *tile;
    int8_t *q;
    uint16_t *index;
    int8_t *value;
    int32_t listed;
    int32_t list;
    __m256i sums; /* eight partial sums of q */
} writer;

static writer begin(tatvpr_tile *tile, int32_t t, int32_t list) {
    writer w;
    w.tile = tile;
    w.q = tile->q + (ptrdiff_t)t * tile->q_stride;
    w.index = list ? tile->index + (ptrdiff_t)t * tile->list_stride : NULL;
    w.value = list ? tile->value + (ptrdiff_t)t * tile->list_stride : NULL;
    w.listed = 0;
    w.list = list;
    w.sums = _mm256_setzero_si256();
    return w;
}

static void keep_32(writer *w, int32_t base, __m256i kept_bytes) {
    const __m256i kept = _mm256_and_si256(load(w->q + base), kept_bytes);
    _mm256_storeu_si256((__m256i *)(void *)(w->q + base), kept);
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), kept);
    w->sums = _mm256_add_epi32(w->sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    if (w->list) {
        const __m256i zero = _mm256_cmpeq_epi8(kept, _mm256_setzero_si256());
        const uint32_t mask = ~(uint32_t)_mm256_movemask_epi8(zero);
        w->listed = append(w->q, base, mask, w->index, w->value, w->listed);
    }
}

static void finish(writer *w, int32_t t) {
    w->tile->sum[t] = tatvpr_sum_epi32(w->sums);
    if (w->list) {
        close_list(w->tile, t, w->listed);
    }
}

/* ---- single channels */

static int32_t count_above(const uint8_t *a, int32_t padded, int32_t bound) {
    const __m256i limit = _mm256_set1_epi8((int8_t)bound);
    __m256i counts = _mm256_setzero_si256(); /* bytes: at most MOST_CHANNELS / 32 = 128 each */
    for (int32_t i = 0; i < padded; i += 32) {
        counts = _mm256_sub_epi8(counts, _mm256_cmpgt_epi8(load(a + i), limit));
    }
    return tatvpr_sum_epi32(_mm256_sad_epu8(counts, _mm256_setzero_si256()));
}

static void select_channels(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t list) {
    uint8_t magnitude[MOST_CHANNELS];
    const int32_t padded = (tile->k_in + 31) / 32 * 32;
    writer w = begin(tile, t, list);
    for (int32_t i = 0; i < padded; i += 32) {
        _mm256_storeu_si256((__m256i *)(void *)(magnitude + i), _mm256_abs_epi8(load(w.q + i)));
    }
    int32_t least = 0; /* the largest threshold that at least `keep` channels reach */
    for (int32_t bit = 64; bit > 0; bit /= 2) {
        const int32_t reached = count_above(magnitude, padded, least + bit - 1);
        least += reached >= keep ? bit : 0;
    }
    /* With least = 0 the padding would tie; it comes last, and is zero whether kept or not. */
    int32_t ties = keep - count_above(magnitude, padded, least);
    const __m256i bound = _mm256_set1_epi8((int8_t)least);
    for (int32_t i = 0; i < padded; i += 32) {
        const __m256i a = load(magnitude + i);
        const uint32_t equal = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(a, bound));
        const __m256i kept = spread_bits(first_ties(equal, &ties));
        keep_32(&w, i, _mm256_or_si256(kept, _mm256_cmpgt_epi8(a, bound)));
    }
    finish(&w, t);
}

/* ---- aligned groups of four */

static int32_t count_groups_above(const int16_t *scores, int32_t padded, int32_t bound) {
    const __m256i limit = _mm256_set1_epi16((int16_t)bound);
    __m256i counts = _mm256_setzero_si256();
    for (int32_t i = 0; i < padded; i += 16) {
        counts = _mm256_sub_epi16(counts, _mm256_cmpgt_epi16(load(scores + i), limit));
    }
    return tatvpr_sum_epi32(_mm256_madd_epi16(counts, _mm256_set1_epi16(1)));
}

/* Eight groups' masks as eight int32 of ones, as bytes of their channels. */
static void select_fours(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t list) {
    int16_t scores[MOST_CHANNELS / 4];
    const int32_t channels = (tile->k_in + 63) / 64 * 64; /* the row is padded that far */
    const int32_t groups = channels / 4;
    writer w = begin(tile, t, list);
    const __m256i ones8 = _mm256_set1_epi8(1);
    const __m256i ones16 = _mm256_set1_epi16(1);
    for (int32_t i = 0; i < channels; i += 64) {
        const __m256i a = _mm256_maddubs_epi16(_mm256_abs_epi8(load(w.q + i)), ones8);
        const __m256i b = _mm256_maddubs_epi16(_mm256_abs_epi8(load(w.q + i + 32)), ones8);
        const __m256i packed =
            _mm256_packs_epi32(_mm256_madd_epi16(a, ones16), _mm256_madd_epi16(b, ones16));
        _mm256_storeu_si256((__m256i *)(void *)(scores + i / 4),
                            _mm256_permute4x64_epi64(packed, 0xD8));
    }
    int32_t least = 0;
    for (int32_t bit = 256; bit > 0; bit /= 2) {
        const int32_t reached = count_groups_above(scores, groups, least + bit - 1);
        least += reached >= keep ? bit : 0;
    }
    int32_t ties = keep - count_groups_above(scores, groups, least);
    const __m256i bound = _mm256_set1_epi32(least);
    for (int32_t i = 0; i < channels; i += 32) {
        const __m256i s = _mm256_cvtepi16_epi32(
            _mm_loadu_si128((const __m128i *)(const void *)(scores + i / 4)));
        const __m256i equal = _mm256_cmpeq_epi32(s, bound);
        const uint32_t bits = (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(equal));
        const uint32_t first = first_ties(bits, &ties);
        const __m256i lanes = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
        const __m256i kept = _mm256_cmpeq_epi32(
            _mm256_and_si256(_mm256_set1_epi32((int32_t)first), lanes), lanes);
        keep_32(&w, i, _mm256_or_si256(kept, _mm256_cmpgt_epi32(s, bound)));
    }
    finish(&w, t);
}

static void keep_all(tatvpr_tile *tile, int32_t t, int32_t list) {
    writer w = begin(tile, t, list);
    for (int32_t i = 0; i < tile->k_in; i += 32) {
        keep_32(&w, i, _mm256_set1_epi8(-1));
    }
    finish(&w, t);
}

void tatvpr_avx2_select(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t group, int32_t list) {
    if (keep >= tile->k_in / group) {
        keep_all(tile, t, list);
    } else if (group == 1 && tile->k_in <= MOST_CHANNELS) {
        select_channels(tile, t, keep, list);
    } else if (group == 4 && tile->k_in <= MOST_CHANNELS) {
        select_fours(tile, t, keep, list);
    } else {
        tatvpr_portable_select(tile, t, keep, group, list);
    }
}
