/* Runs our CUDA kernels' own source on a CPU, so that their indexing, ties and barriers are tested
 * on machines without a GPU. Every CUDA thread is a fiber; blocks run one after another; a barrier
 * waits for all fibers of a block, a warp operation for those of a warp. It models what the kernels
 * use and nothing else; it says nothing about speed, and it cannot show a data race that only a
 * real GPU's concurrency would. */
#ifndef CUDA_ON_CPU_H
#define CUDA_ON_CPU_H

#undef _FORTIFY_SOURCE /* its longjmp refuses to change stacks */
#include <csetjmp>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(n)
#define __align__(n) __attribute__((aligned(n)))

struct Index { int x, y, z; };
static Index threadIdx, blockIdx;

namespace emu {
constexpr int MAX_THREADS = 256, STACK = 1 << 16;
enum State { READY, AT_BLOCK, AT_WARP, DONE };
/* ucontext makes a fiber's stack; switches are jumps, because swapcontext is two system calls. */
struct Fiber { ucontext_t context; jmp_buf at; State state; char *stack; };
static Fiber fibers[MAX_THREADS];
static jmp_buf scheduler;
static int threads, current;
static unsigned char dynamic_shared[48 << 10]; /* what a block has without asking for more */
static unsigned exchange[MAX_THREADS]; /* what each lane offers to a warp operation */
static unsigned snapshot[MAX_THREADS];
static void (*body)();

static void wait(State state) {
    fibers[current].state = state;
    if (!_setjmp(fibers[current].at)) _longjmp(scheduler, 1);
}
static void entry() {
    for (;;) { /* a fiber serves the same thread of all blocks and launches */
        body();
        wait(DONE);
    }
}
static void resume(int thread) {
    Fiber &f = fibers[thread];
    if (_setjmp(scheduler)) return;
    if (f.stack) _longjmp(f.at, 1);
    f.stack = (char *)malloc(STACK);
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack;
    f.context.uc_stack.ss_size = STACK;
    f.context.uc_link = nullptr;
    makecontext(&f.context, entry, 0);
    setcontext(&f.context);
}

static void release() {
    /* a warp whose live lanes all wait goes on; then a block whose live threads all wait */
    for (int w = 0; w < threads; w += 32) {
        int waiting = 0, live = 0;
        for (int i = w; i < w + 32 && i < threads; ++i) {
            live += fibers[i].state != DONE;
            waiting += fibers[i].state == AT_WARP;
        }
        if (live && waiting == live) {
            memcpy(snapshot + w, exchange + w, 32 * sizeof *snapshot);
            for (int i = w; i < w + 32 && i < threads; ++i)
                if (fibers[i].state == AT_WARP) fibers[i].state = READY;
        } else if (waiting && waiting != live) {
            bool all_stuck = true;
            for (int i = w; i < w + 32 && i < threads; ++i) all_stuck &= fibers[i].state != READY;
            if (all_stuck) { fprintf(stderr, "divergent warp operation\n"); abort(); }
        }
    }
    int waiting = 0, live = 0;
    for (int i = 0; i < threads; ++i) {
        live += fibers[i].state != DONE;
        waiting += fibers[i].state == AT_BLOCK;
    }
    if (live && waiting == live)
        for (int i = 0; i < threads; ++i)
            if (fibers[i].state == AT_BLOCK) fibers[i].state = READY;
}

template <class Kernel> static void launch(int grid_x, int grid_y, int block, Kernel kernel) {
    static Kernel *held;
    held = &kernel;
    body = [] { (*held)(); };
    threads = block;
    for (blockIdx.y = 0; blockIdx.y < grid_y; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < grid_x; ++blockIdx.x) {
            for (int i = 0; i < block; ++i) fibers[i].state = READY;
            for (bool live = true; live;) {
                live = false;
                for (current = 0; current < block; ++current) {
                    if (fibers[current].state != READY) continue;
                    threadIdx.x = current;
                    resume(current);
                }
                release();
                for (int i = 0; i < block; ++i) live |= fibers[i].state != DONE;
            }
        }
}

/* Every lane offers a value; after the barrier `snapshot` holds all of them. */
static unsigned *share(unsigned value) {
    exchange[current] = value;
    wait(AT_WARP);
    return snapshot + (current & ~31);
}
template <class T> static unsigned bits(T v) { unsigned u; memcpy(&u, &v, 4); return u; }
template <class T> static T from(unsigned u) { T v; memcpy(&v, &u, 4); return v; }

/* m16n8k32: fragments as in the PTX manual, section "Matrix fragments for mma.m16n8k32". */
static void mma_16x8x32(int *c, const unsigned *a, const unsigned *b) {
    static signed char A[MAX_THREADS / 32][16][32], B[MAX_THREADS / 32][8][32];
    const int warp = current >> 5, lane = current & 31, row = lane >> 2, quad = lane & 3;
    for (int r = 0; r < 4; ++r)
        memcpy(&A[warp][row + (r & 1) * 8][quad * 4 + (r >> 1) * 16], &a[r], 4);
    for (int r = 0; r < 2; ++r) memcpy(&B[warp][row][quad * 4 + r * 16], &b[r], 4);
    wait(AT_WARP);
    for (int part = 0; part < 4; ++part)
        for (int k = 0; k < 32; ++k)
            c[part] += A[warp][row + (part >> 1) * 8][k] * B[warp][quad * 2 + (part & 1)][k];
    wait(AT_WARP); /* nobody may overwrite the fragments before all have read them */
}
} // namespace emu

static inline void __syncthreads() { emu::wait(emu::AT_BLOCK); }
template <class T> static T __shfl_xor_sync(unsigned, T v, int mask) {
    const int lane = emu::current & 31;
    return emu::from<T>(emu::share(emu::bits(v))[lane ^ mask]);
}
template <class T> static T __shfl_up_sync(unsigned, T v, int delta) {
    const int lane = emu::current & 31;
    unsigned *all = emu::share(emu::bits(v));
    return emu::from<T>(all[lane >= delta ? lane - delta : lane]);
}
template <class T> static T __shfl_sync(unsigned, T v, int source) {
    return emu::from<T>(emu::share(emu::bits(v))[source]);
}
static inline unsigned __ballot_sync(unsigned, bool predicate) {
    unsigned *all = emu::share(predicate), mask = 0;
    for (int i = 0; i < 32; ++i) mask |= all[i] << i;
    return mask;
}
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline int atomicAdd(int *at, int v) { int old = *at; *at += v; return old; }
static inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; ++i) c += (signed char)(a >> (8 * i)) * (signed char)(b >> (8 * i));
    return c;
}
static inline void __syncwarp() { emu::wait(emu::AT_WARP); }
static inline float __int_as_float(int v) { return emu::from<float>((unsigned)v); }
static inline float __fsqrt_rn(float a) { return std::sqrt(a); }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }

#endif
