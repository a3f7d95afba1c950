#include "launch.h"

#include <map>
#include <mutex>

extern "C" {
extern const unsigned char tatvpr_cubin_gate_token[], tatvpr_cubin_gate_image[],
    tatvpr_cubin_ternary_mma[], tatvpr_cubin_ternary_dp4a[], tatvpr_cubin_attention[];
}

namespace tatvpr {
namespace {

constexpr unsigned kThreads = 128;
constexpr unsigned kSelectThreads = 256;
constexpr int32_t kImageScope = 1;
// Below this many tokens a 64-token tensor-core tile would be mostly padding.
constexpr int32_t kFewTokens = 16;

struct Kernels {
    CUfunction gateToken, quantiseScore, imageSelect, imageCompact, ternaryGather, mma, dp4a;
    CUfunction attentionScales, attentionQuantise, attention, attentionCls;
    CUresult status = CUDA_SUCCESS;

    Kernels() {
        CUmodule token = load(tatvpr_cubin_gate_token), image = load(tatvpr_cubin_gate_image);
        CUmodule tensor = load(tatvpr_cubin_ternary_mma), plain = load(tatvpr_cubin_ternary_dp4a);
        CUmodule attend = load(tatvpr_cubin_attention);
        gateToken = find(token, "tatvpr_gate_token");
        quantiseScore = find(image, "tatvpr_quantise_score");
        imageSelect = find(image, "tatvpr_image_select");
        imageCompact = find(image, "tatvpr_image_compact");
        ternaryGather = find(image, "tatvpr_ternary_gather");
        mma = find(tensor, "tatvpr_ternary_mma");
        dp4a = find(plain, "tatvpr_ternary_dp4a");
        attentionScales = find(attend, "tatvpr_attention_scales");
        attentionQuantise = find(attend, "tatvpr_attention_quantise");
        attention = find(attend, "tatvpr_attention");
        attentionCls = find(attend, "tatvpr_attention_cls");
    }

private:
    CUmodule load(void const *image) {
        CUmodule module = nullptr;
        if (status == CUDA_SUCCESS) status = cuModuleLoadData(&module, image);
        return module;
    }
    CUfunction find(CUmodule module, char const *name) {
        CUfunction function = nullptr;
        if (status == CUDA_SUCCESS) status = cuModuleGetFunction(&function, module, name);
        return function;
    }
};

// A kernel runs in the context alone that it was loaded in, and a process may have several, one after
// another: by their numbers, since the address of one that ended is given again.
Kernels const &kernels() {
    static std::mutex guard;
    static std::map<unsigned long long, Kernels> loaded;
    unsigned long long context = 0; // of none: loading fails, and says so
    cuCtxGetId(nullptr, &context);
    std::lock_guard<std::mutex> const held(guard);
    return loaded[context];
}

class Launcher {
public:
    Launcher(CUstream stream, CUresult status) : mStream(stream), mStatus(status) {}

    template <typename... Args>
    void launch(CUfunction f, int x, int y, unsigned threads, size_t shared, Args... args) {
        if (mStatus != CUDA_SUCCESS) return;
        void *pointers[] = {&args...};
        mStatus = cuLaunchKernel(f, static_cast<unsigned>(x), static_cast<unsigned>(y), 1, threads,
                                 1, 1, static_cast<unsigned>(shared), mStream, pointers, nullptr);
    }
    void zero(void *at, size_t bytes) {
        if (mStatus != CUDA_SUCCESS) return;
        mStatus = cuMemsetD8Async(reinterpret_cast<CUdeviceptr>(at), 0, bytes, mStream);
    }
    int result() const { return mStatus == CUDA_SUCCESS ? 0 : static_cast<int>(mStatus); }

private:
    CUstream mStream;
    CUresult mStatus;
};

struct GateBuffers {
    int8_t *q, *compact;
    float *s;
    int32_t *score, *index, *count;
    uint8_t *weights;
    size_t bytes;

    GateBuffers(GatedMatMul const &op, void *base) {
        Carver carver(base);
        const int64_t all = int64_t{op.tokens} * op.channels;
        q = carver.take<int8_t>(all);
        s = carver.take<float>(op.tokens);
        compact = nullptr, score = index = count = nullptr, weights = nullptr;
        if (op.scope == kImageScope) {
            compact = carver.take<int8_t>(all);
            score = carver.take<int32_t>(op.channels / op.group);
            index = carver.take<int32_t>(op.channels);
            count = carver.take<int32_t>(1);
            weights = carver.take<uint8_t>(int64_t{op.outputs} * (op.channels / 4));
        }
        bytes = carver.used();
    }
};

struct AttentionBuffers {
    int32_t padded;
    int8_t *q, *k, *v;
    float *qScales, *scales, *cls;
    size_t vBytes, bytes;

    AttentionBuffers(Attention const &op, void *base) {
        Carver carver(base);
        padded = (op.tokens + 3) / 4 * 4;
        const int64_t all = int64_t{op.tokens} * op.dim;
        q = carver.take<int8_t>(all);
        k = carver.take<int8_t>(all);
        v = carver.take<int8_t>(int64_t{padded} * op.dim);
        vBytes = static_cast<size_t>(padded) * static_cast<size_t>(op.dim);
        qScales = carver.take<float>(int64_t{op.heads} * op.tokens);
        scales = carver.take<float>(2 * int64_t{op.heads});
        cls = carver.take<float>(int64_t{op.heads} * op.tokens);
        bytes = carver.used();
    }
};

int ceilDiv(int a, int b) { return (a + b - 1) / b; }

} // namespace

size_t workspaceBytes(GatedMatMul const &op) { return GateBuffers(op, nullptr).bytes; }
size_t workspaceBytes(Attention const &op) { return AttentionBuffers(op, nullptr).bytes; }

int enqueue(GatedMatMul const &op, void *workspace, CUstream stream) {
    if (op.channels % 4 != 0 || op.group < 1 || op.channels % op.group != 0) return kFailed;
    GateBuffers const b(op, workspace);
    Kernels const &run = kernels();
    Launcher launcher(stream, run.status);
    int8_t const *activations = b.q;
    uint8_t const *weights = op.weights;
    int32_t rowBytes = op.rowBytes;
    if (op.scope == kImageScope) {
        const int groups = op.channels / op.group;
        launcher.zero(b.score, static_cast<size_t>(groups) * sizeof(int32_t));
        launcher.launch(run.quantiseScore, op.tokens, 1, kThreads, 0, op.x, b.q, b.s, b.score,
                        op.channels, op.group);
        launcher.launch(run.imageSelect, 1, 1, kSelectThreads, 0, b.score, op.k, b.index, b.count,
                        groups, op.group);
        launcher.launch(run.imageCompact, op.tokens, 1, kThreads, 0, b.q, b.index, b.count,
                        b.compact, op.channels, op.channels);
        launcher.launch(run.ternaryGather, op.outputs, 1, kThreads, 0, op.weights, b.index,
                        b.count, b.weights, op.rowBytes, op.channels);
        activations = b.compact;
        weights = b.weights;
        rowBytes = op.channels / 4;
    } else {
        launcher.launch(run.gateToken, op.tokens, 1, kThreads, static_cast<size_t>(op.channels),
                        op.x, op.k, b.q, b.s, op.channels, op.group);
    }
    const bool few = op.tokens < kFewTokens;
    const int perRow = op.scaleCount > 1;
    launcher.launch(few ? run.dp4a : run.mma, ceilDiv(op.outputs, few ? 4 : 64),
                    ceilDiv(op.tokens, few ? 8 : 64), kThreads, 0, activations, b.s, weights,
                    op.scale, op.bias, op.y, op.tokens, op.channels, op.outputs, rowBytes, perRow,
                    static_cast<int32_t const *>(b.count));
    return launcher.result();
}

int enqueue(Attention const &op, void *workspace, CUstream stream) {
    if (op.heads < 1 || op.dim % op.heads != 0 || op.dim / op.heads % 4 != 0) return kFailed;
    AttentionBuffers const b(op, workspace);
    Kernels const &run = kernels();
    Launcher launcher(stream, run.status);
    launcher.zero(b.v, b.vBytes);
    launcher.launch(run.attentionScales, op.heads, 2, kThreads, 0, op.qkv, b.scales, op.tokens,
                    op.dim, op.heads);
    launcher.launch(run.attentionQuantise, op.tokens, ceilDiv(op.heads, 4), kThreads, 0, op.qkv,
                    b.scales, b.q, b.k, b.v, b.qScales, op.tokens, op.dim, op.heads, b.padded);
    launcher.launch(run.attention, op.heads, ceilDiv(op.tokens, 4), kThreads,
                    static_cast<size_t>(b.padded) * 4 * 5, b.q, b.k, b.v, b.qScales, b.scales,
                    op.y, b.cls, op.tokens, op.dim, op.heads, b.padded);
    launcher.launch(run.attentionCls, ceilDiv(op.tokens, 128), 1, kThreads, 0, b.cls, op.a,
                    op.tokens, op.heads);
    return launcher.result();
}

} // namespace tatvpr
