// TopKGate with scope "token": float32 [T, K] -> int8 [T, K] (dropped channels are 0) and scales [T].
//
// One block a token. Exact: one IEEE reciprocal a token, round half to even, and the n groups of largest sum |q|,
// ties to the lower index (docs/numerics.md). Header-free CUDA C++, so that NVRTC needs no toolkit.
//
// Launch: grid = T, block = 128, dynamic shared memory = tatvpr_gate_shared_bytes(K, group).
//   K     channels, group divides K, 127 * group < MAX_BINS
//   k     one float32 in device memory: the fraction kept

#define THREADS 128
#define WARPS (THREADS / 32)
#define MAX_BINS 2048 /* scores are at most 127 * group: group <= 16 */
#define FULL_WARP 0xffffffffu

__device__ static float block_max(float value, float *per_warp) {
    for (int offset = 16; offset; offset >>= 1)
        value = fmaxf(value, __shfl_xor_sync(FULL_WARP, value, offset));
    if ((threadIdx.x & 31) == 0) per_warp[threadIdx.x >> 5] = value;
    __syncthreads();
    float largest = per_warp[0];
    for (int w = 1; w < WARPS; ++w) largest = fmaxf(largest, per_warp[w]);
    return largest;
}

// How many of `groups` the fraction keeps: clip(floor(double(k) * groups + 0.5), 1, groups).
__device__ static int kept(float k, int groups) {
    int n = (int)floor((double)k * (double)groups + 0.5);
    return n < 1 ? 1 : (n > groups ? groups : n);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    tatvpr_gate_token(const float *__restrict__ x, const float *__restrict__ k,
                      signed char *__restrict__ q, float *__restrict__ s, int channels,
                      int group) {
    extern __shared__ unsigned char shared[];
    __shared__ float per_warp_max[WARPS];
    __shared__ int histogram[MAX_BINS];
    __shared__ int threshold_and_ties[2];
    __shared__ int ties_per_warp[WARPS];
    signed char *dense = (signed char *)shared; // [channels]

    const int thread = threadIdx.x;
    const int lane = thread & 31;
    const int warp = thread >> 5;
    const int groups = channels / group;
    const int bins = 127 * group + 1;
    x += (long long)blockIdx.x * channels;
    q += (long long)blockIdx.x * channels;

    float largest = 0.0f;
    for (int i = thread; i < channels; i += THREADS) largest = fmaxf(largest, fabsf(x[i]));
    const float scale = __fdiv_rn(fmaxf(block_max(largest, per_warp_max), 1e-5f), 127.0f);
    if (thread == 0) s[blockIdx.x] = scale;
    const float inverse = __fdiv_rn(1.0f, scale);

    for (int i = thread; i < channels; i += THREADS) {
        float value = rintf(__fmul_rn(x[i], inverse));
        value = fminf(fmaxf(value, -127.0f), 127.0f);
        dense[i] = (signed char)(int)value;
    }
    for (int b = thread; b < bins; b += THREADS) histogram[b] = 0;
    __syncthreads();

    const int n = kept(k[0], groups);
    if (n == groups) { // dense: the same for every thread of the block
        for (int i = thread; i < channels; i += THREADS) q[i] = dense[i];
        return;
    }

    for (int g = thread; g < groups; g += THREADS) {
        int score = 0;
        for (int j = 0; j < group; ++j) {
            int v = dense[g * group + j];
            score += v < 0 ? -v : v;
        }
        atomicAdd(&histogram[score], 1);
    }
    __syncthreads();

    // The first warp walks the bins from the top, 32 at a time, until n groups are found.
    if (warp == 0) {
        int above = 0;
        for (int top = bins - 1; top >= 0; top -= 32) {
            const int bin = top - lane;
            const int here = bin >= 0 ? histogram[bin] : 0;
            int up_to = here;
            for (int offset = 1; offset < 32; offset <<= 1) {
                int other = __shfl_up_sync(FULL_WARP, up_to, offset);
                if (lane >= offset) up_to += other;
            }
            const unsigned reached = __ballot_sync(FULL_WARP, above + up_to >= n);
            if (reached) {
                if (lane == __ffs((int)reached) - 1) {
                    threshold_and_ties[0] = bin;
                    threshold_and_ties[1] = n - (above + up_to - here);
                }
                break;
            }
            above += __shfl_sync(FULL_WARP, up_to, 31);
        }
    }
    __syncthreads();

    const int threshold = threshold_and_ties[0];
    int ties_left = threshold_and_ties[1];
    for (int first = 0; first < groups; first += THREADS) {
        const int g = first + thread;
        int score = -1;
        if (g < groups) {
            score = 0;
            for (int j = 0; j < group; ++j) {
                int v = dense[g * group + j];
                score += v < 0 ? -v : v;
            }
        }
        const unsigned ties = __ballot_sync(FULL_WARP, score == threshold);
        if (lane == 0) ties_per_warp[warp] = __popc(ties);
        __syncthreads();
        int before = __popc(ties & ((1u << lane) - 1u));
        int total = 0;
        for (int w = 0; w < WARPS; ++w) {
            if (w < warp) before += ties_per_warp[w];
            total += ties_per_warp[w];
        }
        const bool keep = score > threshold || (score == threshold && before < ties_left);
        if (g < groups)
            for (int j = 0; j < group; ++j)
                q[g * group + j] = keep ? dense[g * group + j] : (signed char)0;
        ties_left -= total; // never below zero in effect: `before` counts from the lower index
        if (ties_left < 0) ties_left = 0;
        __syncthreads();
    }
}
