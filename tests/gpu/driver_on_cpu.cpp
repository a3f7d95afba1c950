/* A CUDA driver whose kernels run on the CPU: the handful of entry points that our runtime and our
 * plugins call. Memory is host memory; kernels are this project's own sources (see cuda_on_cpu.h),
 * found by name; everything is synchronous. */
#include "cuda_on_cpu.h"

#include <dlfcn.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace gate_token {
#include "gate_token.inc"
#undef THREADS
#undef WARPS
#undef FULL_WARP
}
namespace gate_image {
#include "gate_image.inc"
#undef THREADS
#undef WARPS
#undef FULL_WARP
}
namespace ternary_mma {
#include "ternary_mma.inc"
#undef THREADS
}
namespace ternary_dp4a {
#include "ternary_dp4a.inc"
#undef THREADS
#undef TOKENS
#undef FULL_WARP
}
namespace patch_embed {
#include "patch_embed.inc"
#undef THREADS
#undef FULL_WARP
}
namespace attention {
#include "attention.inc"
#undef THREADS
#undef WARPS
#undef FULL_WARP
}
namespace keep_tokens {
#include "keep_tokens.inc"
}

using Work = std::function<void()>;
struct Launch {
    std::function<Work(int, int, int, void **)> make;
    std::vector<std::size_t> offsets; /* of the arguments, where they come in one buffer */
};

template <class... A> static std::vector<std::size_t> offsets() {
    std::vector<std::size_t> made;
    std::size_t end = 0;
    ((made.push_back((end + alignof(A) - 1) / alignof(A) * alignof(A)),
      end = made.back() + sizeof(A)), ...);
    return made;
}
template <class... A, std::size_t... I>
static Launch launcher(void (*kernel)(A...), std::index_sequence<I...>) {
    return {[kernel](int x, int y, int threads, void **arguments) -> Work {
                auto copy = std::make_tuple(*static_cast<A *>(arguments[I])...);
                return [=] { emu::launch(x, y, threads, [&] { std::apply(kernel, copy); }); };
            },
            offsets<A...>()};
}
template <class... A> static Launch launcher(void (*kernel)(A...)) {
    return launcher(kernel, std::index_sequence_for<A...>{});
}

static const std::map<std::string, Launch> &kernels() {
    static const std::map<std::string, Launch> table = {
        {"tatvpr_gate_token", launcher(gate_token::tatvpr_gate_token)},
        {"tatvpr_quantise_score", launcher(gate_image::tatvpr_quantise_score)},
        {"tatvpr_image_select", launcher(gate_image::tatvpr_image_select)},
        {"tatvpr_image_compact", launcher(gate_image::tatvpr_image_compact)},
        {"tatvpr_ternary_gather", launcher(gate_image::tatvpr_ternary_gather)},
        {"tatvpr_ternary_mma", launcher(ternary_mma::tatvpr_ternary_mma)},
        {"tatvpr_ternary_dp4a", launcher(ternary_dp4a::tatvpr_ternary_dp4a)},
        {"tatvpr_patch_embed", launcher(patch_embed::tatvpr_patch_embed)},
        {"tatvpr_attention_scales", launcher(attention::tatvpr_attention_scales)},
        {"tatvpr_attention_quantise", launcher(attention::tatvpr_attention_quantise)},
        {"tatvpr_attention", launcher(attention::tatvpr_attention)},
        {"tatvpr_attention_cls", launcher(attention::tatvpr_attention_cls)},
        {"tatvpr_keep_select", launcher(keep_tokens::tatvpr_keep_select)},
        {"tatvpr_keep_gather", launcher(keep_tokens::tatvpr_keep_gather)},
    };
    return table;
}

/* What a stream does: at once, or when the graph that it is recorded into is launched. */
static std::vector<Work> *recording;
static std::map<void *, long> queued; /* how much each stream was given */
static int blocks; /* of memory that are held */
static void queue(void *stream, Work work) {
    ++queued[stream];
    if (recording)
        recording->push_back(std::move(work));
    else
        work();
}

/* Contexts of this thread, the current one last; a context is a name and no more, which is also
 * its number and the name of every module that is loaded in it. */
static thread_local std::vector<void *> contexts;
static void *const PRIMARY = (void *)0x1000;
static void *current() { return contexts.empty() ? nullptr : contexts.back(); }

/* A function runs in the context alone that its module was loaded in. */
struct Function {
    Launch const *launch;
    void *context;
};
static std::map<void *, unsigned> stream_flags;

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    CAPTURE_IMPLICIT = 906
};

extern "C" {
int cuInit(unsigned) { return SUCCESS; }
int cuDeviceGet(int *device, int) { return *device = 0, SUCCESS; }
int cuDevicePrimaryCtxRetain(void **context, int) { return *context = PRIMARY, SUCCESS; }
int cuCtxPushCurrent_v2(void *context) { return contexts.push_back(context), SUCCESS; }
int cuCtxPopCurrent_v2(void **context) {
    if (contexts.empty()) return INVALID_CONTEXT;
    *context = contexts.back();
    return contexts.pop_back(), SUCCESS;
}
int cuCtxGetCurrent(void **context) { return *context = current(), SUCCESS; }
int cuCtxGetId(void *context, unsigned long long *number) {
    if (!context) context = current();
    return *number = (uintptr_t)context, context ? SUCCESS : INVALID_CONTEXT;
}
int cuCtxGetDevice(int *device) {
    return *device = 0, contexts.empty() ? INVALID_CONTEXT : SUCCESS;
}
int cuStreamCreate(void **stream, unsigned flags) {
    static uintptr_t made = 0x2000;
    stream_flags[*stream = (void *)++made] = flags;
    return contexts.empty() ? INVALID_CONTEXT : SUCCESS;
}
int cuStreamSynchronize(void *stream) { return ++queued[stream], SUCCESS; }
int cuDeviceGetName(char *name, int size, int) {
    return snprintf(name, (size_t)size, "CUDA on CPU"), SUCCESS;
}
int cuDeviceGetAttribute(int *value, int attribute, int) {
    return *value = attribute == 75 ? 8 : 7, SUCCESS;
}
int cuDriverGetVersion(int *version) { return *version = 12060, SUCCESS; }
int cuGetErrorName(int error, const char **text) {
    *text = error == NOT_FOUND         ? "CUDA_ERROR_NOT_FOUND"
            : error == OUT_OF_MEMORY   ? "CUDA_ERROR_OUT_OF_MEMORY"
            : error == INVALID_CONTEXT ? "CUDA_ERROR_INVALID_CONTEXT"
            : error == INVALID_HANDLE  ? "CUDA_ERROR_INVALID_HANDLE"
            : error == CAPTURE_IMPLICIT ? "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT"
                                        : "CUDA_ERROR_INVALID_VALUE";
    return SUCCESS;
}
int cuMemAlloc_v2(uint64_t *pointer, size_t bytes) {
    if (contexts.empty()) return INVALID_CONTEXT;
    *pointer = (uint64_t)(uintptr_t)malloc(bytes);
    return *pointer ? ++blocks, SUCCESS : OUT_OF_MEMORY;
}
int cuMemFree_v2(uint64_t pointer) {
    return blocks -= pointer != 0, free((void *)(uintptr_t)pointer), SUCCESS;
}
/* Of the tests: how many blocks of memory nobody gave back. */
int blocks_held(void) { return blocks; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
    return ++queued[stream], memcpy((void *)(uintptr_t)to, from, bytes), SUCCESS;
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
    return ++queued[stream], memcpy(to, (void *)(uintptr_t)from, bytes), SUCCESS;
}
int cuMemsetD8Async(uint64_t at, unsigned char value, size_t bytes, void *stream) {
    return queue(stream, [=] { memset((void *)(uintptr_t)at, value, bytes); }), SUCCESS;
}
int cuLaunchHostFunc(void *stream, void (*function)(void *), void *data) {
    return queue(stream, [=] { function(data); }), SUCCESS;
}
/* Of the tests: how much a stream was given so far. */
long queued_on(void *stream) { return queued[stream]; }
/* While a stream is recorded that is ordered with the default one, every use of the default one by
 * anybody in the context is an error: here the recording is. */
int cuStreamBeginCapture_v2(void *stream, int) {
    if (recording) return INVALID_VALUE;
    if (stream_flags[stream] != 1) return CAPTURE_IMPLICIT; /* CU_STREAM_NON_BLOCKING */
    return recording = new std::vector<Work>, SUCCESS;
}
int cuStreamEndCapture(void *, void **graph) {
    if (!recording) return INVALID_VALUE;
    *graph = recording;
    return recording = nullptr, SUCCESS;
}
int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long) {
    return *executable = new std::vector<Work>(*(std::vector<Work> *)graph), SUCCESS;
}
int cuGraphDestroy(void *graph) { return delete (std::vector<Work> *)graph, SUCCESS; }
int cuGraphExecDestroy(void *graph) { return delete (std::vector<Work> *)graph, SUCCESS; }
int cuGraphLaunch(void *graph, void *stream) {
    ++queued[stream];
    for (Work const &work : *(std::vector<Work> *)graph) work();
    return SUCCESS;
}
int cuModuleLoadData(void **module, const void *image) {
    if (memcmp(image, "\177ELF", 4)) return INVALID_VALUE; /* a cubin is an ELF file */
    return *module = current(), *module ? SUCCESS : INVALID_CONTEXT;
}
int cuModuleGetFunction(const void **function, void *module, const char *name) {
    static std::map<std::pair<void *, std::string>, Function> made;
    auto found = kernels().find(name);
    if (found == kernels().end()) return NOT_FOUND;
    return *function = &(made[{module, name}] = {&found->second, module}), SUCCESS;
}
int cuLaunchKernel(const void *function, unsigned x, unsigned y, unsigned, unsigned threads,
                   unsigned, unsigned, unsigned shared, void *stream, void **arguments,
                   void **extra) {
    if (((const Function *)function)->context != current()) return INVALID_HANDLE;
    Launch const &launch = *((const Function *)function)->launch;
    if (!x || !y || threads > emu::MAX_THREADS || shared > sizeof emu::dynamic_shared)
        return INVALID_VALUE;
    std::vector<void *> apart; /* pycuda packs the arguments: {1, their buffer, ..., 0} */
    for (; !arguments && extra && *extra; extra += 2)
        if ((uintptr_t)extra[0] == 1)
            for (std::size_t offset : launch.offsets) apart.push_back((char *)extra[1] + offset);
    if (!arguments) arguments = apart.data();
    queue(stream, launch.make((int)x, (int)y, (int)threads, arguments));
    return SUCCESS;
}
/* cuda-bindings asks for every function by its plain name; the newest form is meant. */
int cuGetProcAddress_v2(const char *name, void **found, int, uint64_t, int *) {
    std::string const plain = name;
    if (plain == "cuGetProcAddress")
        *found = (void *)cuGetProcAddress_v2;
    else if (plain == "cuGraphInstantiate")
        *found = (void *)cuGraphInstantiateWithFlags;
    else
        *found = dlsym(RTLD_DEFAULT, (plain + "_v2").c_str());
    if (!*found) *found = dlsym(RTLD_DEFAULT, name);
    return *found ? SUCCESS : NOT_FOUND;
}
}
