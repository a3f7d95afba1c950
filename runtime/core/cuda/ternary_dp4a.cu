// TernaryMatMul without tensor cores: four products an instruction (dp4a), sm_61 or newer.
//
//   q [T, K] int8, weights [N, row_bytes] two bits each (code = w + 1), y [T, N] float32.
//
// For a handful of tokens, where a 64-token tile would be mostly padding. One warp an output
// channel and eight tokens; lanes share the channels. Header-free CUDA C++.
//
// `active`: see ternary_mma.cu.
//
// Launch: grid = (ceil(N / 4), ceil(T / 8)), block = 128. K is a multiple of 4, rows 4-byte aligned.

#define THREADS 128
#define TOKENS 8
#define FULL_WARP 0xffffffffu

extern "C" __global__ void __launch_bounds__(THREADS)
    tatvpr_ternary_dp4a(const signed char *__restrict__ q, const float *__restrict__ s,
                        const unsigned char *__restrict__ weights,
                        const float *__restrict__ scale, const float *__restrict__ bias,
                        float *__restrict__ y, int tokens, int channels, int outputs,
                        int row_bytes, int scale_per_row, const int *__restrict__ active) {
    const int lane = threadIdx.x & 31;
    const int n = blockIdx.x * (THREADS / 32) + (threadIdx.x >> 5);
    const int first_token = blockIdx.y * TOKENS;
    if (n >= outputs) return; // a whole warp at a time
    const unsigned char *row = weights + (long long)n * row_bytes;

    const int limit = active && *active < channels ? (*active + 3) / 4 : channels / 4;
    int acc[TOKENS] = {};
    for (int quad = lane; quad < limit; quad += 32) {
        const unsigned byte = row[quad];
        const unsigned codes = (byte | byte << 6 | byte << 12 | byte << 18) & 0x03030303u;
        const int w = (int)(((codes | 0x80808080u) - 0x01010101u) ^ 0x80808080u);
#pragma unroll
        for (int i = 0; i < TOKENS; ++i) {
            const int t = first_token + i;
            if (t < tokens)
                acc[i] = __dp4a(*(const int *)(q + (long long)t * channels + quad * 4), w, acc[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < TOKENS; ++i) {
        for (int offset = 16; offset; offset >>= 1)
            acc[i] += __shfl_xor_sync(FULL_WARP, acc[i], offset);
        const int t = first_token + i;
        if (lane == 0 && t < tokens) {
            const float scaled = __fmul_rn((float)acc[i], s[t]);
            const float product = __fmul_rn(scaled, scale[scale_per_row ? n : 0]);
            y[(long long)t * outputs + n] = __fadd_rn(product, bias[n]);
        }
    }
}
