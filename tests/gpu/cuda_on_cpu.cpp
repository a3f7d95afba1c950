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
                 int outputs, int row_bytes, int per_row) {
    if (use_mma)
        emu::launch((outputs + 63) / 64, (tokens + 63) / 64, 128, [&] {
            ternary_mma::tatvpr_ternary_mma(q, s, w, scale, bias, y, tokens, channels, outputs,
                                            row_bytes, per_row);
        });
    else
        emu::launch((outputs + 3) / 4, (tokens + 7) / 8, 128, [&] {
            ternary_dp4a::tatvpr_ternary_dp4a(q, s, w, scale, bias, y, tokens, channels, outputs,
                                              row_bytes, per_row);
        });
}
}
