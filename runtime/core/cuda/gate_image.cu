// TopKGate with scope "image": one set of channels for all tokens, so that the matmul shrinks.
//
// Three launches: quantise (grid T), select (grid 1), compact (grid T). The compacted activations
// [T, width] hold the kept channels in rising order, padded with zeros to `width`; the index list
// serves tatvpr_ternary_gather, which compacts the weights likewise. Header-free CUDA C++.

#define THREADS 128
#define WARPS (THREADS / 32)
#define SELECT_THREADS 256
#define FULL_WARP 0xffffffffu

// float32 [T, K] -> int8 [T, K], scales [T]; adds sum over tokens of |q| to score [K / group].
// `score` must be zero before the launch. Integer atomics: the same in any order.
extern "C" __global__ void __launch_bounds__(THREADS)
    tatvpr_quantise_score(const float *__restrict__ x, signed char *__restrict__ q,
                          float *__restrict__ s, int *__restrict__ score, int channels,
                          int group) {
    __shared__ float per_warp[WARPS];
    x += (long long)blockIdx.x * channels;
    q += (long long)blockIdx.x * channels;
    float largest = 0.0f;
    for (int i = threadIdx.x; i < channels; i += THREADS) largest = fmaxf(largest, fabsf(x[i]));
    for (int offset = 16; offset; offset >>= 1)
        largest = fmaxf(largest, __shfl_xor_sync(FULL_WARP, largest, offset));
    if ((threadIdx.x & 31) == 0) per_warp[threadIdx.x >> 5] = largest;
    __syncthreads();
    for (int w = 0; w < WARPS; ++w) largest = fmaxf(largest, per_warp[w]);
    const float scale = __fdiv_rn(fmaxf(largest, 1e-5f), 127.0f);
    if (threadIdx.x == 0) s[blockIdx.x] = scale;
    const float inverse = __fdiv_rn(1.0f, scale);
    for (int i = threadIdx.x; i < channels; i += THREADS) {
        float value = rintf(__fmul_rn(x[i], inverse));
        value = fminf(fmaxf(value, -127.0f), 127.0f);
        const int v = (int)value;
        q[i] = (signed char)v;
        if (v) atomicAdd(&score[i / group], v < 0 ? -v : v);
    }
}

__device__ static int block_sum(int value, int *per_warp) {
    for (int offset = 16; offset; offset >>= 1)
        value += __shfl_xor_sync(FULL_WARP, value, offset);
    __syncthreads(); // per_warp may still be read from the last call
    if ((threadIdx.x & 31) == 0) per_warp[threadIdx.x >> 5] = value;
    __syncthreads();
    int total = 0;
    for (int w = 0; w < SELECT_THREADS / 32; ++w) total += per_warp[w];
    return total;
}

// score [groups] -> index [n * group] of kept channels, rising; *count = n * group.
// Threshold by binary search over the score's bits, ties to the lower index.
extern "C" __global__ void __launch_bounds__(SELECT_THREADS)
    tatvpr_image_select(const int *__restrict__ score, const float *__restrict__ k,
                        int *__restrict__ index, int *__restrict__ count, int groups, int group) {
    __shared__ int per_warp[SELECT_THREADS / 32];
    __shared__ int kept_per_warp[SELECT_THREADS / 32];
    int n = (int)floor((double)k[0] * (double)groups + 0.5);
    n = n < 1 ? 1 : (n > groups ? groups : n);

    int threshold = 0; // the largest value that at least n scores reach
    for (int bit = 1 << 30; bit; bit >>= 1) {
        const int candidate = threshold | bit;
        int reached = 0;
        for (int g = threadIdx.x; g < groups; g += SELECT_THREADS) reached += score[g] >= candidate;
        if (block_sum(reached, per_warp) >= n) threshold = candidate;
    }
    int greater = 0;
    for (int g = threadIdx.x; g < groups; g += SELECT_THREADS) greater += score[g] > threshold;
    int ties_left = n - block_sum(greater, per_warp);

    const int lane = threadIdx.x & 31;
    const int warp = threadIdx.x >> 5;
    int written = 0;
    for (int first = 0; first < groups; first += SELECT_THREADS) {
        const int g = first + threadIdx.x;
        const int mine = g < groups ? score[g] : -1;
        const unsigned ties = __ballot_sync(FULL_WARP, mine == threshold && g < groups);
        __syncthreads();
        if (lane == 0) per_warp[warp] = __popc(ties);
        __syncthreads();
        int tie_rank = __popc(ties & ((1u << lane) - 1u)), tie_total = 0;
        for (int w = 0; w < SELECT_THREADS / 32; ++w) {
            if (w < warp) tie_rank += per_warp[w];
            tie_total += per_warp[w];
        }
        const bool keep =
            g < groups && (mine > threshold || (mine == threshold && tie_rank < ties_left));
        const unsigned keeps = __ballot_sync(FULL_WARP, keep);
        if (lane == 0) kept_per_warp[warp] = __popc(keeps);
        __syncthreads();
        int rank = __popc(keeps & ((1u << lane) - 1u)), total = 0;
        for (int w = 0; w < SELECT_THREADS / 32; ++w) {
            if (w < warp) rank += kept_per_warp[w];
            total += kept_per_warp[w];
        }
        if (keep)
            for (int j = 0; j < group; ++j) index[(written + rank) * group + j] = g * group + j;
        written += total;
        ties_left = ties_left > tie_total ? ties_left - tie_total : 0;
    }
    if (threadIdx.x == 0) *count = n * group;
}

// q [T, K] -> compact [T, width]: the kept channels, then zeros.
extern "C" __global__ void __launch_bounds__(THREADS)
    tatvpr_image_compact(const signed char *__restrict__ q, const int *__restrict__ index,
                         const int *__restrict__ count, signed char *__restrict__ compact,
                         int channels, int width) {
    const long long token = blockIdx.x;
    const int kept = *count;
    for (int j = threadIdx.x; j < width; j += THREADS)
        compact[token * width + j] =
            j < kept ? q[token * channels + index[j]] : (signed char)0;
}

// Packed weights [N, ceil(K/4)] -> packed compact weights [N, width / 4] of the kept channels.
// grid = N; width is a multiple of 4; beyond *count the code is 1 (weight 0).
extern "C" __global__ void __launch_bounds__(THREADS)
    tatvpr_ternary_gather(const unsigned char *__restrict__ weights,
                          const int *__restrict__ index, const int *__restrict__ count,
                          unsigned char *__restrict__ compact, int row_bytes, int width) {
    const unsigned char *row = weights + (long long)blockIdx.x * row_bytes;
    const int kept = *count;
    for (int b = threadIdx.x; b < width / 4; b += THREADS) {
        unsigned packed = 0;
        for (int j = 0; j < 4; ++j) {
            const int at = b * 4 + j;
            unsigned code = 1u;
            if (at < kept) {
                const int c = index[at];
                code = (row[c >> 2] >> ((c & 3) * 2)) & 3u;
            }
            packed |= code << (2 * j);
        }
        compact[(long long)blockIdx.x * (width / 4) + b] = (unsigned char)packed;
    }
}
