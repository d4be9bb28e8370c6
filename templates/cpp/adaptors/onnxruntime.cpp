// ONNX Runtime through its C API: a loader built with older headers runs on a newer library. The
// library is opened by its SONAME rather than linked: its one symbol carries the exact version of
// the release, and a loader that was linked with one release would refuse all others.
//
// Inputs are read from the caller's memory; an output whose shape is known is written straight to
// it, any other is copied once.
#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include <cstring>
#include <vector>

#include "runtime/adaptor.h"

namespace infc {
namespace {

const OrtApiBase& api_base() {
  static const OrtApiBase* const base = [] {
    // Never closed: its threads may outlive the last model.
    void* const library = dlopen("libonnxruntime.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      throw Error(std::string("ONNX Runtime cannot be loaded (its folder must be in the loader's ") +
                  "run path or in LD_LIBRARY_PATH): " + dlerror());
    }
    using Entry = const OrtApiBase*(ORT_API_CALL*)();
    const auto entry = reinterpret_cast<Entry>(dlsym(library, "OrtGetApiBase"));
    if (entry == nullptr) throw Error("libonnxruntime.so.1 is not ONNX Runtime");
    return entry();
  }();
  return *base;
}

const OrtApi& api() {
  static const OrtApi* const table = api_base().GetApi(ORT_API_VERSION);
  if (table == nullptr) {
    throw Error(std::string("ONNX Runtime ") + api_base().GetVersionString() +
                " is older than the headers this loader was compiled with (1." +
                std::to_string(ORT_API_VERSION) + ")");
  }
  return *table;
}

// Throws ONNX Runtime's own message where it reports one.
void check(OrtStatus* status) {
  if (status == nullptr) return;
  const std::string message = api().GetErrorMessage(status);
  api().ReleaseStatus(status);
  throw Error("ONNX Runtime: " + message);
}

// Owns a handle of the C API.
template <class T>
class Handle {
 public:
  explicit Handle(void (*const OrtApi::*release)(T*)) : release_(release) {}
  Handle(Handle&& other) noexcept : release_(other.release_), handle_(other.handle_) {
    other.handle_ = nullptr;
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() { reset(); }
  T* get() const { return handle_; }
  T** out() {
    reset();
    return &handle_;
  }

 private:
  void reset() {
    if (handle_ != nullptr) (api().*release_)(handle_);
    handle_ = nullptr;
  }
  void (*const OrtApi::*release_)(T*);
  T* handle_ = nullptr;
};

ONNXTensorElementDataType element_type(infc_dtype dtype) {
  switch (dtype) {
    case INFC_FLOAT32:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    case INFC_FLOAT64:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE;
    case INFC_FLOAT16:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
    case INFC_BFLOAT16:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
    case INFC_INT8:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
    case INFC_INT16:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16;
    case INFC_INT32:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
    case INFC_INT64:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    case INFC_UINT8:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
    case INFC_UINT16:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16;
    case INFC_UINT32:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32;
    case INFC_UINT64:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64;
    case INFC_BOOL:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL;
  }
  throw Error("an element type ONNX Runtime does not have");
}

GraphOptimizationLevel optimization_level(const infc_bundle& bundle, const std::string& entry) {
  const std::string suffix = ".ort";
  const bool is_ort = entry.size() >= suffix.size() &&
                      entry.compare(entry.size() - suffix.size(), suffix.size(), suffix) == 0;
  const std::string level = setting(bundle, "graph-optimization", is_ort ? "extended" : "all");
  if (level == "off") return ORT_DISABLE_ALL;
  if (level == "basic") return ORT_ENABLE_BASIC;
  if (level == "extended") return ORT_ENABLE_EXTENDED;
  return ORT_ENABLE_ALL;
}

class OnnxRuntimeSession final : public Session {
 public:
  OnnxRuntimeSession(const infc_bundle& bundle, const Settings& settings) : bundle_(bundle) {
    check(api().CreateEnv(ORT_LOGGING_LEVEL_ERROR, bundle.name, env_.out()));
    Handle<OrtSessionOptions> options(&OrtApi::ReleaseSessionOptions);
    check(api().CreateSessionOptions(options.out()));
    check(api().SetIntraOpNumThreads(options.get(), settings.threads));
    check(api().SetDeterministicCompute(options.get(), true));
    check(api().SetSessionGraphOptimizationLevel(options.get(),
                                                 optimization_level(bundle, settings.entry)));
    check(api().CreateSession(env_.get(), settings.entry.c_str(), options.get(), session_.out()));
    check(api().CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, memory_.out()));
    for (std::size_t i = 0; i < bundle.input_count; ++i) {
      input_names_.push_back(bundle.inputs[i].name);
      input_values_.emplace_back(&OrtApi::ReleaseValue);
    }
    for (std::size_t i = 0; i < bundle.output_count; ++i) {
      output_names_.push_back(bundle.outputs[i].name);
      output_values_.emplace_back(&OrtApi::ReleaseValue);
    }
    input_handles_.resize(bundle.input_count);
    output_handles_.resize(bundle.output_count);
  }

  void run(const Input* inputs, Output* outputs) override {
    for (std::size_t i = 0; i < input_values_.size(); ++i) {
      const Input& in = inputs[i];
      wrap(const_cast<void*>(in.data), in.bytes, in.shape, in.rank, bundle_.inputs[i].dtype,
           input_values_[i]);
      input_handles_[i] = input_values_[i].get();
    }
    for (std::size_t i = 0; i < output_values_.size(); ++i) {
      const Output& out = outputs[i];
      if (out.known) {
        wrap(out.data, out.bytes, out.shape, out.rank, bundle_.outputs[i].dtype,
             output_values_[i]);
      } else {
        output_values_[i].out();
      }
      output_handles_[i] = output_values_[i].get();
    }
    OrtStatus* const status =
        api().Run(session_.get(), nullptr, input_names_.data(), input_handles_.data(),
                  input_handles_.size(), output_names_.data(), output_handles_.size(),
                  output_handles_.data());
    for (std::size_t i = 0; i < output_values_.size(); ++i) {
      if (!outputs[i].known) *output_values_[i].out() = output_handles_[i];
    }
    check(status);
    for (std::size_t i = 0; i < output_values_.size(); ++i) {
      if (!outputs[i].known) copy(output_handles_[i], outputs[i]);
    }
  }

 private:
  // A tensor over memory that ONNX Runtime does not own. An empty one needs an address too.
  void wrap(void* data, std::size_t bytes, const std::int64_t* shape, std::size_t rank,
            infc_dtype dtype, Handle<OrtValue>& value) {
    void* const address = data == nullptr ? &nothing_ : data;
    check(api().CreateTensorWithDataAsOrtValue(memory_.get(), address, bytes, shape, rank,
                                               element_type(dtype), value.out()));
  }

  static void copy(OrtValue* value, Output& output) {
    Handle<OrtTensorTypeAndShapeInfo> info(&OrtApi::ReleaseTensorTypeAndShapeInfo);
    check(api().GetTensorTypeAndShape(value, info.out()));
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    check(api().GetTensorElementType(info.get(), &type));
    if (type != element_type(output.info->dtype)) {
      throw Error(std::string("output `") + output.info->name + "` has another element type");
    }
    std::size_t rank = 0;
    check(api().GetDimensionsCount(info.get(), &rank));
    std::vector<std::int64_t> shape(rank);
    check(api().GetDimensions(info.get(), shape.data(), rank));
    void* data = nullptr;
    check(api().GetTensorMutableData(value, &data));
    output.deliver(shape.data(), rank, data);
  }

  const infc_bundle& bundle_;
  Handle<OrtEnv> env_{&OrtApi::ReleaseEnv};
  Handle<OrtSession> session_{&OrtApi::ReleaseSession};
  Handle<OrtMemoryInfo> memory_{&OrtApi::ReleaseMemoryInfo};
  std::vector<const char*> input_names_, output_names_;
  std::vector<Handle<OrtValue>> input_values_, output_values_;
  std::vector<OrtValue*> input_handles_, output_handles_;
  char nothing_ = 0;
};

}  // namespace

const char* runtime_name() { return "ONNX Runtime"; }

std::string runtime_version() { return api_base().GetVersionString(); }

// A later 1.x reads all that an earlier one does; an earlier one may lack operators.
bool accepts(Version built, Version found) {
  return found.major == built.major && found.minor >= built.minor;
}

std::string accepted(Version built) {
  return std::to_string(built.major) + "." + std::to_string(built.minor) + " or a later " +
         std::to_string(built.major) + ".x";
}

std::unique_ptr<Session> open(const infc_bundle& bundle, const Settings& settings) {
  if (settings.device != "CPU") {
    throw Error("device `" + settings.device + "` is not one that this loader drives: CPU");
  }
  return std::make_unique<OnnxRuntimeSession>(bundle, settings);
}

}  // namespace infc
