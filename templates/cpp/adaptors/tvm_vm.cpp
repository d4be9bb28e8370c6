// A library for TVM's virtual machine, on libtvm_runtime and libtvm_ffi: dimensions may stay open.
//
// TVM's own pool of threads belongs to whoever calls, has a size that is settled once, and binds the
// caller to processors. Kernels ask for threads through a pointer in their library: it is led to a
// pool here instead, one for each model, of the size that was asked for.
//
// Inputs are read from the caller's memory where that is aligned; answers are copied once.
#include <dlfcn.h>
#include <signal.h>
#include <tvm/ffi/c_api.h>
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "adaptor/pool.h"
#include "adaptor/tensors.h"
#include "runtime/adaptor.h"

namespace infc {
namespace {

namespace ffi = tvm::ffi;

// libtvm_ffi takes SIGSEGV for itself as soon as it is loaded, to print where a fault was; a JVM,
// which was there before, needs that signal to run. It is given back: to what has SIGBUS, since a
// JVM has one handler for both, as other handlers of faults do, or else to the default.
class FaultSignal {
 public:
  FaultSignal() {
    struct sigaction now, other;
    if (sigaction(SIGSEGV, nullptr, &now) != 0 || sigaction(SIGBUS, nullptr, &other) != 0) return;
    Dl_info owner, taker;
    const bool known = (now.sa_flags & SA_SIGINFO) == 0 && now.sa_handler != SIG_DFL &&
                       dladdr(reinterpret_cast<void*>(now.sa_handler), &owner) != 0 &&
                       dladdr(reinterpret_cast<void*>(TVMFFIGetVersion), &taker) != 0;
    if (known && owner.dli_fbase == taker.dli_fbase) sigaction(SIGSEGV, &other, nullptr);
  }
};
const FaultSignal fault_signal;

enum Allocator { kNaive = 1, kPooled = 2 };

std::string ffi_version() {
  TVMFFIVersion version;
  TVMFFIGetVersion(&version);
  return std::to_string(version.major) + "." + std::to_string(version.minor) + "." +
         std::to_string(version.patch);
}

// TVM's messages come with where they were raised; the caller is told the message alone.
[[noreturn]] void rethrow(const ffi::Error& error) {
  throw Error("TVM: " + error.kind() + ": " + error.message());
}

// The model's library, opened once more beside TVM, which keeps its own handle to itself.
class Library {
 public:
  explicit Library(const std::string& path) : handle_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    if (handle_ == nullptr) {
      const char* reason = dlerror();
      throw Error(std::string("the model's library cannot be opened: ") +
                  (reason != nullptr ? reason : path));
    }
    try {
      require_fit();
    } catch (...) {
      dlclose(handle_);
      throw;
    }
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
  ~Library() { dlclose(handle_); }

  // Lets the kernels have their threads from the pools here.
  void lead_threads() {
    if (void* slot = dlsym(handle_, "__TVMBackendParallelLaunch")) {
      *static_cast<Launch*>(slot) = launch;
    }
  }

 private:
  void require_fit() {
    const auto made = static_cast<const char*>(dlsym(handle_, "infc_tvm_ffi_version"));
    const auto fits = reinterpret_cast<int (*)()>(dlsym(handle_, "infc_cpu_fits"));
    if (made == nullptr || fits == nullptr) {
      throw Error("the model's library was not made by infc for TVM's virtual machine");
    }
    if (made != ffi_version()) {
      throw Error(std::string("the model was compiled with tvm_ffi ") + made +
                  ", and this program runs " + ffi_version() + ": it needs the same one");
    }
    if (fits() == 0) throw Error("the model was compiled for another processor");
  }

  void* handle_;
};

bool has_open_sizes(const infc_bundle& bundle) {
  for (std::size_t i = 0; i < bundle.input_count; ++i) {
    const infc_tensor& input = bundle.inputs[i];
    for (std::int32_t axis = 0; axis < input.rank; ++axis) {
      if (input.axes[axis] < 0) return true;
    }
  }
  return false;
}

class VirtualMachine final : public Session {
 public:
  VirtualMachine(const infc_bundle& bundle, const Settings& settings)
      : bundle_(bundle), library_(settings.entry), pool_(settings.threads) {
    if (settings.device != "CPU") throw Error("there is no device `" + settings.device + "`");
    staging_.resize(bundle.input_count);
    try {
      const ffi::Module module = ffi::Module::LoadFromFile(settings.entry);
      library_.lead_threads();
      const auto load = module->GetFunction("vm_load_executable", true);
      if (!load.has_value()) throw Error("the model's library has no executable in it");
      machine_ = load.value()().cast<ffi::Module>();
      // A pool keeps memory of every size it ever had: where sizes vary, that would only grow.
      const int allocator = has_open_sizes(bundle) ? kNaive : kPooled;
      machine_.value()->GetFunction("vm_initialization", true)
          .value()(static_cast<int>(kDLCPU), 0, allocator);
      const auto main = machine_.value()->GetFunction("main", true);
      if (!main.has_value()) throw Error("the model's executable has no `main`");
      main_ = main.value();
    } catch (const ffi::Error& error) {
      rethrow(error);
    }
  }

  void run(const Input* inputs, Output* outputs) override {
    const Running running(pool_);
    try {
      deliver(called(inputs), outputs);
    } catch (const ffi::Error& error) {
      rethrow(error);
    }
  }

 private:
  ffi::Any called(const Input* inputs) {
    std::vector<ffi::Tensor> tensors;
    std::vector<ffi::AnyView> arguments;
    tensors.reserve(bundle_.input_count);
    for (std::size_t i = 0; i < bundle_.input_count; ++i) {
      const Input& in = inputs[i];
      const bool aligned =
          in.data != nullptr && reinterpret_cast<std::uintptr_t>(in.data) % kAlignment == 0;
      void* const data =
          aligned ? const_cast<void*>(in.data) : staging_[i].copy(in.data, in.bytes);
      tensors.push_back(ffi::Tensor::FromNDAlloc(Borrowed{data}, ffi::ShapeView(in.shape, in.rank),
                                                 type_of(bundle_.inputs[i].dtype),
                                                 DLDevice{kDLCPU, 0}));
      arguments.emplace_back(tensors.back());
    }
    ffi::Any answer;
    main_.value().CallPacked(arguments.data(), static_cast<std::int32_t>(arguments.size()),
                             &answer);
    return answer;
  }

  void deliver(const ffi::Any& answer, Output* outputs) {
    std::vector<ffi::Tensor> found;
    if (const auto single = answer.try_cast<ffi::Tensor>()) {
      found.push_back(*single);
    } else {
      for (const ffi::Any& part : answer.cast<ffi::Array<ffi::Any>>()) {
        found.push_back(part.cast<ffi::Tensor>());
      }
    }
    if (found.size() != bundle_.output_count) {
      throw Error("the model gives " + std::to_string(found.size()) + " outputs, the bundle has " +
                  std::to_string(bundle_.output_count));
    }
    for (std::size_t i = 0; i < found.size(); ++i) {
      const DLDataType wanted = type_of(bundle_.outputs[i].dtype), type = found[i].dtype();
      if (type.code != wanted.code || type.bits != wanted.bits || type.lanes != 1) {
        throw Error(std::string("output `") + bundle_.outputs[i].name +
                    "` has another element type");
      }
      const ffi::ShapeView shape = found[i].shape();
      outputs[i].deliver(shape.data(), shape.size(), found[i].data_ptr());
    }
  }

  const infc_bundle& bundle_;
  Library library_;  // outlives what TVM holds of it
  Pool pool_;
  std::vector<Aligned> staging_;
  std::optional<ffi::Module> machine_;
  std::optional<ffi::Function> main_;
};

}  // namespace

const char* runtime_name() { return "TVM"; }

// libtvm_runtime does not tell its version, and goes with one tvm_ffi only.
std::string runtime_version() { return "tvm_ffi " + ffi_version(); }

// The library says which tvm_ffi it was made with: it is asked when it is opened.
bool accepts(Version, Version) { return true; }

std::string accepted(Version) { return "the same"; }

std::unique_ptr<Session> open(const infc_bundle& bundle, const Settings& settings) {
  return std::make_unique<VirtualMachine>(bundle, settings);
}

}  // namespace infc
