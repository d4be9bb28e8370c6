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

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <optional>
#include <thread>
#include <vector>

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

constexpr std::size_t kAlignment = 64;  // what the kernels' loads are made for
constexpr int kMaxThreads = 256;
enum Allocator { kNaive = 1, kPooled = 2 };

struct Group {  // TVMParallelGroupEnv
  void* sync;
  std::int32_t tasks;
};
using Task = int (*)(int task, Group* group, void* data);
using Launch = int (*)(Task task, void* data, int tasks);

// Threads that take a share each of what a kernel computes; the caller takes the first.
class Pool {
 public:
  explicit Pool(int threads) {
    if (threads <= 0) threads = static_cast<int>(std::thread::hardware_concurrency());
    threads_ = std::clamp(threads, 1, kMaxThreads);
    try {
      for (int i = 1; i < threads_; ++i) workers_.emplace_back([this, i] { serve(i); });
    } catch (...) {
      stop();
      throw;
    }
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() { stop(); }

  int launch(Task task, void* data) {
    task_ = task;
    data_ = data;
    failed_ = nullptr;
    bad_ = false;
    left_.store(threads_ - 1, std::memory_order_release);
    begin();
    const int status = share(0);
    for (unsigned spins = 0; left_.load(std::memory_order_acquire) != 0; ++spins) {
      if (spins > kSpins) std::this_thread::yield();
    }
    if (status != 0) {
      if (failed_ != nullptr) TVMFFIObjectDecRef(failed_);
      return status;
    }
    if (!bad_) return 0;
    if (failed_ != nullptr) TVMFFIErrorSetRaised(failed_);
    if (failed_ != nullptr) TVMFFIObjectDecRef(failed_);
    return -1;
  }

  int threads() const { return threads_; }

 private:
  static constexpr unsigned kSpins = 4096;  // kernels follow each other faster than that

  int share(int number) {
    Group group{nullptr, threads_};
    return task_(number, &group, data_);
  }

  void begin() {
    const std::lock_guard<std::mutex> lock(mutex_);
    generation_.fetch_add(1, std::memory_order_acq_rel);
    if (waiting_ > 0) wake_.notify_all();
  }

  void serve(int number) {
    unsigned seen = 0;
    for (;;) {
      for (unsigned i = 0; i < kSpins && generation_.load(std::memory_order_acquire) == seen; ++i) {
      }
      if (generation_.load(std::memory_order_acquire) == seen) {
        std::unique_lock<std::mutex> lock(mutex_);
        ++waiting_;
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
        --waiting_;
      }
      seen = generation_.load(std::memory_order_acquire);
      if (stopping_.load(std::memory_order_acquire)) return;
      if (share(number) != 0) keep_error();
      left_.fetch_sub(1, std::memory_order_acq_rel);
    }
  }

  // An error is kept by the thread that met it: the first one goes to the caller.
  void keep_error() {
    TVMFFIObjectHandle error = nullptr;
    TVMFFIErrorMoveFromRaised(&error);
    const std::lock_guard<std::mutex> lock(mutex_);
    bad_ = true;
    if (failed_ == nullptr) {
      failed_ = error;
    } else if (error != nullptr) {
      TVMFFIObjectDecRef(error);
    }
  }

  void stop() {
    stopping_.store(true, std::memory_order_release);
    begin();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
  }

  int threads_ = 1;
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<unsigned> generation_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<int> left_{0};
  int waiting_ = 0;
  Task task_ = nullptr;
  void* data_ = nullptr;
  bool bad_ = false;
  TVMFFIObjectHandle failed_ = nullptr;
};

thread_local Pool* current = nullptr;  // of the model that this thread runs

int launch(Task task, void* data, int) {
  if (current != nullptr && current->threads() > 1) return current->launch(task, data);
  Group group{nullptr, 1};
  return task(0, &group, data);
}

class Running {
 public:
  explicit Running(Pool& pool) : before_(current) { current = &pool; }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  ~Running() { current = before_; }

 private:
  Pool* before_;
};

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

DLDataType type_of(infc_dtype dtype) {
  const auto type = [](DLDataTypeCode code, int bits) {
    return DLDataType{static_cast<std::uint8_t>(code), static_cast<std::uint8_t>(bits), 1};
  };
  switch (dtype) {
    case INFC_FLOAT32:
      return type(kDLFloat, 32);
    case INFC_FLOAT64:
      return type(kDLFloat, 64);
    case INFC_FLOAT16:
      return type(kDLFloat, 16);
    case INFC_BFLOAT16:
      return type(kDLBfloat, 16);
    case INFC_INT8:
      return type(kDLInt, 8);
    case INFC_INT16:
      return type(kDLInt, 16);
    case INFC_INT32:
      return type(kDLInt, 32);
    case INFC_INT64:
      return type(kDLInt, 64);
    case INFC_UINT8:
      return type(kDLUInt, 8);
    case INFC_UINT16:
      return type(kDLUInt, 16);
    case INFC_UINT32:
      return type(kDLUInt, 32);
    case INFC_UINT64:
      return type(kDLUInt, 64);
    case INFC_BOOL:
      return type(kDLBool, 8);
  }
  throw Error("an element type TVM does not have");
}

struct Borrowed {  // memory that somebody else owns
  void* data;
  void AllocData(DLTensor* tensor) { tensor->data = data; }
  void FreeData(DLTensor*) {}
};

class Aligned {  // memory that grows, and is aligned
 public:
  Aligned() = default;
  Aligned(Aligned&& other) noexcept : data_(other.data_), bytes_(other.bytes_) {
    other.data_ = nullptr;
    other.bytes_ = 0;
  }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  ~Aligned() { std::free(data_); }

  void* copy(const void* from, std::size_t bytes) {
    if (bytes > bytes_ || data_ == nullptr) {
      std::free(data_);
      bytes_ = (std::max<std::size_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
      data_ = std::aligned_alloc(kAlignment, bytes_);
      if (data_ == nullptr) throw std::bad_alloc();
    }
    if (bytes != 0) std::memcpy(data_, from, bytes);
    return data_;
  }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
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
