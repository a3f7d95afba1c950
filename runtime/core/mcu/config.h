/* Sizes of a microcontroller build (TATVPR_MCU); common/kernels.h includes them. */
#ifndef TATVPR_MCU_CONFIG_H
#define TATVPR_MCU_CONFIG_H

/* The features in the board's file choose the variant; the compiler's target must have them. */
#if defined(TATVPR_MCU_HELIUM) && !defined(__ARM_FEATURE_MVE)
#error "the board's features name mve, which its compiler flags do not give: correct one of them"
#elif defined(TATVPR_MCU_DSP) && !defined(__ARM_FEATURE_DSP)
#error "the board's features name dsp, which its compiler flags do not give: correct one of them"
#elif defined(TATVPR_MCU_HELIUM) && !(__ARM_FEATURE_MVE & 2)
#error "mve kernels need Helium with floats, which the flags do not give: correct flags or features"
#elif defined(TATVPR_MCU_DSP) && !defined(__ARM_FP)
#error "dsp kernels need an FPU: give -mfpu and -mfloat-abi, or name no dsp in the board's features"
#endif

/* Tokens that share one unpacking of the weights. The MLP's hidden layer of a tile lives in the
 * arena (3 kB a token at dim 192), so this trades RAM for instructions. 65 tokens are 40 + 25 (M4, M7: eight at a time), or one tile on
 * cores with Helium, which have megabytes. */
#ifndef TATVPR_TILE_TOKENS
#if defined(TATVPR_MCU_HELIUM)
#define TATVPR_TILE_TOKENS 66
#else
#define TATVPR_TILE_TOKENS 40
#endif
#endif

#ifndef TATVPR_TILE_ROUND
#if defined(TATVPR_MCU_HELIUM)
#define TATVPR_TILE_ROUND 3
#else
#define TATVPR_TILE_ROUND 8
#endif
#endif

/* Four Helium vectors, or the 16 channels of one word of TATVPR_LAYOUT_LUT4. */
#ifndef TATVPR_ROW_ALIGN
#if defined(TATVPR_MCU_HELIUM)
#define TATVPR_ROW_ALIGN 64
#else
#define TATVPR_ROW_ALIGN 16
#endif
#endif

/* Lists are made of half the channels at most. */
#ifndef TATVPR_SPARSE_MOST
#define TATVPR_SPARSE_MOST 0.5f
#endif
#ifndef TATVPR_LIST_STRIDE
#define TATVPR_LIST_STRIDE(k_in) ((((k_in) + 1) / 2 + 63) / 64 * 64 + 64)
#endif

/* Look-up tables and accumulators (M4, M7, RV32), or 32 unpacked rows of weights, padded as rows of
 * activations are (M55). */
#ifndef TATVPR_PANEL_BYTES
#define TATVPR_PANEL_ROWS(k_in) \
    (((size_t)(k_in) + TATVPR_ROW_ALIGN - 1u) / TATVPR_ROW_ALIGN * TATVPR_ROW_ALIGN * 32u)
#define TATVPR_PANEL_BYTES(k_in) \
    ((TATVPR_PANEL_ROWS(k_in) > 45056u ? TATVPR_PANEL_ROWS(k_in) : (size_t)45056u) + 1024u)
#endif

#endif
