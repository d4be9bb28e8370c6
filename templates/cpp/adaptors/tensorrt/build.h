// Builds the engine where it is to run, from the ONNX graph of a deferred bundle, as the bundle's
// build_engine.py does: network, configuration, optimization profiles, plan.
//
// It needs the headers of the ONNX parser (NvOnnxParser.h); a loader that was compiled without them
// says so.
#ifndef INFC_ADAPTOR_BUILD_H
#define INFC_ADAPTOR_BUILD_H

#include <NvInfer.h>
#if __has_include(<NvOnnxParser.h>)
#include <NvOnnxParser.h>
#define INFC_HAS_PARSER 1
#endif

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "adaptor/cuda.h"
#include "adaptor/library.h"
#include "adaptor/tensors.h"
#include "runtime/adaptor.h"

namespace infc {
namespace tensorrt {

// Release 10.3 as 1003. TensorRT for RTX counts for itself; from 1.7 on it has the interface of 11.
#if NV_TENSORRT_MAJOR < 8
#define INFC_TENSORRT_RELEASE 1100
#else
#define INFC_TENSORRT_RELEASE (NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR)
#endif

#ifdef INFC_HAS_PARSER

using nvinfer1::BuilderFlag;
using nvinfer1::IBuilderConfig;
using nvinfer1::INetworkDefinition;

// libnvonnxparser of the same major version, libtensorrt_onnxparser_rtx for RTX.
inline std::string parser_library() {
  const std::string file = INFC_TENSORRT_LIBRARY;
  const std::string version = file.substr(file.find(".so"));
  return (kRtx ? "libtensorrt_onnxparser_rtx" : "libnvonnxparser") + version;
}

// A number of the recipe's; `otherwise` where it has none of that name.
inline long long number(const infc_recipe& recipe, const char* key, long long otherwise) {
  const char* const text = value_of(recipe.settings, recipe.setting_count, key);
  return text == nullptr ? otherwise : std::atoll(text);
}

inline bool is_wanted(const infc_recipe& recipe, const char* key) {
  return number(recipe, key, 0) != 0;
}

// The creation flags: the graph's types are binding. TensorRT 11 knows no other way; in 10 the DLA
// takes no such network, and gets a builder's flag instead.
inline std::uint32_t network_flags(bool is_weak) {
#if INFC_TENSORRT_RELEASE < 1100
  using Flag = nvinfer1::NetworkDefinitionCreationFlag;
  return is_weak ? 0U : 1U << static_cast<std::uint32_t>(Flag::kSTRONGLY_TYPED);
#else
  static_cast<void>(is_weak);
  return 0U;
#endif
}

inline void aim_at_dla(const nvinfer1::IBuilder& builder, IBuilderConfig& config, int core) {
  if (core >= builder.getNbDLACores()) {
    throw Error("there is no DLA core " + std::to_string(core) + " here");
  }
  config.setDefaultDeviceType(nvinfer1::DeviceType::kDLA);
  config.setDLACore(core);
  config.setFlag(BuilderFlag::kGPU_FALLBACK);
#if INFC_TENSORRT_RELEASE < 1100
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
  config.setFlag(BuilderFlag::kFP16);
#pragma GCC diagnostic pop
#endif
}

inline void configure(const infc_recipe& recipe, const nvinfer1::IBuilder& builder,
                      IBuilderConfig& config) {
  using nvinfer1::HardwareCompatibilityLevel;
  const long long workspace = number(recipe, "workspace_bytes", -1);
  if (workspace >= 0) {
    config.setMemoryPoolLimit(nvinfer1::MemoryPoolType::kWORKSPACE,
                              static_cast<std::size_t>(workspace));
  }
  const long long level = number(recipe, "optimization_level", -1);
  if (level >= 0) config.setBuilderOptimizationLevel(static_cast<std::int32_t>(level));
  if (!is_wanted(recipe, "tf32")) config.clearFlag(BuilderFlag::kTF32);
  if (is_wanted(recipe, "version_compatible")) config.setFlag(BuilderFlag::kVERSION_COMPATIBLE);
  const char* const found = value_of(recipe.settings, recipe.setting_count, "hardware_compatible");
  const std::string hardware = found == nullptr ? "none" : found;
  if (hardware == "ampere+") {
    config.setHardwareCompatibilityLevel(HardwareCompatibilityLevel::kAMPERE_PLUS);
  } else if (hardware == "same") {
#if INFC_TENSORRT_RELEASE >= 1009
    config.setHardwareCompatibilityLevel(HardwareCompatibilityLevel::kSAME_COMPUTE_CAPABILITY);
#else
    throw Error("TensorRT before 10.9 has no compatibility within a compute capability");
#endif
  } else if (hardware != "none") {
    throw Error("there is no hardware compatibility `" + hardware + "`");
  }
  const long long core = number(recipe, "dla_core", -1);
  if (core >= 0) aim_at_dla(builder, config, static_cast<int>(core));
}

inline bool set_contents(nvinfer1::IOptimizationProfile& profile, const infc_range& range) {
  const auto set = [&](nvinfer1::OptProfileSelector which, const std::int64_t* values) {
    const auto count = static_cast<std::int32_t>(range.count);
#if INFC_TENSORRT_RELEASE >= 1011
    return profile.setShapeValuesV2(range.input, which, values, count);
#else
    const std::vector<std::int32_t> contents(values, values + range.count);
    return profile.setShapeValues(range.input, which, contents.data(), count);
#endif
  };
  using Which = nvinfer1::OptProfileSelector;
  return set(Which::kMIN, range.low) && set(Which::kOPT, range.typical) &&
         set(Which::kMAX, range.high);
}

inline bool set_shapes(nvinfer1::IOptimizationProfile& profile, const infc_range& range) {
  using Which = nvinfer1::OptProfileSelector;
  const auto set = [&](Which which, const std::int64_t* shape) {
    return profile.setDimensions(range.input, which, dims_of(shape, range.count));
  };
  return set(Which::kMIN, range.low) && set(Which::kOPT, range.typical) &&
         set(Which::kMAX, range.high);
}

inline void add_profiles(const infc_recipe& recipe, nvinfer1::IBuilder& builder,
                         IBuilderConfig& config) {
  for (std::int32_t number = 0; number < recipe.profile_count; ++number) {
    nvinfer1::IOptimizationProfile* const profile = builder.createOptimizationProfile();
    if (profile == nullptr) throw Log::error("it makes no optimization profile");
    for (std::size_t i = 0; i < recipe.range_count; ++i) {
      const infc_range& range = recipe.ranges[i];
      if (range.profile != number) continue;
      if (!(range.of_contents ? set_contents(*profile, range) : set_shapes(*profile, range))) {
        throw Log::error(std::string("the range of input `") + range.input + "` makes no sense");
      }
    }
    if (config.addOptimizationProfile(profile) < 0) {
      throw Log::error("optimization profile " + std::to_string(number) + " makes no sense");
    }
  }
}

// The node, its operator, and what the parser has against it.
inline std::string text_of(const nvonnxparser::IParserError& error) {
  const auto text = [](const char* found) { return std::string(found == nullptr ? "" : found); };
  std::string why = text(error.desc());
  if (why.empty() || why == "false") why = "the parser refuses it (" + text(error.func()) + ")";
  const std::string node = text(error.nodeName()), type = text(error.nodeOperator());
  if (type.empty()) return why;
  return (node.empty() ? "node " + std::to_string(error.node()) : "`" + node + "`") + " (" + type +
         "): " + why;
}

inline void parse(nvonnxparser::IParser& parser, const char* graph) {
  using nvinfer1::ILogger;
  if (parser.parseFromFile(graph, static_cast<int>(ILogger::Severity::kERROR))) return;
  std::string why;
  for (int i = 0; i < parser.getNbErrors() && i < 4; ++i) {
    why += (i ? "; " : "") + text_of(*parser.getError(i));
  }
  if (!why.empty()) throw Error(std::string(kName) + " cannot read the graph: " + why);
  throw Log::error("it cannot read the graph");
}

// The engine of the graph in the file `graph`. The GPU, where there is one, must be current.
inline std::unique_ptr<nvinfer1::IHostMemory> plan_of(const infc_recipe& recipe,
                                                      const char* graph) {
  const std::unique_ptr<nvinfer1::IBuilder> builder(
      created<nvinfer1::IBuilder>("createInferBuilder_INTERNAL"));
  const bool is_weak = number(recipe, "dla_core", -1) >= 0;
  const std::unique_ptr<INetworkDefinition> network(
      builder->createNetworkV2(network_flags(is_weak)));
  if (!network) throw Log::error("it makes no network");
  using Entry = void* (*)(void*, void*, int);
  void* const library = opened(parser_library().c_str());
  const auto create = symbol<Entry>(library, "createNvOnnxParser_INTERNAL");
  const std::unique_ptr<nvonnxparser::IParser> parser(static_cast<nvonnxparser::IParser*>(
      create(network.get(), &log(), NV_ONNX_PARSER_VERSION)));
  if (!parser) throw Log::error("it makes no parser");
  parse(*parser, graph);
  const std::unique_ptr<IBuilderConfig> config(builder->createBuilderConfig());
  if (!config) throw Log::error("it makes no configuration");
  configure(recipe, *builder, *config);
  add_profiles(recipe, *builder, *config);
  std::unique_ptr<nvinfer1::IHostMemory> plan(builder->buildSerializedNetwork(*network, *config));
  if (!plan) throw Log::error("the engine cannot be built");
  return plan;
}

// Builds the engine of `graph` into the file `entry`, which is there whole or not at all.
inline void build_engine(const infc_recipe& recipe, const char* graph, const std::string& entry) {
  const auto plan = plan_of(recipe, graph);
  const std::string partial = entry + ".partial";
  std::ofstream stream(partial, std::ios::binary);
  stream.write(static_cast<const char*>(plan->data()), static_cast<std::streamsize>(plan->size()));
  stream.close();
  if (!stream) {
    std::error_code ignored;
    std::filesystem::remove(partial, ignored);
    throw Error("`" + partial + "` cannot be written (" + std::to_string(plan->size()) + " bytes)");
  }
  std::filesystem::rename(partial, entry);
}

#else

inline void build_engine(const infc_recipe&, const char*, const std::string&) {
  throw Error("this loader was compiled without the headers of TensorRT's ONNX parser "
              "(NvOnnxParser.h): run ./finish in the bundle, or compile it with them");
}

#endif

}  // namespace tensorrt
}  // namespace infc

#endif
