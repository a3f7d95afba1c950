// Drives the plugin library through TensorRT's own interface, as the builder and an engine would:
// creators, fields, cloning, types, shapes, formats, workspace, enqueue. There is no TensorRT here;
// what it would pass is made of its headers' types. Reads one case, writes the outputs.
//
//   plugin_harness LIBCUDA PLUGIN_LIBRARY CASE_FILE OUTPUT_FILE
//
// Case file (int32 unless said): name length, name; attributes: count, then length, name, value;
// inputs: count, then type (0 float32, 1 int8), dims, each dim, bytes. Output file: the outputs one
// after another, each as dims, each dim, bytes.
#include <NvInferRuntime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <memory>
#include <string>
#include <vector>

using namespace nvinfer1;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            std::fprintf(stderr, "line %d: %s does not hold\n", __LINE__, #condition);             \
            std::exit(1);                                                                          \
        }                                                                                          \
    } while (0)

namespace {

// Constant expressions are enough: the builder's own are symbolic, the operations are the same.
class Expr final : public IDimensionExpr, public apiv::VDimensionExpr {
public:
    explicit Expr(int64_t value) : mValue(value) { mImpl = this; }
    bool isConstant() const override { return true; }
    int64_t getConstantValue() const override { return mValue; }
    bool isSizeTensor() const override { return false; }

private:
    int64_t mValue;
};

class Exprs final : public IExprBuilder, public apiv::VExprBuilder {
public:
    Exprs() { mImpl = this; }
    IDimensionExpr const *constant(int64_t value) override {
        mMade.push_back(std::make_unique<Expr>(value));
        return mMade.back().get();
    }
    IDimensionExpr const *operation(DimensionOperation op, IDimensionExpr const &first,
                                    IDimensionExpr const &second) override {
        CHECK(op == DimensionOperation::kFLOOR_DIV);
        return constant(valueOf(first) / valueOf(second));
    }
    IDimensionExpr const *declareSizeTensor(int32_t, IDimensionExpr const &,
                                            IDimensionExpr const &) override {
        return nullptr;
    }
    static int64_t valueOf(IDimensionExpr const &e) { return e.getConstantValue(); }

private:
    std::vector<std::unique_ptr<Expr>> mMade;
};

int32_t readInt(FILE *file) {
    int32_t value;
    CHECK(std::fread(&value, sizeof value, 1, file) == 1);
    return value;
}

std::string readText(FILE *file) {
    std::string text(static_cast<size_t>(readInt(file)), ' ');
    CHECK(std::fread(&text[0], 1, text.size(), file) == text.size());
    return text;
}

struct Tensor {
    PluginTensorDesc desc{};
    std::vector<char> bytes;
};

size_t count(Dims const &dims) {
    size_t n = 1;
    for (int i = 0; i < dims.nbDims; ++i) n *= static_cast<size_t>(dims.d[i]);
    return n;
}

DynamicPluginTensorDesc dynamic(PluginTensorDesc const &desc) {
    DynamicPluginTensorDesc result{};
    result.desc = desc;
    result.min = result.max = desc.dims;
    return result;
}

class Finder final : public ILoggerFinder, public ILogger {
public:
    ILogger *findLogger() override { return this; }
    void log(Severity, AsciiChar const *message) noexcept override { said = message; }
    std::string said;
};

} // namespace

int main(int argc, char **argv) {
    CHECK(argc == 5);
    void *cuda = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
    CHECK(cuda);
    auto push = reinterpret_cast<int (*)(void *)>(dlsym(cuda, "cuCtxPushCurrent_v2"));
    CHECK(push);
    void *library = dlopen(argv[2], RTLD_NOW | RTLD_LOCAL);
    if (!library) std::fprintf(stderr, "%s\n", dlerror());
    CHECK(library);
    using GetCreators = IPluginCreatorInterface *const *(*)(int32_t &);
    auto getCreators = reinterpret_cast<GetCreators>(dlsym(library, "getCreators"));
    auto setFinder = reinterpret_cast<void (*)(ILoggerFinder *)>(dlsym(library, "setLoggerFinder"));
    CHECK(getCreators && setFinder);
    Finder finder;
    setFinder(&finder);
    CHECK(!finder.said.empty());

    FILE *file = std::fopen(argv[3], "rb");
    CHECK(file);
    std::string const wanted = readText(file);
    int32_t creatorCount = 0;
    IPluginCreatorInterface *const *all = getCreators(creatorCount);
    CHECK(creatorCount == 2);
    IPluginCreatorV3One *creator = nullptr;
    for (int32_t i = 0; i < creatorCount; ++i) {
        CHECK(std::string(all[i]->getInterfaceInfo().kind) == "PLUGIN CREATOR_V3ONE");
        auto *one = static_cast<IPluginCreatorV3One *>(all[i]);
        CHECK(std::string(one->getPluginVersion()) == "2");
        CHECK(std::string(one->getPluginNamespace()) == "ai.tatvpr");
        if (wanted == one->getPluginName()) creator = one;
    }
    CHECK(creator);

    std::vector<std::string> names;
    std::vector<int32_t> values;
    int32_t const attributes = readInt(file);
    for (int32_t i = 0; i < attributes; ++i) {
        names.push_back(readText(file));
        values.push_back(readInt(file));
    }
    std::vector<PluginField> fields;
    for (size_t i = 0; i < names.size(); ++i)
        fields.emplace_back(names[i].c_str(), &values[i], PluginFieldType::kINT32, 1);
    // Attributes of the node that no plugin knows come along from the parser.
    fields.emplace_back("plugin_version", "2", PluginFieldType::kCHAR, 1);
    PluginFieldCollection collection{static_cast<int32_t>(fields.size()), fields.data()};
    PluginFieldCollection const *known = creator->getFieldNames();
    CHECK(known && known->nbFields == attributes);
    if (wanted == "QuantAttention") { // heads has no default
        PluginFieldCollection const empty{0, nullptr};
        CHECK(!creator->createPlugin("none", &empty, TensorRTPhase::kBUILD));
    }

    std::vector<Tensor> inputs(static_cast<size_t>(readInt(file)));
    for (Tensor &tensor : inputs) {
        tensor.desc.type = readInt(file) == 0 ? DataType::kFLOAT : DataType::kINT8;
        tensor.desc.format = TensorFormat::kLINEAR;
        tensor.desc.dims.nbDims = readInt(file);
        for (int i = 0; i < tensor.desc.dims.nbDims; ++i) tensor.desc.dims.d[i] = readInt(file);
        size_t const size = tensor.desc.type == DataType::kFLOAT ? 4 : 1;
        tensor.bytes.resize(count(tensor.desc.dims) * size);
        CHECK(std::fread(tensor.bytes.data(), 1, tensor.bytes.size(), file) == tensor.bytes.size());
    }
    std::fclose(file);

    IPluginV3 *first = creator->createPlugin("a", &collection, TensorRTPhase::kBUILD);
    CHECK(first);
    // As TensorRT does between builder, engine and context: serialise, create again, clone, attach.
    auto *runtime = static_cast<IPluginV3OneRuntime *>(
        first->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    CHECK(runtime);
    IPluginV3 *second =
        creator->createPlugin("b", runtime->getFieldsToSerialize(), TensorRTPhase::kRUNTIME);
    CHECK(second);
    IPluginV3 *third = second->clone();
    CHECK(third);
    delete first;
    delete second;
    auto *core = static_cast<IPluginV3OneCore *>(
        third->getCapabilityInterface(PluginCapabilityType::kCORE));
    auto *build = static_cast<IPluginV3OneBuild *>(
        third->getCapabilityInterface(PluginCapabilityType::kBUILD));
    CHECK(core && build);
    CHECK(wanted == core->getPluginName() && std::string(core->getPluginVersion()) == "2");
    CHECK(std::string(core->getPluginNamespace()) == "ai.tatvpr");

    auto const inputCount = static_cast<int32_t>(inputs.size());
    int32_t const outputCount = build->getNbOutputs();
    std::vector<DataType> inputTypes, outputTypes(static_cast<size_t>(outputCount));
    for (Tensor const &tensor : inputs) inputTypes.push_back(tensor.desc.type);
    CHECK(build->getOutputDataTypes(outputTypes.data(), outputCount, inputTypes.data(),
                                    inputCount) == 0);

    Exprs exprs;
    std::vector<DimsExprs> inputShapes, outputShapes(static_cast<size_t>(outputCount));
    for (Tensor const &tensor : inputs) {
        DimsExprs shape{};
        shape.nbDims = tensor.desc.dims.nbDims;
        for (int i = 0; i < shape.nbDims; ++i) shape.d[i] = exprs.constant(tensor.desc.dims.d[i]);
        inputShapes.push_back(shape);
    }
    CHECK(build->getOutputShapes(inputShapes.data(), inputCount, nullptr, 0, outputShapes.data(),
                                 outputCount, exprs) == 0);
    std::vector<Tensor> outputs(static_cast<size_t>(outputCount));
    for (size_t o = 0; o < outputs.size(); ++o) {
        PluginTensorDesc &desc = outputs[o].desc;
        CHECK(outputTypes[o] == DataType::kFLOAT);
        desc.type = DataType::kFLOAT;
        desc.format = TensorFormat::kLINEAR;
        desc.dims.nbDims = outputShapes[o].nbDims;
        for (int i = 0; i < desc.dims.nbDims; ++i)
            desc.dims.d[i] = Exprs::valueOf(*outputShapes[o].d[i]);
        outputs[o].bytes.assign(count(desc.dims) * 4, '\xa5');
    }

    std::vector<DynamicPluginTensorDesc> descs;
    for (Tensor const &tensor : inputs) descs.push_back(dynamic(tensor.desc));
    for (Tensor const &tensor : outputs) descs.push_back(dynamic(tensor.desc));
    for (int32_t pos = 0; pos < static_cast<int32_t>(descs.size()); ++pos) {
        CHECK(build->supportsFormatCombination(pos, descs.data(), inputCount, outputCount));
        DynamicPluginTensorDesc &one = descs[static_cast<size_t>(pos)];
        DynamicPluginTensorDesc const good = one;
        one.desc.format = TensorFormat::kCHW32;
        CHECK(!build->supportsFormatCombination(pos, descs.data(), inputCount, outputCount));
        one = good;
        one.desc.type = DataType::kHALF;
        CHECK(!build->supportsFormatCombination(pos, descs.data(), inputCount, outputCount));
        one = good;
    }
    DynamicPluginTensorDesc const *in = descs.data(), *out = in + inputCount;
    CHECK(build->configurePlugin(in, inputCount, out, outputCount) == 0);
    size_t const bytes = build->getWorkspaceSize(in, inputCount, out, outputCount);
    std::printf("%zu\n", bytes);

    runtime = static_cast<IPluginV3OneRuntime *>(
        third->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    IPluginV3 *attached = runtime->attachToContext(nullptr);
    CHECK(attached);
    runtime = static_cast<IPluginV3OneRuntime *>(
        attached->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    std::vector<PluginTensorDesc> inDescs, outDescs;
    std::vector<void const *> inPointers;
    std::vector<void *> outPointers;
    for (Tensor &tensor : inputs) {
        inDescs.push_back(tensor.desc);
        inPointers.push_back(tensor.bytes.data());
    }
    for (Tensor &tensor : outputs) {
        outDescs.push_back(tensor.desc);
        outPointers.push_back(tensor.bytes.data());
    }
    CHECK(runtime->onShapeChange(inDescs.data(), inputCount, outDescs.data(), outputCount) == 0);
    // What lies behind the workspace must stay as it is.
    void *workspace = nullptr;
    CHECK(posix_memalign(&workspace, 256, bytes + 256) == 0);
    std::memset(workspace, 0x5a, bytes + 256);
    for (uintptr_t context : {0x1000, 0x1001, 0x1000}) { // of several users in one process
        CHECK(push(reinterpret_cast<void *>(context)) == 0);
        for (Tensor &tensor : outputs) std::memset(tensor.bytes.data(), 0xa5, tensor.bytes.size());
        CHECK(runtime->enqueue(inDescs.data(), outDescs.data(), inPointers.data(),
                               outPointers.data(), workspace, nullptr) == 0);
    }
    for (size_t i = bytes; i < bytes + 256; ++i) CHECK(static_cast<char *>(workspace)[i] == 0x5a);
    std::free(workspace);
    delete attached;
    delete third;

    file = std::fopen(argv[4], "wb");
    CHECK(file);
    for (Tensor const &tensor : outputs) {
        auto const rank = static_cast<int32_t>(tensor.desc.dims.nbDims);
        std::fwrite(&rank, sizeof rank, 1, file);
        for (int i = 0; i < rank; ++i) {
            auto const size = static_cast<int32_t>(tensor.desc.dims.d[i]);
            std::fwrite(&size, sizeof size, 1, file);
        }
        std::fwrite(tensor.bytes.data(), 1, tensor.bytes.size(), file);
    }
    CHECK(std::fclose(file) == 0);
    return 0;
}
