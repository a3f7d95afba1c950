// The kernels of this folder's parent, launched through the CUDA driver.
//
// The cubins are part of the plugin library (see cubins.S), so that the board needs g++, the
// TensorRT headers and the driver, but no CUDA compiler. In: device pointers and sizes. Out:
// 0, or the driver's error code.
#ifndef TATVPR_PLUGIN_LAUNCH_H
#define TATVPR_PLUGIN_LAUNCH_H

#include <cstddef>
#include <cstdint>
#include <cuda.h>

namespace tatvpr {

constexpr int kFailed = 1;

// Workspace is carved from one buffer in order; without a base it only counts.
class Carver {
public:
    explicit Carver(void *base) : mBase(static_cast<uint8_t *>(base)) {}
    template <typename T> T *take(int64_t count) {
        T *at = mBase ? reinterpret_cast<T *>(mBase + mUsed) : nullptr;
        mUsed += (static_cast<size_t>(count) * sizeof(T) + 255) / 256 * 256;
        return at;
    }
    size_t used() const { return mUsed; }

private:
    uint8_t *mBase;
    size_t mUsed = 0;
};

struct GatedMatMul {
    int32_t tokens, channels, outputs, rowBytes, scaleCount;
    int32_t group, scope; // scope 0 token, 1 image
    const float *x, *k;
    const uint8_t *weights;
    const float *scale, *bias;
    float *y;
};

struct Attention {
    int32_t tokens, dim, heads;
    const float *qkv;
    float *y, *a;
};

size_t workspaceBytes(GatedMatMul const &op);
size_t workspaceBytes(Attention const &op);
int enqueue(GatedMatMul const &op, void *workspace, CUstream stream);
int enqueue(Attention const &op, void *workspace, CUstream stream);

} // namespace tatvpr

#endif
