/* One shared library of all kernels, run on the CPU; see cuda_on_cpu.h. The generated *.inc files
 * are the kernels' own sources with two lines exchanged (dynamic shared memory, the mma). */
#include "cuda_on_cpu.h"

namespace gate_token {
#include "gate_token.inc"
#undef THREADS
#undef WARPS
#undef FULL_WARP
}
namespace gate_image {
#include "gate_image.inc"
#undef THREADS
#undef WARPS
#undef FULL_WARP
}
namespace ternary_mma {
#include "ternary_mma.inc"
#undef THREADS
}
namespace ternary_dp4a {
#include "ternary_dp4a.inc"
#undef THREADS
#undef TOKENS
#undef FULL_WARP
}
namespace patch_embed {
#include "patch_embed.inc"
#undef THREADS
#undef FULL_WARP
}
namespace attention {
#include "attention.inc"
#undef THREADS
#undef WARPS
#undef FULL_WARP
}
namespace keep_tokens {
#include "keep_tokens.inc"
#undef THREADS
#undef SELECT_THREADS
}

extern "C" {
void run_gate_token(const float *x, const float *k, signed char *q, float *s, int tokens,
                    int channels, int group) {
    emu::launch(tokens, 1, 128,
                [&] { gate_token::tatvpr_gate_token(x, k, q, s, channels, group); });
}
void run_quantise_score(const float *x, signed char *q, float *s, int *score, int tokens,
                        int channels, int group) {
    emu::launch(tokens, 1, 128,
                [&] { gate_image::tatvpr_quantise_score(x, q, s, score, channels, group); });
}
void run_image_select(const int *score, const float *k, int *index, int *count, int groups,
                      int group) {
    emu::launch(1, 1, 256,
                [&] { gate_image::tatvpr_image_select(score, k, index, count, groups, group); });
}
void run_image_compact(const signed char *q, const int *index, const int *count,
                       signed char *compact, int tokens, int channels, int width) {
    emu::launch(tokens, 1, 128, [&] {
        gate_image::tatvpr_image_compact(q, index, count, compact, channels, width);
    });
}
void run_ternary_gather(const unsigned char *weights, const int *index, const int *count,
                        unsigned char *compact, int outputs, int row_bytes, int width) {
    emu::launch(outputs, 1, 128, [&] {
        gate_image::tatvpr_ternary_gather(weights, index, count, compact, row_bytes, width);
    });
}
void run_ternary(int use_mma, const signed char *q, const float *s, const unsigned char *w,
                 const float *scale, const float *bias, float *y, int tokens, int channels,
                 int outputs, int row_bytes, int per_row, const int *active) {
    if (use_mma)
        emu::launch((outputs + 63) / 64, (tokens + 63) / 64, 128, [&] {
            ternary_mma::tatvpr_ternary_mma(q, s, w, scale, bias, y, tokens, channels, outputs,
                                            row_bytes, per_row, active);
        });
    else
        emu::launch((outputs + 3) / 4, (tokens + 7) / 8, 128, [&] {
            ternary_dp4a::tatvpr_ternary_dp4a(q, s, w, scale, bias, y, tokens, channels, outputs,
                                              row_bytes, per_row, active);
        });
}
void run_patch_embed(const unsigned char *pixels, const signed char *w, const float *scale,
                     const float *bias, float *y, int side, int patch, int dim) {
    emu::launch((side / patch) * (side / patch), 1, 128, [&] {
        patch_embed::tatvpr_patch_embed(pixels, w, scale, bias, y, side, patch, dim);
    });
}
void run_attention(const float *qkv, float *y, float *a, signed char *q8, signed char *k8,
                   signed char *v8, float *q_scales, float *scales, float *cls, int tokens,
                   int dim, int heads, int padded) {
    using namespace attention;
    emu::launch(heads, 2, 128,
                [&] { tatvpr_attention_scales(qkv, scales, tokens, dim, heads); });
    emu::launch(tokens, (heads + 3) / 4, 128, [&] {
        tatvpr_attention_quantise(qkv, scales, q8, k8, v8, q_scales, tokens, dim, heads, padded);
    });
    emu::launch(heads, (tokens + 3) / 4, 128, [&] {
        tatvpr_attention(q8, k8, v8, q_scales, scales, y, cls, tokens, dim, heads, padded);
    });
    emu::launch((tokens + 127) / 128, 1, 128,
                [&] { tatvpr_attention_cls(cls, a, tokens, heads); });
}
void run_keep_tokens(const float *x, const float *a, int *source, float *y, int tokens, int dim,
                     int n) {
    emu::launch(1, 1, 256, [&] { keep_tokens::tatvpr_keep_select(a, source, tokens, n); });
    emu::launch(1 + n, 1, 128, [&] { keep_tokens::tatvpr_keep_gather(x, source, y, dim); });
}
}
