// PatchEmbed: uint8 [S, S, 3] -> float32 [(S / P)^2, D]; y = acc * scale + bias, unfused.
//
// A block stages one patch (p - 128 as int8) in shared memory; a warp takes an output channel, its
// lanes share the patch's bytes. P is even, so that a patch is whole 4-byte words.
// Header-free CUDA C++.
//
// Launch: grid = (S / P)^2, block = 128, dynamic shared memory = P * P * 3 bytes.

#define THREADS 128
#define FULL_WARP 0xffffffffu

extern "C" __global__ void __launch_bounds__(THREADS)
    tatvpr_patch_embed(const unsigned char *__restrict__ pixels,
                       const signed char *__restrict__ weights, const float *__restrict__ scale,
                       const float *__restrict__ bias, float *__restrict__ y, int side, int patch,
                       int dim) {
    extern __shared__ unsigned char shared[];
    const int per_row = side / patch;
    const int patch_y = blockIdx.x / per_row, patch_x = blockIdx.x % per_row;
    const int row_bytes = patch * 3, bytes = patch * row_bytes;
    for (int i = threadIdx.x; i < bytes; i += THREADS) {
        const int row = patch_y * patch + i / row_bytes;
        const long long at = ((long long)row * side + patch_x * patch) * 3 + i % row_bytes;
        shared[i] = pixels[at] ^ 0x80; // p - 128 in two's complement
    }
    __syncthreads();
    const int lane = threadIdx.x & 31;
    const int *words = (const int *)shared;
    for (int d = threadIdx.x >> 5; d < dim; d += THREADS / 32) {
        const int *w = (const int *)(weights + (long long)d * bytes);
        int acc = 0;
        for (int i = lane; i < bytes / 4; i += 32) acc = __dp4a(words[i], w[i], acc);
        for (int offset = 16; offset; offset >>= 1)
            acc += __shfl_xor_sync(FULL_WARP, acc, offset);
        if (lane == 0)
            y[(long long)blockIdx.x * dim + d] =
                __fadd_rn(__fmul_rn((float)acc, scale[d]), bias[d]);
    }
}
