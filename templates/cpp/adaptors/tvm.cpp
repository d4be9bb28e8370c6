// A library of kernels that TVM made for one processor: the model is all in it.
//
// It is opened by dlopen, each model's under its own handle: the libraries of several models
// have the same names in them.
#include <dlfcn.h>

#include <string>
#include <vector>

#include "runtime/adaptor.h"

namespace infc {
namespace {

constexpr int kAbi = 1;
constexpr int kMaxRank = 16;
enum Status { kOk = 0, kNoMemory = 1, kWrongCpu = 4 };

struct infc_model;

class Library {
 public:
  explicit Library(const std::string& path) : handle_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    if (handle_ == nullptr) {
      const char* reason = dlerror();
      throw Error(std::string("the model's library cannot be opened: ") +
                  (reason != nullptr ? reason : path));
    }
    find("infc_model_abi", abi);
    if (abi() != kAbi) {
      throw Error("the model's library has interface " + std::to_string(abi()) +
                  ", this loader takes " + std::to_string(kAbi));
    }
    find("infc_model_create", create);
    find("infc_model_run", run);
    find("infc_model_message", message);
    find("infc_model_destroy", destroy);
    find("infc_model_tensor", tensor);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
  ~Library() { dlclose(handle_); }

  int (*abi)() = nullptr;
  int (*create)(int, infc_model**) = nullptr;
  int (*run)(infc_model*, const void* const*, void* const*) = nullptr;
  const char* (*message)(const infc_model*) = nullptr;
  void (*destroy)(infc_model*) = nullptr;
  int (*tensor)(int, int, std::int64_t*, int*) = nullptr;

 private:
  template <typename Function>
  void find(const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(handle_, name));
    if (function == nullptr) {
      throw Error(std::string("the model's library has no `") + name + "`");
    }
  }

  void* handle_;
};

class TvmSession final : public Session {
 public:
  TvmSession(const infc_bundle& bundle, const Settings& settings)
      : bundle_(bundle), library_(settings.entry) {
    if (settings.device != "CPU") throw Error("there is no device `" + settings.device + "`");
    const int status = library_.create(settings.threads, &model_);
    if (status == kNoMemory) throw Error("there is no memory for the model, or for a thread of it");
    if (status == kWrongCpu) throw Error("the model was compiled for another processor");
    if (status != kOk) throw Error("the model cannot be made: error " + std::to_string(status));
    inputs_.resize(bundle.input_count);
    outputs_.resize(bundle.output_count);
    answers_.resize(bundle.output_count);
    for (std::size_t i = 0; i < bundle.output_count; ++i) {
      std::int64_t shape[kMaxRank];
      int type = 0;
      const int rank = library_.tensor(1, static_cast<int>(i), shape, &type);
      if (rank < 0) throw Error("the model's library has fewer outputs than the bundle");
      answers_[i].shape.assign(shape, shape + rank);
      std::size_t elements = 1;
      for (const std::int64_t axis : answers_[i].shape) elements *= static_cast<std::size_t>(axis);
      answers_[i].bytes = elements * item_bytes(bundle.outputs[i].dtype);
    }
  }
  ~TvmSession() override { library_.destroy(model_); }

  void run(const Input* inputs, Output* outputs) override {
    for (std::size_t i = 0; i < bundle_.input_count; ++i) inputs_[i] = inputs[i].data;
    for (std::size_t i = 0; i < bundle_.output_count; ++i) {
      Answer& answer = answers_[i];
      if (outputs[i].known) {
        outputs_[i] = outputs[i].data;
      } else {
        answer.memory.resize(answer.bytes);
        outputs_[i] = answer.memory.data();
      }
    }
    if (library_.run(model_, inputs_.data(), outputs_.data()) != kOk) {
      throw Error(std::string("a kernel of the model fails: ") + library_.message(model_));
    }
    for (std::size_t i = 0; i < bundle_.output_count; ++i) {
      const Answer& answer = answers_[i];
      if (!outputs[i].known) {
        outputs[i].deliver(answer.shape.data(), answer.shape.size(), answer.memory.data());
      }
    }
  }

 private:
  struct Answer {
    std::vector<std::int64_t> shape;
    std::size_t bytes = 0;
    std::vector<unsigned char> memory;  // where the caller's is not known before the run
  };

  const infc_bundle& bundle_;
  Library library_;
  infc_model* model_ = nullptr;
  std::vector<const void*> inputs_;
  std::vector<void*> outputs_;
  std::vector<Answer> answers_;
};

}  // namespace

const char* runtime_name() { return "the model's library"; }

// There is no runtime: what could be of another version is in the library, and asked when it opens.
std::string runtime_version() { return "0.27"; }

bool accepts(Version, Version) { return true; }

std::string accepted(Version) { return "any"; }

std::unique_ptr<Session> open(const infc_bundle& bundle, const Settings& settings) {
  return std::make_unique<TvmSession>(bundle, settings);
}

}  // namespace infc
