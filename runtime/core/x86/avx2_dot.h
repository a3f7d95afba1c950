/* Assembly text of dot products: all that AVX2 and AVX-VNNI do differently. A file that uses it is
 * compiled once as it is, for AVX2, and once more from a file avx_vnni_*.c.
 *
 * Written in assembly because compilers otherwise delay the additions and spill. TATVPR_SIMDE
 * (tests on machines without AVX-VNNI) spells its instructions with those of AVX2.
 */
#ifndef TATVPR_AVX2_DOT_H
#define TATVPR_AVX2_DOT_H

#if defined(TATVPR_AVX_VNNI)
#define TATVPR_VEX(name) tatvpr_avx_vnni_##name
#else
#define TATVPR_VEX(name) tatvpr_avx2_##name
#endif

#if defined(TATVPR_AVX_VNNI) && !defined(TATVPR_SIMDE)
/* a += x . v0 and b += x . v1 by pairs of int16 */
#define TATVPR_DOTS_I16                        \
    "%{vex%} vpdpwssd %[v0], %[x], %[a]\n\t" \
    "%{vex%} vpdpwssd %[v1], %[x], %[b]"
/* a += x . v0 and b += x . v1 by fours of uint8 (x, at most 127) and int8 (v0, v1) */
#define TATVPR_DOTS_U7                         \
    "%{vex%} vpdpbusd %[v0], %[x], %[a]\n\t" \
    "%{vex%} vpdpbusd %[v1], %[x], %[b]"
/* a += w0 . x and b += w1 . x by fours of uint8 (w0, w1: codes 0..2) and int8 (x) */
#define TATVPR_DOTS_CODES(a, b)                \
    "%{vex%} vpdpbusd %[x], %[w0], " a "\n\t" \
    "%{vex%} vpdpbusd %[x], %[w1], " b "\n\t"
/* sum += w . x likewise, which leaves x as it is */
#define TATVPR_DOT_CODES(sum, w) "%{vex%} vpdpbusd %[x], " w ", " sum "\n\t"
#else
#define TATVPR_DOTS_I16              \
    "vpmaddwd %[v0], %[x], %[y]\n\t" \
    "vpmaddwd %[v1], %[x], %[x]\n\t" \
    "vpaddd %[y], %[a], %[a]\n\t"    \
    "vpaddd %[x], %[b], %[b]"
#define TATVPR_DOTS_U7                 \
    "vpmaddubsw %[v0], %[x], %[y]\n\t" \
    "vpmaddubsw %[v1], %[x], %[x]\n\t" \
    "vpmaddwd %[ones], %[y], %[y]\n\t" \
    "vpmaddwd %[ones], %[x], %[x]\n\t" \
    "vpaddd %[y], %[a], %[a]\n\t"      \
    "vpaddd %[x], %[b], %[b]"
#if defined(TATVPR_AVX_VNNI)
#define TATVPR_DOTS_CODES(a, b)        \
    "vpmaddubsw %[x], %[w0], %[y]\n\t" \
    "vpmaddubsw %[x], %[w1], %[x]\n\t" \
    "vpmaddwd %[ones], %[y], %[y]\n\t" \
    "vpmaddwd %[ones], %[x], %[x]\n\t" \
    "vpaddd %[y], " a ", " a "\n\t"    \
    "vpaddd %[x], " b ", " b "\n\t"
#define TATVPR_DOT_CODES(sum, w)           \
    "vpmaddubsw %[x], " w ", %[y]\n\t"     \
    "vpmaddwd %[ones], %[y], %[y]\n\t"     \
    "vpaddd %[y], " sum ", " sum "\n\t"
#else /* sums stay in 16 bits: the kernels widen them */
#define TATVPR_DOTS_CODES(a, b)        \
    "vpmaddubsw %[x], %[w0], %[y]\n\t" \
    "vpmaddubsw %[x], %[w1], %[x]\n\t" \
    "vpaddw %[y], " a ", " a "\n\t"    \
    "vpaddw %[x], " b ", " b "\n\t"
#define TATVPR_DOT_CODES(sum, w)       \
    "vpmaddubsw %[x], " w ", %[y]\n\t" \
    "vpaddw %[y], " sum ", " sum "\n\t"
#endif
#endif

static const int16_t ONES[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

/* Sums of codes to 32 bits, where they are not. */
static inline __m256i widen(__m256i sums) {
#if defined(TATVPR_AVX_VNNI)
    return sums;
#else
    return _mm256_madd_epi16(sums, _mm256_loadu_si256((const __m256i *)(const void *)ONES));
#endif
}

#endif
