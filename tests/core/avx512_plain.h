/* What Debian's SIMDe lacks of AVX-512, lane by lane in plain C, and the masked and reducing forms
 * that it has in part. runtime/core/x86/avx512.h takes it, after core.h, for the intrinsics where
 * TATVPR_SIMDE says so: for tests on machines without these instructions, where only results
 * matter. */
#ifndef TATVPR_AVX512_PLAIN_H
#define TATVPR_AVX512_PLAIN_H

#include <stdint.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

/* A register's lanes in memory. */
typedef union tatvpr_lanes {
    int32_t i32[16];
    uint32_t u32[16];
    float f32[16];
    uint8_t u8[64];
    uint16_t u16[32];
} tatvpr_lanes;

static inline tatvpr_lanes tatvpr_lanes_of(__m512i v) {
    tatvpr_lanes lanes;
    __builtin_memcpy(&lanes, &v, sizeof(lanes));
    return lanes;
}

static inline __m512i tatvpr_register(tatvpr_lanes lanes) {
    __m512i v;
    __builtin_memcpy(&v, &lanes, sizeof(v));
    return v;
}

static inline __m512 tatvpr_float_register(tatvpr_lanes lanes) {
    __m512 v;
    __builtin_memcpy(&v, &lanes, sizeof(v));
    return v;
}

static inline tatvpr_lanes tatvpr_float_lanes(__m512 v) {
    tatvpr_lanes lanes;
    __builtin_memcpy(&lanes, &v, sizeof(lanes));
    return lanes;
}

static inline __m512 tatvpr_plain_cvtepi32_ps(__m512i v) {
    tatvpr_lanes lanes = tatvpr_lanes_of(v);
    for (int i = 0; i < 16; i++) {
        lanes.f32[i] = (float)lanes.i32[i];
    }
    return tatvpr_float_register(lanes);
}
#define _mm512_cvtepi32_ps tatvpr_plain_cvtepi32_ps

static inline __m512i tatvpr_plain_cvtps_epi32(__m512 v) {
    const tatvpr_lanes lanes = tatvpr_float_lanes(v);
    return _mm512_inserti64x4(
        _mm512_castsi256_si512(_mm256_cvtps_epi32(_mm256_loadu_ps(lanes.f32))),
        _mm256_cvtps_epi32(_mm256_loadu_ps(lanes.f32 + 8)), 1);
}
#define _mm512_cvtps_epi32 tatvpr_plain_cvtps_epi32

static inline __m512i tatvpr_plain_cvtepu8_epi16(__m256i v) {
    uint8_t from[32];
    tatvpr_lanes lanes;
    _mm256_storeu_si256((__m256i *)(void *)from, v);
    for (int i = 0; i < 32; i++) {
        lanes.u16[i] = from[i];
    }
    return tatvpr_register(lanes);
}
#define _mm512_cvtepu8_epi16 tatvpr_plain_cvtepu8_epi16

static inline __m512i tatvpr_plain_cvtepu8_epi32(__m128i v) {
    uint8_t from[16];
    tatvpr_lanes lanes;
    _mm_storeu_si128((__m128i *)(void *)from, v);
    for (int i = 0; i < 16; i++) {
        lanes.u32[i] = from[i];
    }
    return tatvpr_register(lanes);
}
#define _mm512_cvtepu8_epi32 tatvpr_plain_cvtepu8_epi32

static inline __m512 tatvpr_plain_maskz_loadu_ps(__mmask16 there, const void *p) {
    tatvpr_lanes lanes = {{0}};
    for (int i = 0; i < 16; i++) {
        if (there >> i & 1) {
            __builtin_memcpy(lanes.f32 + i, (const char *)p + 4 * i, 4);
        }
    }
    return tatvpr_float_register(lanes);
}
#define _mm512_maskz_loadu_ps tatvpr_plain_maskz_loadu_ps

static inline void tatvpr_plain_mask_storeu_ps(void *p, __mmask16 there, __m512 v) {
    const tatvpr_lanes lanes = tatvpr_float_lanes(v);
    for (int i = 0; i < 16; i++) {
        if (there >> i & 1) {
            __builtin_memcpy((char *)p + 4 * i, lanes.f32 + i, 4);
        }
    }
}
#define _mm512_mask_storeu_ps tatvpr_plain_mask_storeu_ps

#define _mm512_maskz_loadu_epi32(there, p) \
    _mm512_castps_si512(tatvpr_plain_maskz_loadu_ps(there, p))
#define _mm512_mask_storeu_epi32(p, there, v) \
    tatvpr_plain_mask_storeu_ps(p, there, _mm512_castsi512_ps(v))
#define _mm512_shuffle_f32x4(a, b, lanes)                                               \
    _mm512_castsi512_ps(                                                                \
        _mm512_shuffle_i32x4(_mm512_castps_si512(a), _mm512_castps_si512(b), lanes))

static inline __m512i tatvpr_plain_maskz_loadu_epi8(__mmask64 there, const void *p) {
    tatvpr_lanes lanes = {{0}};
    for (int i = 0; i < 64; i++) {
        if (there >> i & 1) {
            lanes.u8[i] = ((const uint8_t *)p)[i];
        }
    }
    return tatvpr_register(lanes);
}
#define _mm512_maskz_loadu_epi8 tatvpr_plain_maskz_loadu_epi8

static inline void tatvpr_plain_mask_storeu_epi8(void *p, __mmask64 there, __m512i v) {
    const tatvpr_lanes lanes = tatvpr_lanes_of(v);
    for (int i = 0; i < 64; i++) {
        if (there >> i & 1) {
            ((uint8_t *)p)[i] = lanes.u8[i];
        }
    }
}
#define _mm512_mask_storeu_epi8 tatvpr_plain_mask_storeu_epi8

static inline __m512i tatvpr_plain_maskz_compress_epi8(__mmask64 there, __m512i v) {
    const tatvpr_lanes from = tatvpr_lanes_of(v);
    tatvpr_lanes to = {{0}};
    int n = 0;
    for (int i = 0; i < 64; i++) {
        if (there >> i & 1) {
            to.u8[n++] = from.u8[i];
        }
    }
    return tatvpr_register(to);
}
#define _mm512_maskz_compress_epi8 tatvpr_plain_maskz_compress_epi8

static inline __m512i tatvpr_plain_maskz_compress_epi16(__mmask32 there, __m512i v) {
    const tatvpr_lanes from = tatvpr_lanes_of(v);
    tatvpr_lanes to = {{0}};
    int n = 0;
    for (int i = 0; i < 32; i++) {
        if (there >> i & 1) {
            to.u16[n++] = from.u16[i];
        }
    }
    return tatvpr_register(to);
}
#define _mm512_maskz_compress_epi16 tatvpr_plain_maskz_compress_epi16

static inline __m128i tatvpr_plain_cvtusepi32_epi8(__m512i v) {
    const tatvpr_lanes lanes = tatvpr_lanes_of(v);
    uint8_t bytes[16];
    for (int i = 0; i < 16; i++) {
        bytes[i] = (uint8_t)(lanes.u32[i] > 255 ? 255 : lanes.u32[i]);
    }
    return _mm_loadu_si128((const __m128i *)(const void *)bytes);
}
#define _mm512_cvtusepi32_epi8 tatvpr_plain_cvtusepi32_epi8

static inline __m256i tatvpr_plain_cvtepi32_epi16(__m512i v) {
    const tatvpr_lanes lanes = tatvpr_lanes_of(v);
    int16_t words[16];
    for (int i = 0; i < 16; i++) {
        words[i] = (int16_t)lanes.i32[i];
    }
    return _mm256_loadu_si256((const __m256i *)(const void *)words);
}
#define _mm512_cvtepi32_epi16 tatvpr_plain_cvtepi32_epi16

static inline __m128i tatvpr_plain_cvtepi64_epi16(__m512i v) {
    const tatvpr_lanes lanes = tatvpr_lanes_of(v);
    int16_t words[8];
    for (int i = 0; i < 8; i++) {
        words[i] = (int16_t)lanes.i32[2 * i];
    }
    return _mm_loadu_si128((const __m128i *)(const void *)words);
}
#define _mm512_cvtepi64_epi16 tatvpr_plain_cvtepi64_epi16

static inline __m512i tatvpr_plain_cvtepi16_epi32(__m256i v) {
    int16_t words[16];
    tatvpr_lanes lanes;
    _mm256_storeu_si256((__m256i *)(void *)words, v);
    for (int i = 0; i < 16; i++) {
        lanes.i32[i] = words[i];
    }
    return tatvpr_register(lanes);
}
#define _mm512_cvtepi16_epi32 tatvpr_plain_cvtepi16_epi32

static inline __mmask32 tatvpr_plain_cmpgt_epi16_mask(__m512i a, __m512i b) {
    const tatvpr_lanes x = tatvpr_lanes_of(a), y = tatvpr_lanes_of(b);
    __mmask32 mask = 0;
    for (int i = 0; i < 32; i++) {
        mask |= (__mmask32)((int16_t)x.u16[i] > (int16_t)y.u16[i]) << i;
    }
    return mask;
}
#define _mm512_cmpgt_epi16_mask tatvpr_plain_cmpgt_epi16_mask

#define _mm512_extractf32x8_ps(v, half) \
    _mm256_castsi256_ps(_mm512_extracti64x4_epi64(_mm512_castps_si512(v), half))

static inline __mmask16 tatvpr_plain_cmplt_epu32_mask(__m512i a, __m512i b) {
    const tatvpr_lanes x = tatvpr_lanes_of(a), y = tatvpr_lanes_of(b);
    uint32_t mask = 0;
    for (int i = 0; i < 16; i++) {
        mask |= (uint32_t)(x.u32[i] < y.u32[i]) << i;
    }
    return (__mmask16)mask;
}
#define _mm512_cmplt_epu32_mask tatvpr_plain_cmplt_epu32_mask

static inline int32_t tatvpr_plain_reduce_max_epi32(__m512i v) {
    const tatvpr_lanes lanes = tatvpr_lanes_of(v);
    int32_t most = lanes.i32[0];
    for (int i = 1; i < 16; i++) {
        most = tatvpr_max_i32(most, lanes.i32[i]);
    }
    return most;
}
#define _mm512_reduce_max_epi32 tatvpr_plain_reduce_max_epi32

static inline float tatvpr_plain_reduce_max_ps(__m512 v) {
    const tatvpr_lanes lanes = tatvpr_float_lanes(v);
    float most = lanes.f32[0];
    for (int i = 1; i < 16; i++) {
        most = lanes.f32[i] > most ? lanes.f32[i] : most;
    }
    return most;
}
#define _mm512_reduce_max_ps tatvpr_plain_reduce_max_ps

static inline int32_t tatvpr_plain_reduce_add_epi32(__m512i v) {
    const tatvpr_lanes lanes = tatvpr_lanes_of(v);
    int32_t sum = 0;
    for (int i = 0; i < 16; i++) {
        sum += lanes.i32[i];
    }
    return sum;
}
#define _mm512_reduce_add_epi32 tatvpr_plain_reduce_add_epi32

/* BMI2, which comes with them. */
static inline uint64_t tatvpr_plain_pdep_u64(uint64_t bits, uint64_t at) {
    uint64_t to = 0;
    for (; at != 0; at &= at - 1u, bits >>= 1) {
        to |= (bits & 1u) * (at & (~at + 1u));
    }
    return to;
}
#define _pdep_u64 tatvpr_plain_pdep_u64

static inline uint64_t tatvpr_plain_bzhi_u64(uint64_t bits, uint32_t count) {
    return count < 64 ? bits & (((uint64_t)1 << count) - 1u) : bits;
}
#define _bzhi_u64 tatvpr_plain_bzhi_u64

#endif
