// TensorRT 10.x and 11.x and TensorRT for RTX, through nvinfer's C++ interface and CUDA's driver;
// both libraries are opened when a model is loaded.
//
// A run copies the inputs into pinned memory and from there to the GPU, executes, and copies back,
// all in a stream of the model's own. Memory is kept: a shape that was run before allocates nothing.
// With `cuda_graph` a shape's second run is recorded, and launched as one from then on.
#include <NvInferRuntime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "adaptor/build.h"
#include "adaptor/cuda.h"
#include "adaptor/library.h"
#include "adaptor/tensors.h"
#include "runtime/adaptor.h"

namespace infc {
namespace {

using nvinfer1::OptProfileSelector;
using tensorrt::Dims;
using tensorrt::Log;
using tensorrt::Tensor;

// Deletes an object of TensorRT's, which gives memory of the GPU back.
template <class T>
struct Release {
  const cuda::Context* context = nullptr;
  void operator()(T* object) const noexcept {
    cuda::released(*context, [object] { delete object; });
  }
};
template <class T>
using Owned = std::unique_ptr<T, Release<T>>;

template <class T>
Owned<T> owned(const cuda::Context& context, T* made, const std::string& problem) {
  if (made == nullptr) throw Log::error(problem);
  return Owned<T>(made, Release<T>{&context});
}

std::vector<char> contents_of(const std::string& path) {
  std::vector<char> contents(std::filesystem::file_size(path));
  std::ifstream stream(path, std::ios::binary);
  stream.read(contents.data(), static_cast<std::streamsize>(contents.size()));
  if (!stream) throw Error("`" + path + "` cannot be read");
  return contents;
}

class TensorRtSession final : public Session {
 public:
  TensorRtSession(const infc_bundle& bundle, const Settings& settings)
      : context_(cuda::ordinal_of(settings.device)),
        graph_(context_),
        records_(settings.cuda_graph) {
    const cuda::Current current(context_);
    load(bundle, settings.entry);
    for (std::size_t i = 0; i < bundle.input_count; ++i) add(inputs_, bundle.inputs[i], i, true);
    for (std::size_t i = 0; i < bundle.output_count; ++i) add(outputs_, bundle.outputs[i], i, false);
    read_profiles();
    stream_ = std::make_unique<cuda::Stream>(context_);
  }

  void run(const Input* inputs, Output* outputs) override {
    const cuda::Current current(context_);
    Log::clear();
    const bool is_new = fit(inputs);
    for (Tensor& tensor : inputs_) {
      const Input& given = inputs[tensor.place];
      if (given.bytes != 0) std::memcpy(tensor.staging().get(), given.data, given.bytes);
    }
    if (is_new) bind();
    if (!is_new && records_ && !graph_) {
      // Where it cannot be recorded it is not tried again.
      records_ = graph_.record(*stream_, [this] { return enqueue(); });
    }
    if (graph_) {
      graph_.launch(*stream_);
    } else if (!enqueue()) {
      stream_->wait();
      throw Log::error("the run failed");
    }
    fetch_growing();
    stream_->wait();
    for (Tensor& tensor : outputs_) {
      std::int64_t shape[Dims::MAX_DIMS];
      std::copy(tensor.shape.d, tensor.shape.d + tensor.shape.nbDims, shape);
      outputs[tensor.place].deliver(shape, static_cast<std::size_t>(tensor.shape.nbDims),
                                    tensor.staging().get());
    }
  }

 private:
  void load(const infc_bundle& bundle, const std::string& entry) {
    const bool portable = tensorrt::is_on(bundle, "version-compatible");
    runtime_ = owned(context_, tensorrt::created<nvinfer1::IRuntime>("createInferRuntime_INTERNAL"),
                     "it does not start");
    // Such an engine brings code along; that it is the one that infc built, its hash says.
    if (portable) runtime_->setEngineHostCodeAllowed(true);
    const int core = std::atoi(setting(bundle, "dla", "-1"));
    if (core >= 0) runtime_->setDLACore(core);
    const std::vector<char> plan = contents_of(entry);
    engine_ = owned(context_, runtime_->deserializeCudaEngine(plan.data(), plan.size()),
                    "`" + entry + "` is not for " + context_.described() + " and " +
                        tensorrt::kName + " " + tensorrt::library().release.text());
    execution_ = owned(context_, engine_->createExecutionContext(), "the engine cannot be run");
  }

  // An input that the graph does not use may be missing in the engine; an output may not.
  void add(std::vector<Tensor>& tensors, const infc_tensor& info, std::size_t place, bool is_input) {
    using nvinfer1::TensorIOMode;
    const TensorIOMode mode = engine_->getTensorIOMode(info.name);
    if (mode == TensorIOMode::kNONE && is_input) return;
    if (mode != (is_input ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT)) {
      throw Error(std::string("the engine has no ") + (is_input ? "input `" : "output `") +
                  info.name + "`: it is not the one this loader was generated for");
    }
    if (engine_->getTensorDataType(info.name) != tensorrt::element_type(info.dtype)) {
      throw Error(std::string("`") + info.name + "` has another element type in the engine");
    }
    const bool on_host = engine_->getTensorLocation(info.name) == nvinfer1::TensorLocation::kHOST;
    tensors.emplace_back(context_, info, place, on_host);
    depends_on_contents_ = depends_on_contents_ || (is_input && on_host);
  }

  void read_profiles() {
    profiles_.resize(static_cast<std::size_t>(engine_->getNbOptimizationProfiles()));
    for (std::size_t i = 0; i < profiles_.size(); ++i) {
      for (const Tensor& tensor : inputs_) {
        const auto shape = [&](OptProfileSelector which) {
          return engine_->getProfileShape(tensor.info->name, static_cast<std::int32_t>(i), which);
        };
        profiles_[i].low.push_back(shape(OptProfileSelector::kMIN));
        profiles_[i].typical.push_back(shape(OptProfileSelector::kOPT));
        profiles_[i].high.push_back(shape(OptProfileSelector::kMAX));
      }
    }
  }

  // Takes the shapes of the inputs and makes room for them; whether anything differs from the run
  // before, so that addresses and outputs have to be settled again.
  bool fit(const Input* inputs) {
    bool is_new = depends_on_contents_ || !is_bound_;
    shapes_.clear();
    for (Tensor& tensor : inputs_) {
      const Input& given = inputs[tensor.place];
      const Dims shape = tensorrt::dims_of(given.shape, given.rank);
      is_new = is_new || !tensorrt::is_same(shape, tensor.shape);
      shapes_.push_back(shape);
    }
    if (!is_new) return false;
    is_bound_ = false;  // until all of it went well
    graph_.reset();
    use_profile(shapes_);
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      Tensor& tensor = inputs_[i];
      if (!execution_->setInputShape(tensor.info->name, shapes_[i])) {
        throw Log::error(std::string("input `") + tensor.info->name + "` cannot have the shape " +
                         tensorrt::text_of(shapes_[i]));
      }
      tensor.shape = shapes_[i];
      tensor.reserve(tensorrt::bytes_of(shapes_[i], tensor.info->dtype));
    }
    return true;
  }

  void use_profile(const std::vector<Dims>& shapes) {
    const int profile = tensorrt::nearest(profiles_, shapes);
    if (profile < 0) throw Error(unfit(shapes));
    if (profile == profile_) return;
    if (!execution_->setOptimizationProfileAsync(profile, stream_->get())) {
      throw Log::error("optimization profile " + std::to_string(profile) + " cannot be used");
    }
    profile_ = profile;
  }

  std::string unfit(const std::vector<Dims>& shapes) const {
    std::string text = "the engine was not built for these shapes:";
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      text += std::string(i ? ", `" : " `") + inputs_[i].info->name + "` " +
              tensorrt::text_of(shapes[i]);
      for (std::size_t p = 0; p < profiles_.size(); ++p) {
        text += (p ? " or " : " (it takes ") + tensorrt::text_of(profiles_[p].low[i]) + " to " +
                tensorrt::text_of(profiles_[p].high[i]);
      }
      text += ")";
    }
    return text;
  }

  // Tells TensorRT every address, and learns the shapes of the outputs as far as they are known.
  void bind() {
    for (Tensor& tensor : inputs_) set_address(tensor);
    const char* unset = nullptr;
    if (execution_->inferShapes(1, &unset) != 0) {
      throw Log::error(std::string("the outputs' shapes cannot be computed") +
                       (unset == nullptr ? "" : std::string(" without `") + unset + "`"));
    }
    for (Tensor& tensor : outputs_) {
      tensor.shape = execution_->getTensorShape(tensor.info->name);
      if (tensorrt::is_known(tensor.shape)) {
        tensor.growing.reset();
        tensor.reserve(tensorrt::bytes_of(tensor.shape, tensor.info->dtype));
        set_address(tensor);
      } else if (!tensor.growing) {
        tensor.growing = std::make_unique<tensorrt::Growing>(tensor.bound);
        records_ = false;  // a graph's addresses are fixed
      }
      execution_->setOutputAllocator(tensor.info->name, tensor.growing.get());
    }
    is_bound_ = true;
  }

  void set_address(Tensor& tensor) {
    if (execution_->setTensorAddress(tensor.info->name, tensor.bound.get())) return;
    throw Log::error(std::string("`") + tensor.info->name + "` cannot be given to the engine");
  }

  // Puts a run into the stream; false where TensorRT refuses, and its log says why.
  bool enqueue() {
    for (const Tensor& tensor : inputs_) {
      if (tensor.is_on_host || tensor.bytes == 0) continue;
      cuda::check(cuda::driver().cuMemcpyHtoDAsync(tensor.bound.address(), tensor.pinned.get(),
                                                   tensor.bytes, stream_->get()),
                  "copying to the GPU");
    }
    if (!execution_->enqueueV3(stream_->get())) return false;
    for (const Tensor& tensor : outputs_) {
      if (!tensor.growing) fetch(tensor);
    }
    return true;
  }

  void fetch(const Tensor& tensor) {
    if (tensor.is_on_host || tensor.bytes == 0) return;
    cuda::check(cuda::driver().cuMemcpyDtoHAsync(tensor.pinned.get(), tensor.bound.address(),
                                                 tensor.bytes, stream_->get()),
                "copying from the GPU");
  }

  // The outputs whose shapes the run has just told.
  void fetch_growing() {
    for (Tensor& tensor : outputs_) {
      if (!tensor.growing) continue;
      tensor.shape = tensor.growing->shape;
      tensor.bytes = tensorrt::bytes_of(tensor.shape, tensor.info->dtype);
      if (!tensor.is_on_host) tensor.pinned.reserve(tensor.bytes);
      fetch(tensor);
    }
  }

  // In the order in which they need each other: the last is released first.
  cuda::Context context_;
  Owned<nvinfer1::IRuntime> runtime_;
  Owned<nvinfer1::ICudaEngine> engine_;
  std::vector<Tensor> inputs_, outputs_;
  Owned<nvinfer1::IExecutionContext> execution_;
  cuda::Graph graph_;
  std::unique_ptr<cuda::Stream> stream_;
  std::vector<tensorrt::Profile> profiles_;
  std::vector<Dims> shapes_;
  int profile_ = -1;
  bool depends_on_contents_ = false;
  bool is_bound_ = false;
  bool records_ = false;
};

// An engine runs on the release that built it, a version-compatible one on later ones too. What was
// built on this device is TensorRT's own to judge.
void check_release(const infc_bundle& bundle) {
  const tensorrt::Release& found = tensorrt::library().release;
  tensorrt::Release built{0, 0, 0};
  std::sscanf(bundle.runtime_version, "%d.%d.%d", &built.major, &built.minor, &built.patch);
  if (bundle.recipe != nullptr || built.major == 0) return;
  const bool same = built.major == found.major && built.minor == found.minor;
  const bool later = found.major > built.major ||
                     (found.major == built.major && found.minor >= built.minor);
  const bool portable = tensorrt::is_on(bundle, "version-compatible");
  if (same || (portable && later)) return;
  const std::string wanted = std::to_string(built.major) + "." + std::to_string(built.minor);
  throw Error(std::string("the artifact of `") + bundle.name + "` was built with " +
              tensorrt::kName + " " + bundle.runtime_version + ", and this program runs " +
              found.text() + ": it needs " + wanted + (portable ? " or later" : "") +
              "; engines do not move between releases");
}

}  // namespace

const char* runtime_name() { return tensorrt::kName; }

std::string runtime_version() { return tensorrt::library().release.text(); }

// Of the same family: `open` knows the bundle, and looks closer.
bool accepts(Version built, Version found) {
  return built.major == 0 || (built.major < 8) == (found.major < 8);
}

std::string accepted(Version built) { return built.major < 8 ? "TensorRT for RTX" : "TensorRT"; }

std::unique_ptr<Session> open(const infc_bundle& bundle, const Settings& settings) {
  check_release(bundle);
  return std::make_unique<TensorRtSession>(bundle, settings);
}

void build(const infc_bundle* bundle, const char* graph, const char* entry, const char* device) {
  tensorrt::library();
  if (tensorrt::kRtx) {  // which builds without a GPU, for all of them
    tensorrt::build_engine(*bundle->recipe, graph, entry);
    return;
  }
  const cuda::Context context(cuda::ordinal_of(device));
  const cuda::Current current(context);
  tensorrt::build_engine(*bundle->recipe, graph, entry);
}

}  // namespace infc
