// TorchScript through libtorch.
//
// Inputs are read from the caller's memory; outputs are copied once, as TorchScript has no way to
// be told where to write. The number of threads is libtorch's own: one for the whole process.
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/script.h>

#include <cctype>
#include <vector>

#include "runtime/adaptor.h"

namespace infc {
namespace {

at::ScalarType scalar_type(infc_dtype dtype) {
  switch (dtype) {
    case INFC_FLOAT32:
      return at::kFloat;
    case INFC_FLOAT64:
      return at::kDouble;
    case INFC_FLOAT16:
      return at::kHalf;
    case INFC_BFLOAT16:
      return at::kBFloat16;
    case INFC_INT8:
      return at::kChar;
    case INFC_INT16:
      return at::kShort;
    case INFC_INT32:
      return at::kInt;
    case INFC_INT64:
      return at::kLong;
    case INFC_UINT8:
      return at::kByte;
    case INFC_UINT16:
      return at::kUInt16;
    case INFC_UINT32:
      return at::kUInt32;
    case INFC_UINT64:
      return at::kUInt64;
    case INFC_BOOL:
      return at::kBool;
  }
  throw Error("an element type libtorch does not have");
}

// "CPU" or "CUDA:1", as the target profiles spell it.
at::Device device_of(std::string name) {
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  try {
    return at::Device(name);
  } catch (const c10::Error&) {
    throw Error("libtorch has no device `" + name + "`");
  }
}

class TorchScriptSession final : public Session {
 public:
  TorchScriptSession(const infc_bundle& bundle, const Settings& settings)
      : bundle_(bundle), device_(device_of(settings.device)) {
    if (settings.threads > 0) at::set_num_threads(settings.threads);
    try {
      module_ = torch::jit::load(settings.entry, device_);
    } catch (const c10::Error& error) {
      throw Error(std::string("libtorch: ") + error.what_without_backtrace());
    }
    module_.eval();
  }

  void run(const Input* inputs, Output* outputs) override {
    const c10::InferenceMode inference;
    std::vector<c10::IValue> arguments;
    arguments.reserve(bundle_.input_count);
    for (std::size_t i = 0; i < bundle_.input_count; ++i) {
      const Input& in = inputs[i];
      arguments.emplace_back(at::from_blob(const_cast<void*>(in.data),
                                           at::IntArrayRef(in.shape, in.rank),
                                           scalar_type(bundle_.inputs[i].dtype))
                                 .to(device_));
    }
    try {
      collect(module_.forward(std::move(arguments)));
    } catch (const c10::Error& error) {
      throw Error(std::string("libtorch: ") + error.what_without_backtrace());
    }
    if (results_.size() != bundle_.output_count) {
      throw Error("the artifact gave " + std::to_string(results_.size()) + " outputs in place of " +
                  std::to_string(bundle_.output_count));
    }
    for (std::size_t i = 0; i < results_.size(); ++i) {
      const at::Tensor answer = results_[i].to(at::kCPU).contiguous();
      if (answer.scalar_type() != scalar_type(bundle_.outputs[i].dtype)) {
        throw Error(std::string("output `") + bundle_.outputs[i].name +
                    "` has another element type");
      }
      const at::IntArrayRef shape = answer.sizes();
      outputs[i].deliver(shape.data(), shape.size(), answer.const_data_ptr());
    }
    results_.clear();
  }

 private:
  // A module returns a tensor, or a tuple or list of them.
  void collect(const c10::IValue& value) {
    results_.clear();
    if (value.isTensor()) {
      results_.push_back(value.toTensor());
    } else if (value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorVector()) results_.push_back(tensor);
    } else if (value.isTuple()) {
      for (const c10::IValue& item : value.toTupleRef().elements()) {
        results_.push_back(item.toTensor());
      }
    } else {
      throw Error("the artifact returned something that is neither a tensor nor a tuple of them");
    }
  }

  const infc_bundle& bundle_;
  at::Device device_;
  torch::jit::Module module_;
  std::vector<at::Tensor> results_;
};

}  // namespace

const char* runtime_name() { return "libtorch"; }

// The headers say what the loader was compiled with; only this says what it runs on.
std::string runtime_version() {
  const std::string text = at::show_config();
  const std::string key = "TORCH_VERSION=";
  const std::size_t start = text.find(key);
  if (start == std::string::npos) throw Error("this libtorch does not say its version");
  const std::size_t end = text.find_first_of(", \n", start);
  return text.substr(start + key.size(), end - start - key.size());
}

// A later 2.x reads the archives of an earlier one; an earlier one may lack operators.
bool accepts(Version built, Version found) {
  return found.major == built.major && found.minor >= built.minor;
}

std::string accepted(Version built) {
  return std::to_string(built.major) + "." + std::to_string(built.minor) + " or a later " +
         std::to_string(built.major) + ".x";
}

std::unique_ptr<Session> open(const infc_bundle& bundle, const Settings& settings) {
  return std::make_unique<TorchScriptSession>(bundle, settings);
}

}  // namespace infc
