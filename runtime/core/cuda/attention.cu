// QuantAttention: float32 [T, 3 D] -> float32 [T, D] and, for the CLS token, [T].
//
// Four launches: scales (one of K and V a head), quantise, attend, cls. 8-bit dot products by dp4a,
// exponentials by our own exp (docs/numerics.md), weights E = round(127 exp(l - max l)) summed as
// integers, so that the result does not depend on the order. Header-free CUDA C++.
//
// head = D / heads is a multiple of 4; padded = T rounded up to a multiple of 4.

#define THREADS 128
#define WARPS (THREADS / 32)
#define FULL_WARP 0xffffffffu

__device__ static float warp_max(float v) {
    for (int offset = 16; offset; offset >>= 1) v = fmaxf(v, __shfl_xor_sync(FULL_WARP, v, offset));
    return v;
}

__device__ static int warp_sum(int v) {
    for (int offset = 16; offset; offset >>= 1) v += __shfl_xor_sync(FULL_WARP, v, offset);
    return v;
}

__device__ static signed char quantised(float x, float inverse) {
    return (signed char)(int)fminf(fmaxf(rintf(__fmul_rn(x, inverse)), -127.0f), 127.0f);
}

// e^x for x <= 0; zero below -87. Cephes' single-precision polynomial, every step rounded once.
__device__ static float exp_nonpositive(float x) {
    if (x < -87.0f) return 0.0f;
    const float n = rintf(__fmul_rn(x, 1.44269504f));
    const float r =
        __fadd_rn(__fadd_rn(x, -__fmul_rn(n, 0.693359375f)), -__fmul_rn(n, -2.12194440e-4f));
    float y = 1.9875691500e-4f;
    y = __fadd_rn(__fmul_rn(y, r), 1.3981999507e-3f);
    y = __fadd_rn(__fmul_rn(y, r), 8.3334519073e-3f);
    y = __fadd_rn(__fmul_rn(y, r), 4.1665795894e-2f);
    y = __fadd_rn(__fmul_rn(y, r), 1.6666665459e-1f);
    y = __fadd_rn(__fmul_rn(y, r), 5.0000001201e-1f);
    y = __fadd_rn(__fadd_rn(__fmul_rn(y, __fmul_rn(r, r)), r), 1.0f);
    return __fmul_rn(y, __int_as_float(((int)n + 127) << 23));
}

// qkv -> scales [2, heads]: of K, then of V. grid = (heads, 2).
extern "C" __global__ void __launch_bounds__(THREADS)
    tatvpr_attention_scales(const float *__restrict__ qkv, float *__restrict__ scales, int tokens,
                            int dim, int heads) {
    __shared__ float per_warp[WARPS];
    const int head = dim / heads;
    const float *x = qkv + (long long)dim * (1 + blockIdx.y) + (long long)head * blockIdx.x;
    float largest = 0.0f;
    for (int i = threadIdx.x; i < tokens * head; i += THREADS)
        largest = fmaxf(largest, fabsf(x[(long long)(i / head) * 3 * dim + i % head]));
    largest = warp_max(largest);
    if ((threadIdx.x & 31) == 0) per_warp[threadIdx.x >> 5] = largest;
    __syncthreads();
    for (int w = 0; w < WARPS; ++w) largest = fmaxf(largest, per_warp[w]);
    if (threadIdx.x == 0)
        scales[blockIdx.y * heads + blockIdx.x] = __fdiv_rn(fmaxf(largest, 1e-5f), 127.0f);
}

// q8, k8 [heads, T, head], v8 [heads, head, padded] (transposed), q_scales [heads, T].
// One warp a token and head: grid = (T, ceil(heads / 4)). v8 must be zero beyond T.
extern "C" __global__ void __launch_bounds__(THREADS)
    tatvpr_attention_quantise(const float *__restrict__ qkv, const float *__restrict__ scales,
                              signed char *__restrict__ q8, signed char *__restrict__ k8,
                              signed char *__restrict__ v8, float *__restrict__ q_scales,
                              int tokens, int dim, int heads, int padded) {
    const int lane = threadIdx.x & 31;
    const int h = blockIdx.y * WARPS + (threadIdx.x >> 5);
    const int t = blockIdx.x;
    if (h >= heads) return; // a whole warp at a time
    const int head = dim / heads;
    const float *row = qkv + (long long)t * 3 * dim + h * head;
    float largest = 0.0f;
    for (int i = lane; i < head; i += 32) largest = fmaxf(largest, fabsf(row[i]));
    const float scale = __fdiv_rn(fmaxf(warp_max(largest), 1e-5f), 127.0f);
    if (lane == 0) q_scales[(long long)h * tokens + t] = scale;
    const float inverse_q = __fdiv_rn(1.0f, scale);
    const float inverse_k = __fdiv_rn(1.0f, scales[h]);
    const float inverse_v = __fdiv_rn(1.0f, scales[heads + h]);
    const long long at = ((long long)h * tokens + t) * head;
    for (int i = lane; i < head; i += 32) {
        q8[at + i] = quantised(row[i], inverse_q);
        k8[at + i] = quantised(row[dim + i], inverse_k);
        v8[((long long)h * head + i) * padded + t] = quantised(row[2 * dim + i], inverse_v);
    }
}

// One warp a query row: grid = (heads, ceil(T / 4)), dynamic shared memory = 4 * padded * 5 bytes.
// y [T, D]; cls [heads, T] receives E_0j / sum E_0j.
extern "C" __global__ void __launch_bounds__(THREADS)
    tatvpr_attention(const signed char *__restrict__ q8, const signed char *__restrict__ k8,
                     const signed char *__restrict__ v8, const float *__restrict__ q_scales,
                     const float *__restrict__ scales, float *__restrict__ y,
                     float *__restrict__ cls, int tokens, int dim, int heads, int padded) {
    extern __shared__ unsigned char shared[];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int h = blockIdx.x, t = blockIdx.y * WARPS + warp;
    const int head = dim / heads;
    float *logits = (float *)shared + warp * padded;
    signed char *weights = (signed char *)((float *)shared + WARPS * padded) + warp * padded;
    if (t >= tokens) return; // a whole warp at a time; no block barrier follows

    const float root = __fsqrt_rn((float)head);
    const float q_scale = q_scales[(long long)h * tokens + t];
    const int *q = (const int *)(q8 + ((long long)h * tokens + t) * head);
    float largest = -3.0e38f;
    for (int j = lane; j < tokens; j += 32) {
        const int *k = (const int *)(k8 + ((long long)h * tokens + j) * head);
        int dot = 0;
        for (int i = 0; i < head / 4; ++i) dot = __dp4a(q[i], k[i], dot);
        const float scaled = __fmul_rn(__fmul_rn((float)dot, q_scale), scales[h]);
        logits[j] = __fdiv_rn(scaled, root);
        largest = fmaxf(largest, logits[j]);
    }
    largest = warp_max(largest);
    int total = 0;
    for (int j = lane; j < padded; j += 32) {
        int e = 0;
        if (j < tokens)
            e = (int)rintf(
                __fmul_rn(127.0f, exp_nonpositive(__fadd_rn(logits[j], -largest))));
        weights[j] = (signed char)e;
        total += e;
    }
    total = warp_sum(total);
    const float share = __fdiv_rn(1.0f, (float)total);
    __syncwarp();
    for (int d = lane; d < head; d += 32) {
        const int *v = (const int *)(v8 + ((long long)h * head + d) * padded);
        const int *e = (const int *)weights;
        int acc = 0;
        for (int j = 0; j < padded / 4; ++j) acc = __dp4a(e[j], v[j], acc);
        y[(long long)t * dim + h * head + d] =
            __fmul_rn(__fmul_rn((float)acc, scales[heads + h]), share);
    }
    if (t == 0)
        for (int j = lane; j < tokens; j += 32)
            cls[(long long)h * tokens + j] = __fmul_rn((float)weights[j], share);
}

// cls [heads, T] -> a [T]: the sum over heads, in order. grid = ceil(T / 128).
extern "C" __global__ void __launch_bounds__(THREADS)
    tatvpr_attention_cls(const float *__restrict__ cls, float *__restrict__ a, int tokens,
                         int heads) {
    const int j = blockIdx.x * THREADS + threadIdx.x;
    if (j >= tokens) return;
    float sum = 0.0f;
    for (int h = 0; h < heads; ++h) sum = __fadd_rn(sum, cls[(long long)h * tokens + j]);
    a[j] = sum;
}
