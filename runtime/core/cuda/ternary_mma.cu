// TernaryMatMul on int8 tensor cores: y[t, n] = (acc * s[t]) * scale[n or 0] + bias[n].
//
//   q [T, K] int8, weights [N, row_bytes] two bits each (code = w + 1), y [T, N] float32.
//
// mma.sync.m16n8k32: a thread's B fragment is four neighbouring weights of one row, which is
// exactly one packed byte: weights are unpacked in registers, never in memory. A block computes
// 64 tokens x 64 outputs with four warps of 32 x 32. Header-free CUDA C++; needs sm_80 or newer.
//
// Launch: grid = (ceil(N / 64), ceil(T / 64)), block = 128, no dynamic shared memory.
// `active`, if not null, holds how many leading channels are not all zero: the image-scope gate
// compacts its activations, and the loop then ends there. K is a multiple of 4 (pad the activations with zeros); q rows are 4-byte aligned.

#define TILE_T 64
#define TILE_N 64
#define TILE_K 64
#define THREADS 128
// Rows of shared memory are padded so that the eight rows of a fragment fall into other banks.
#define A_STRIDE (TILE_K + 16)
#define B_STRIDE (TILE_K / 4 + 4)

__device__ static unsigned unpack4(unsigned byte) {
    // codes c0 c1 c2 c3 at bits 0 2 4 6 -> one a byte, then minus one in every byte
    const unsigned codes = (byte | byte << 6 | byte << 12 | byte << 18) & 0x03030303u;
    return ((codes | 0x80808080u) - 0x01010101u) ^ 0x80808080u;
}

__device__ static void mma_16x8x32(int *c, const unsigned *a, const unsigned *b) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

extern "C" __global__ void __launch_bounds__(THREADS)
    tatvpr_ternary_mma(const signed char *__restrict__ q, const float *__restrict__ s,
                       const unsigned char *__restrict__ weights,
                       const float *__restrict__ scale, const float *__restrict__ bias,
                       float *__restrict__ y, int tokens, int channels, int outputs,
                       int row_bytes, int scale_per_row, const int *__restrict__ active) {
    __shared__ __align__(16) unsigned char a_tile[TILE_T * A_STRIDE];
    __shared__ __align__(16) unsigned char b_tile[TILE_N * B_STRIDE];

    const int thread = threadIdx.x;
    const int lane = thread & 31;
    const int warp = thread >> 5;
    const int first_token = blockIdx.y * TILE_T;
    const int first_output = blockIdx.x * TILE_N;
    const int warp_token = (warp & 1) * 32;
    const int warp_output = (warp >> 1) * 32;
    const int row = lane >> 2; // of a fragment
    const int quad = lane & 3; // which four neighbouring channels

    const int limit = active && *active < channels ? *active : channels;
    int acc[2][4][4] = {};
    for (int first = 0; first < limit; first += TILE_K) {
        // activations: 64 rows of 64 bytes as 4-byte words, zeros outside
        for (int i = thread; i < TILE_T * TILE_K / 4; i += THREADS) {
            const int r = i / (TILE_K / 4), c = (i % (TILE_K / 4)) * 4;
            unsigned word = 0;
            if (first_token + r < tokens && first + c < channels)
                word = *(const unsigned *)(q + (long long)(first_token + r) * channels + first + c);
            *(unsigned *)(a_tile + r * A_STRIDE + c) = word;
        }
        // weights: 64 rows of 16 bytes; code 1 (0x55) outside
        for (int i = thread; i < TILE_N * TILE_K / 4; i += THREADS) {
            const int r = i / (TILE_K / 4), c = i % (TILE_K / 4);
            unsigned char byte = 0x55;
            if (first_output + r < outputs && first / 4 + c < row_bytes)
                byte = weights[(long long)(first_output + r) * row_bytes + first / 4 + c];
            b_tile[r * B_STRIDE + c] = byte;
        }
        __syncthreads();
#pragma unroll
        for (int k0 = 0; k0 < TILE_K; k0 += 32) {
            unsigned b[4][2];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const unsigned char *at =
                    b_tile + (warp_output + j * 8 + row) * B_STRIDE + k0 / 4 + quad;
                b[j][0] = unpack4(at[0]);
                b[j][1] = unpack4(at[4]);
            }
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const unsigned char *at =
                    a_tile + (warp_token + i * 16 + row) * A_STRIDE + k0 + quad * 4;
                unsigned a[4];
                a[0] = *(const unsigned *)(at);
                a[1] = *(const unsigned *)(at + 8 * A_STRIDE);
                a[2] = *(const unsigned *)(at + 16);
                a[3] = *(const unsigned *)(at + 8 * A_STRIDE + 16);
#pragma unroll
                for (int j = 0; j < 4; ++j) mma_16x8x32(acc[i][j], a, b[j]);
            }
        }
        __syncthreads();
    }

#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int part = 0; part < 4; ++part) {
                const int t = first_token + warp_token + i * 16 + row + (part >> 1) * 8;
                const int n = first_output + warp_output + j * 8 + quad * 2 + (part & 1);
                if (t >= tokens || n >= outputs) continue;
                const float scaled = __fmul_rn((float)acc[i][j][part], s[t]);
                const float product = __fmul_rn(scaled, scale[scale_per_row ? n : 0]);
                y[(long long)t * outputs + n] = __fadd_rn(product, bias[n]);
            }
}
