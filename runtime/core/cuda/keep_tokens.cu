// KeepTokens: x [T, D], a [T] -> y [1 + n, D]: the CLS token and the n patch tokens of largest a,
// ties to the lower index, in their order. n is known on the host from the dial `tokens`.
//
// Two launches: select (one block) and gather (grid 1 + n). Header-free CUDA C++.

#define SELECT_THREADS 256
#define THREADS 128

// source [1 + n]: which row of x each row of y is. Dynamic shared memory: T bytes.
extern "C" __global__ void __launch_bounds__(SELECT_THREADS)
    tatvpr_keep_select(const float *__restrict__ a, int *__restrict__ source, int tokens, int n) {
    extern __shared__ unsigned char shared[]; // 1 where a token is kept
    for (int j = threadIdx.x; j < tokens; j += SELECT_THREADS) {
        int better = 0;
        for (int i = 1; i < tokens; ++i) better += a[i] > a[j] || (a[i] == a[j] && i < j);
        shared[j] = j == 0 || better < n;
    }
    for (int j = threadIdx.x; j <= n; j += SELECT_THREADS) source[j] = 0;
    __syncthreads();
    for (int j = threadIdx.x; j < tokens; j += SELECT_THREADS) {
        if (!shared[j]) continue;
        int row = 0;
        for (int i = 0; i < j; ++i) row += shared[i];
        if (row <= n) source[row] = j; // always so for finite a
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    tatvpr_keep_gather(const float *__restrict__ x, const int *__restrict__ source,
                       float *__restrict__ y, int dim) {
    const float *from = x + (long long)source[blockIdx.x] * dim;
    for (int d = threadIdx.x; d < dim; d += THREADS) y[(long long)blockIdx.x * dim + d] = from[d];
}
