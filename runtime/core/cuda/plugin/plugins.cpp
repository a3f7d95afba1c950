// TensorRT plugins GatedTernaryMatMul and QuantAttention: IPluginV3, TensorRT 10.3 to 11.x.
//
// Shipped as source in the artifact and compiled on the board against its own headers. Names,
// version and namespace come from names.h, which the build writes from the one operator table.
// Every call answers with a code; nothing throws through TensorRT's interface.
#include <NvInferRuntime.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "launch.h"
#include "names.h"

namespace tatvpr {
namespace {

using namespace nvinfer1;

struct Attribute {
    char const *name;
    int32_t value;
};

// What every plugin of ours answers alike.
class Plugin : public IPluginV3,
               public IPluginV3OneCore,
               public IPluginV3OneBuild,
               public IPluginV3OneRuntime {
public:
    Plugin(char const *name, int32_t outputs, std::vector<Attribute> attributes)
        : mName(name), mOutputs(outputs), mAttributes(std::move(attributes)) {
        for (auto const &a : mAttributes)
            mFields.emplace_back(a.name, &a.value, PluginFieldType::kINT32, 1);
        mCollection = {static_cast<int32_t>(mFields.size()), mFields.data()};
    }
    Plugin(Plugin const &other) : Plugin(other.mName, other.mOutputs, other.mAttributes) {}
    Plugin &operator=(Plugin const &) = delete;

    IPluginCapability *getCapabilityInterface(PluginCapabilityType type) noexcept override {
        switch (type) {
        case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore *>(this);
        case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild *>(this);
        case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime *>(this);
        }
        return nullptr;
    }
    AsciiChar const *getPluginName() const noexcept override { return mName; }
    AsciiChar const *getPluginVersion() const noexcept override { return TATVPR_PLUGIN_VERSION; }
    AsciiChar const *getPluginNamespace() const noexcept override {
        return TATVPR_PLUGIN_NAMESPACE;
    }
    int32_t getNbOutputs() const noexcept override { return mOutputs; }
    int32_t configurePlugin(DynamicPluginTensorDesc const *, int32_t,
                            DynamicPluginTensorDesc const *, int32_t) noexcept override {
        return 0;
    }
    int32_t onShapeChange(PluginTensorDesc const *, int32_t, PluginTensorDesc const *,
                          int32_t) noexcept override {
        return 0;
    }
    int32_t getOutputDataTypes(DataType *types, int32_t count, DataType const *,
                               int32_t) const noexcept override {
        std::fill_n(types, count, DataType::kFLOAT);
        return 0;
    }
    IPluginV3 *attachToContext(IPluginResourceContext *) noexcept override { return clone(); }
    PluginFieldCollection const *getFieldsToSerialize() noexcept override { return &mCollection; }

protected:
    int32_t attribute(size_t index) const { return mAttributes[index].value; }

private:
    char const *mName;
    int32_t mOutputs;
    std::vector<Attribute> mAttributes;
    std::vector<PluginField> mFields;
    PluginFieldCollection mCollection{};
};

bool plain(PluginTensorDesc const &desc, DataType type) {
    return desc.format == TensorFormat::kLINEAR && desc.type == type;
}

// X [T, K], k [], W int8 [N, ceil(K / 4)], scale [1 or N], bias [N] -> Y [T, N]
class GatedTernaryMatMul final : public Plugin {
public:
    explicit GatedTernaryMatMul(std::vector<Attribute> attributes)
        : Plugin(TATVPR_GATED_TERNARY_MAT_MUL, 1, std::move(attributes)) {}

    IPluginV3 *clone() noexcept override { return new (std::nothrow) GatedTernaryMatMul(*this); }

    bool supportsFormatCombination(int32_t pos, DynamicPluginTensorDesc const *all, int32_t,
                                   int32_t) noexcept override {
        return plain(all[pos].desc, pos == kWEIGHTS ? DataType::kINT8 : DataType::kFLOAT);
    }
    int32_t getOutputShapes(DimsExprs const *inputs, int32_t count, DimsExprs const *, int32_t,
                            DimsExprs *outputs, int32_t, IExprBuilder &) noexcept override {
        if (count != kINPUTS || inputs[0].nbDims != 2 || inputs[kWEIGHTS].nbDims != 2)
            return kFailed;
        outputs[0].nbDims = 2;
        outputs[0].d[0] = inputs[0].d[0];
        outputs[0].d[1] = inputs[kWEIGHTS].d[0];
        return 0;
    }
    size_t getWorkspaceSize(DynamicPluginTensorDesc const *inputs, int32_t,
                            DynamicPluginTensorDesc const *, int32_t) const noexcept override {
        GatedMatMul op = described(inputs[0].max, inputs[kWEIGHTS].max, inputs[3].max);
        return workspaceBytes(op);
    }
    int32_t enqueue(PluginTensorDesc const *in, PluginTensorDesc const *, void const *const *inputs,
                    void *const *outputs, void *workspace, cudaStream_t stream) noexcept override {
        GatedMatMul op = described(in[0].dims, in[kWEIGHTS].dims, in[3].dims);
        op.x = static_cast<float const *>(inputs[0]);
        op.k = static_cast<float const *>(inputs[1]);
        op.weights = static_cast<uint8_t const *>(inputs[kWEIGHTS]);
        op.scale = static_cast<float const *>(inputs[3]);
        op.bias = static_cast<float const *>(inputs[4]);
        op.y = static_cast<float *>(outputs[0]);
        return tatvpr::enqueue(op, workspace, reinterpret_cast<CUstream>(stream));
    }

private:
    static constexpr int32_t kWEIGHTS = 2, kINPUTS = 5;

    GatedMatMul described(Dims const &x, Dims const &w, Dims const &scale) const {
        GatedMatMul op{};
        op.tokens = static_cast<int32_t>(x.d[0]);
        op.channels = static_cast<int32_t>(x.d[1]);
        op.outputs = static_cast<int32_t>(w.d[0]);
        op.rowBytes = static_cast<int32_t>(w.d[1]);
        op.scaleCount = static_cast<int32_t>(scale.d[0]);
        op.group = attribute(0);
        op.scope = attribute(1);
        return op;
    }
};

// QKV [T, 3 D] -> Y [T, D], A [T]
class QuantAttention final : public Plugin {
public:
    explicit QuantAttention(std::vector<Attribute> attributes)
        : Plugin(TATVPR_QUANT_ATTENTION, 2, std::move(attributes)) {}

    IPluginV3 *clone() noexcept override { return new (std::nothrow) QuantAttention(*this); }

    bool supportsFormatCombination(int32_t pos, DynamicPluginTensorDesc const *all, int32_t,
                                   int32_t) noexcept override {
        return plain(all[pos].desc, DataType::kFLOAT);
    }
    int32_t getOutputShapes(DimsExprs const *inputs, int32_t count, DimsExprs const *, int32_t,
                            DimsExprs *outputs, int32_t, IExprBuilder &builder) noexcept override {
        if (count != 1 || inputs[0].nbDims != 2) return kFailed;
        outputs[0].nbDims = 2;
        outputs[0].d[0] = inputs[0].d[0];
        outputs[0].d[1] = builder.operation(DimensionOperation::kFLOOR_DIV, *inputs[0].d[1],
                                            *builder.constant(3));
        outputs[1].nbDims = 1;
        outputs[1].d[0] = inputs[0].d[0];
        return 0;
    }
    size_t getWorkspaceSize(DynamicPluginTensorDesc const *inputs, int32_t,
                            DynamicPluginTensorDesc const *, int32_t) const noexcept override {
        return workspaceBytes(described(inputs[0].max));
    }
    int32_t enqueue(PluginTensorDesc const *in, PluginTensorDesc const *, void const *const *inputs,
                    void *const *outputs, void *workspace, cudaStream_t stream) noexcept override {
        Attention op = described(in[0].dims);
        op.qkv = static_cast<float const *>(inputs[0]);
        op.y = static_cast<float *>(outputs[0]);
        op.a = static_cast<float *>(outputs[1]);
        return tatvpr::enqueue(op, workspace, reinterpret_cast<CUstream>(stream));
    }

private:
    Attention described(Dims const &qkv) const {
        Attention op{};
        op.tokens = static_cast<int32_t>(qkv.d[0]);
        op.dim = static_cast<int32_t>(qkv.d[1] / 3);
        op.heads = attribute(0);
        return op;
    }
};

// Reads int32 attributes by name; an attribute without a default must be there.
bool readAttributes(PluginFieldCollection const *given, std::vector<Attribute> &wanted,
                    int32_t missing) {
    for (auto &attribute : wanted) {
        for (int32_t i = 0; given && i < given->nbFields; ++i) {
            PluginField const &field = given->fields[i];
            if (std::strcmp(field.name, attribute.name) == 0 && field.data && field.length == 1 &&
                field.type == PluginFieldType::kINT32)
                attribute.value = *static_cast<int32_t const *>(field.data);
        }
        if (attribute.value == missing) return false;
    }
    return true;
}

template <typename Made> class Creator final : public IPluginCreatorV3One {
public:
    Creator(char const *name, std::vector<Attribute> defaults)
        : mName(name), mDefaults(std::move(defaults)) {
        for (auto const &a : mDefaults)
            mFields.emplace_back(a.name, nullptr, PluginFieldType::kINT32, 1);
        mCollection = {static_cast<int32_t>(mFields.size()), mFields.data()};
    }
    IPluginV3 *createPlugin(AsciiChar const *, PluginFieldCollection const *fields,
                            TensorRTPhase) noexcept override {
        try {
            std::vector<Attribute> attributes = mDefaults;
            if (!readAttributes(fields, attributes, kMissing)) return nullptr;
            return new Made(std::move(attributes));
        } catch (std::bad_alloc const &) {
            return nullptr;
        }
    }
    PluginFieldCollection const *getFieldNames() noexcept override { return &mCollection; }
    AsciiChar const *getPluginName() const noexcept override { return mName; }
    AsciiChar const *getPluginVersion() const noexcept override { return TATVPR_PLUGIN_VERSION; }
    AsciiChar const *getPluginNamespace() const noexcept override {
        return TATVPR_PLUGIN_NAMESPACE;
    }
    static constexpr int32_t kMissing = -1;

private:
    char const *mName;
    std::vector<Attribute> mDefaults;
    std::vector<PluginField> mFields;
    PluginFieldCollection mCollection{};
};

ILogger *gLogger = nullptr;

} // namespace
} // namespace tatvpr

extern "C" {

// Where TensorRT's registry hands over the application's logger.
__attribute__((visibility("default"))) void setLoggerFinder(nvinfer1::ILoggerFinder *finder) {
    tatvpr::gLogger = finder ? finder->findLogger() : nullptr;
    if (tatvpr::gLogger)
        tatvpr::gLogger->log(nvinfer1::ILogger::Severity::kVERBOSE, "tatvpr-edge plugins loaded");
}

// registry.load_library() asks for the creators here.
__attribute__((visibility("default"))) nvinfer1::IPluginCreatorInterface *const *
getCreators(int32_t &count) {
    using namespace tatvpr;
    static Creator<GatedTernaryMatMul> matmul{TATVPR_GATED_TERNARY_MAT_MUL,
                                              {{"group", 1}, {"scope", 0}}};
    static Creator<QuantAttention> attention{
        TATVPR_QUANT_ATTENTION, {{"heads", Creator<QuantAttention>::kMissing}}};
    static nvinfer1::IPluginCreatorInterface *const creators[] = {&matmul, &attention};
    count = 2;
    return creators;
}
}
