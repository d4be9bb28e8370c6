// OpenVINO through its C++ API.
//
// Inputs are read from the caller's memory; an output whose shape is known is written straight to
// it, any other is copied once.
#include <algorithm>
#include <openvino/core/version.hpp>
#include <openvino/runtime/core.hpp>
#include <openvino/runtime/properties.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "runtime/adaptor.h"

namespace infc {
namespace {

ov::element::Type element_type(infc_dtype dtype) {
  switch (dtype) {
    case INFC_FLOAT32:
      return ov::element::f32;
    case INFC_FLOAT64:
      return ov::element::f64;
    case INFC_FLOAT16:
      return ov::element::f16;
    case INFC_BFLOAT16:
      return ov::element::bf16;
    case INFC_INT8:
      return ov::element::i8;
    case INFC_INT16:
      return ov::element::i16;
    case INFC_INT32:
      return ov::element::i32;
    case INFC_INT64:
      return ov::element::i64;
    case INFC_UINT8:
      return ov::element::u8;
    case INFC_UINT16:
      return ov::element::u16;
    case INFC_UINT32:
      return ov::element::u32;
    case INFC_UINT64:
      return ov::element::u64;
    case INFC_BOOL:
      return ov::element::boolean;
  }
  throw Error("an element type OpenVINO does not have");
}

// The input that carries the tensor `name`; where a name was lost, the order was not.
ov::Output<const ov::Node> input(const std::vector<ov::Output<const ov::Node>>& ports,
                                 const char* name, std::size_t position) {
  for (const auto& port : ports) {
    if (port.get_names().count(name) != 0) return port;
  }
  return ports.at(position);
}

// OpenVINO's message without the checks and source files it was raised from.
std::string message_of(const std::exception& error) {
  std::istringstream text(error.what());
  std::string message = "OpenVINO:", line;
  while (std::getline(text, line)) {
    const bool origin = line.rfind("Exception from ", 0) == 0 || line.rfind("Check '", 0) == 0;
    if (!origin && line.find_first_not_of(" \t\r") != std::string::npos) message += " " + line;
  }
  return message;
}

class OpenVinoSession final : public Session {
 public:
  OpenVinoSession(const infc_bundle& bundle, const Settings& settings) try : bundle_(bundle) {
    tell_cpu(settings.threads);
    tell_gpu();
    compiled_ = core_.compile_model(
        settings.entry, settings.device,
        ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY));
    request_ = compiled_.create_infer_request();
    if (compiled_.inputs().size() != bundle.input_count ||
        compiled_.outputs().size() != bundle.output_count) {
      throw Error("the artifact has another number of inputs or outputs than the loader");
    }
    for (std::size_t i = 0; i < bundle.input_count; ++i) {
      inputs_.push_back(input(compiled_.inputs(), bundle.inputs[i].name, i));
    }
    // By position: the CPU plugin merges the names of outputs that are one constant.
    outputs_ = compiled_.outputs();
  } catch (const ov::Exception& error) {
    throw Error(message_of(error));
  }

  void run(const Input* inputs, Output* outputs) override try {
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      request_.set_tensor(inputs_[i], wrap(const_cast<void*>(inputs[i].data), inputs[i].shape,
                                           inputs[i].rank, bundle_.inputs[i].dtype));
    }
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      if (!outputs[i].known) continue;
      request_.set_tensor(outputs_[i], wrap(outputs[i].data, outputs[i].shape, outputs[i].rank,
                                            bundle_.outputs[i].dtype));
    }
    request_.infer();
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      const ov::Tensor tensor = request_.get_tensor(outputs_[i]);
      if (tensor.get_element_type() != element_type(bundle_.outputs[i].dtype)) {
        throw Error(std::string("output `") + bundle_.outputs[i].name +
                    "` has another element type");
      }
      const ov::Shape& shape = tensor.get_shape();
      shape_.assign(shape.begin(), shape.end());
      outputs[i].deliver(shape_.data(), shape_.size(), tensor.data());
    }
  } catch (const ov::Exception& error) {
    throw Error(message_of(error));
  }

 private:
  // What was verified: float32 arithmetic, for bf16 bfloat16 where the CPU has it. The default of a
  // CPU is to use that whenever it can. AUTO and HETERO pass neither setting on, so the CPU is told
  // itself.
  void tell_cpu(int threads) {
    try {
      const auto able = core_.get_property("CPU", ov::device::capabilities);
      const bool has = std::find(able.begin(), able.end(), "BF16") != able.end();
      const bool wanted = std::string(bundle_.precision) == "bf16";
      ov::AnyMap config = {
          ov::hint::inference_precision(has && wanted ? ov::element::bf16 : ov::element::f32)};
      if (threads > 0) config.insert(ov::inference_num_threads(threads));
      core_.set_property("CPU", config);
    } catch (const ov::Exception&) {
      // An installation without the CPU plugin has nobody to tell.
    }
  }

  // The types of an fp16 graph are meant; a GPU's default is float16 for everything.
  void tell_gpu() {
    if (std::string(bundle_.precision) != "fp16") return;
    try {
      core_.set_property("GPU", ov::hint::execution_mode(ov::hint::ExecutionMode::ACCURACY));
    } catch (const ov::Exception&) {
      // Nor has one without the GPU plugin.
    }
  }

  // A tensor over memory that OpenVINO does not own. An empty one needs an address too.
  ov::Tensor wrap(void* data, const std::int64_t* shape, std::size_t rank, infc_dtype dtype) {
    void* const address = data == nullptr ? &nothing_ : data;
    return ov::Tensor(element_type(dtype), ov::Shape(shape, shape + rank), address);
  }

  const infc_bundle& bundle_;
  ov::Core core_;
  ov::CompiledModel compiled_;
  ov::InferRequest request_;
  std::vector<ov::Output<const ov::Node>> inputs_, outputs_;
  std::vector<std::int64_t> shape_;
  char nothing_ = 0;
};

}  // namespace

const char* runtime_name() { return "OpenVINO"; }

std::string runtime_version() { return ov::get_openvino_version().buildNumber; }

// The IR is read by every later release; an earlier one may lack operators.
bool accepts(Version built, Version found) {
  return found.major > built.major || (found.major == built.major && found.minor >= built.minor);
}

std::string accepted(Version built) {
  return std::to_string(built.major) + "." + std::to_string(built.minor) + " or later";
}

std::unique_ptr<Session> open(const infc_bundle& bundle, const Settings& settings) {
  return std::make_unique<OpenVinoSession>(bundle, settings);
}

}  // namespace infc
