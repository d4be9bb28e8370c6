// CUDA through its driver interface, which the driver brings along (libcuda.so.1). It is opened when
// a model is loaded and not linked: a program starts, and says what is missing, where no driver is.
#ifndef INFC_ADAPTOR_CUDA_H
#define INFC_ADAPTOR_CUDA_H

#include <cuda.h>
#include <dlfcn.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>

#include "runtime/adaptor.h"

// The functions that are used. cuda.h makes `cuMemAlloc` a macro for `cuMemAlloc_v2`: the names of
// the members, and the symbols that are looked up, are those that the header means.
#define INFC_CUDA_FUNCTIONS(X)                                                                     \
  X(cuInit)                                                                                        \
  X(cuGetErrorName)                                                                                \
  X(cuGetErrorString)                                                                              \
  X(cuDeviceGetCount)                                                                              \
  X(cuDeviceGet)                                                                                   \
  X(cuDeviceGetAttribute)                                                                          \
  X(cuDeviceGetName)                                                                               \
  X(cuDevicePrimaryCtxRetain)                                                                      \
  X(cuDevicePrimaryCtxRelease)                                                                     \
  X(cuCtxPushCurrent)                                                                              \
  X(cuCtxPopCurrent)                                                                               \
  X(cuMemAlloc)                                                                                    \
  X(cuMemFree)                                                                                     \
  X(cuMemHostAlloc)                                                                                \
  X(cuMemFreeHost)                                                                                 \
  X(cuMemcpyHtoDAsync)                                                                             \
  X(cuMemcpyDtoHAsync)                                                                             \
  X(cuStreamCreate)                                                                                \
  X(cuStreamSynchronize)                                                                           \
  X(cuStreamDestroy)                                                                               \
  X(cuStreamBeginCapture)                                                                          \
  X(cuStreamEndCapture)                                                                            \
  X(cuGraphInstantiateWithFlags)                                                                   \
  X(cuGraphLaunch)                                                                                 \
  X(cuGraphDestroy)                                                                                \
  X(cuGraphExecDestroy)
#define INFC_CUDA_TEXT(name) #name
#define INFC_CUDA_MEMBER(name) decltype(&::name) name = nullptr;
#define INFC_CUDA_LOOK_UP(name)                                                                    \
  found.name = reinterpret_cast<decltype(&::name)>(dlsym(library, INFC_CUDA_TEXT(name)));          \
  if (found.name == nullptr) missing = INFC_CUDA_TEXT(name);

namespace infc {
namespace cuda {

struct Functions {
  INFC_CUDA_FUNCTIONS(INFC_CUDA_MEMBER)
};

inline std::string text_of(const Functions& functions, CUresult status) {
  const char *name = nullptr, *text = nullptr;
  functions.cuGetErrorName(status, &name);
  functions.cuGetErrorString(status, &text);
  return std::string(text == nullptr ? "an unknown error" : text) + " (" +
         (name == nullptr ? std::to_string(static_cast<int>(status)) : name) + ")";
}

// The driver, initialised. Throws where there is none, or it finds no GPU; asked again, it looks
// again.
inline const Functions& driver() {
  static const Functions* const functions = [] {
    // Never closed: its threads may outlive the last model.
    void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      throw Error(std::string("there is no NVIDIA driver here: ") + dlerror() +
                  "; install the driver, or run where it is (a container needs `--gpus all`)");
    }
    static Functions found;
    const char* missing = nullptr;
    INFC_CUDA_FUNCTIONS(INFC_CUDA_LOOK_UP)
    if (missing != nullptr) {
      throw Error(std::string("the NVIDIA driver is too old: libcuda.so.1 has no ") + missing);
    }
    const CUresult status = found.cuInit(0);
    if (status != CUDA_SUCCESS) {
      throw Error("the NVIDIA driver finds no GPU that can be used: " + text_of(found, status));
    }
    return &found;
  }();
  return *functions;
}

inline void check(CUresult status, const char* what) {
  if (status != CUDA_SUCCESS) throw Error(std::string(what) + ": " + text_of(driver(), status));
}

// The number after `GPU:` (or `CUDA:`, or alone); 0 where there is none.
inline int ordinal_of(const std::string& device) {
  std::string rest = device;
  for (const char* prefix : {"GPU", "gpu", "CUDA", "cuda"}) {
    if (rest.rfind(prefix, 0) != 0) continue;
    rest.erase(0, std::strlen(prefix));
    if (rest.empty()) return 0;
    if (rest[0] == ':') rest.erase(0, 1);
    break;
  }
  const bool is_number = !rest.empty() && rest.size() < 4 &&
                         rest.find_first_not_of("0123456789") == std::string::npos;
  if (is_number) return std::atoi(rest.c_str());
  throw Error("device `" + device + "` is not one that this loader drives: GPU, or GPU:1 for the " +
              "second one");
}

// The primary context of a GPU: the one that TensorRT uses, and everybody else in the process.
class Context {
 public:
  explicit Context(int ordinal) {
    int count = 0;
    check(driver().cuDeviceGetCount(&count), "counting GPUs");
    if (count == 0) throw Error("the NVIDIA driver is here, and no GPU is");
    if (ordinal >= count) {
      throw Error("there is no GPU " + std::to_string(ordinal) + ": the last one is GPU " +
                  std::to_string(count - 1));
    }
    check(driver().cuDeviceGet(&device_, ordinal), "opening the GPU");
    check(driver().cuDevicePrimaryCtxRetain(&context_, device_), "opening the GPU");
  }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context() { driver().cuDevicePrimaryCtxRelease(device_); }

  CUcontext get() const { return context_; }

  // "NVIDIA L4 (compute capability 8.9)"
  std::string described() const {
    char name[256] = "GPU";
    int major = 0, minor = 0;
    driver().cuDeviceGetName(name, sizeof name - 1, device_);
    driver().cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device_);
    driver().cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device_);
    return std::string(name) + " (compute capability " + std::to_string(major) + "." +
           std::to_string(minor) + ")";
  }

 private:
  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
};

// Makes a context the calling thread's own for a while; the caller's comes back afterwards.
class Current {
 public:
  explicit Current(const Context& context) {
    check(driver().cuCtxPushCurrent(context.get()), "taking the GPU");
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;
  ~Current() {
    CUcontext ignored = nullptr;
    driver().cuCtxPopCurrent(&ignored);
  }
};

// As `Current` where nothing may be thrown: what is released after a driver that failed is lost.
template <class Body>
void released(const Context& context, Body body) noexcept {
  if (driver().cuCtxPushCurrent(context.get()) != CUDA_SUCCESS) return;
  body();
  CUcontext ignored = nullptr;
  driver().cuCtxPopCurrent(&ignored);
}

// Memory of the GPU, or of the host, pinned, so that it can be copied while the GPU works. It grows
// and never shrinks: a shape that was run once costs no more allocation.
class Memory {
 public:
  enum class Place { gpu, host };
  Memory(const Context& context, Place place) : context_(&context), place_(place) {}
  Memory(Memory&& other) noexcept
      : context_(other.context_), place_(other.place_), data_(other.data_), size_(other.size_) {
    other.data_ = nullptr;
    other.size_ = 0;
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { reset(); }

  void* get() const { return data_; }
  CUdeviceptr address() const { return reinterpret_cast<CUdeviceptr>(data_); }

  // Whether it had to move: what is remembered of its address is then wrong. The contents are lost.
  bool reserve(std::size_t bytes) {
    if (data_ != nullptr && bytes <= size_) return false;
    reset();
    const std::size_t size = bytes < 256 ? 256 : bytes;  // an empty tensor needs an address too
    const bool on_gpu = place_ == Place::gpu;
    CUdeviceptr address = 0;
    const CUresult status = on_gpu ? driver().cuMemAlloc(&address, size)
                                   : driver().cuMemHostAlloc(&data_, size, 0);
    if (status != CUDA_SUCCESS) {
      data_ = nullptr;
      throw Error(std::string(on_gpu ? "the GPU" : "the host") + " has no " +
                  std::to_string(size) + " bytes for a tensor: " + text_of(driver(), status));
    }
    if (on_gpu) data_ = reinterpret_cast<void*>(address);
    size_ = size;
    return true;
  }

 private:
  void reset() noexcept {
    if (data_ == nullptr) return;
    released(*context_, [this] {
      if (place_ == Place::gpu) {
        driver().cuMemFree(address());
      } else {
        driver().cuMemFreeHost(data_);
      }
    });
    data_ = nullptr;
    size_ = 0;
  }

  const Context* context_;
  Place place_;
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

// A stream of its own, which waits for nobody else's.
class Stream {
 public:
  explicit Stream(const Context& context) : context_(&context) {
    check(driver().cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING), "making a stream");
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() {
    released(*context_, [this] {
      driver().cuStreamSynchronize(stream_);
      driver().cuStreamDestroy(stream_);
    });
  }
  CUstream get() const { return stream_; }
  void wait() const { check(driver().cuStreamSynchronize(stream_), "waiting for the GPU"); }

 private:
  const Context* context_;
  CUstream stream_ = nullptr;
};

// What a stream did, recorded: launched as one.
class Graph {
 public:
  explicit Graph(const Context& context) : context_(&context) {}
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() { reset(); }

  explicit operator bool() const { return graph_ != nullptr; }

  // Records what `body` puts into the stream, which does not run then. False where that cannot be
  // recorded.
  template <class Body>
  bool record(const Stream& stream, Body body) {
    reset();
    const auto mode = CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    if (driver().cuStreamBeginCapture(stream.get(), mode) != CUDA_SUCCESS) return false;
    bool done = false;
    try {
      done = body();
    } catch (const Error&) {
      done = false;
    }
    CUgraph captured = nullptr;
    const CUresult ended = driver().cuStreamEndCapture(stream.get(), &captured);
    if (captured == nullptr) return false;
    if (ended != CUDA_SUCCESS || !done ||
        driver().cuGraphInstantiateWithFlags(&graph_, captured, 0) != CUDA_SUCCESS) {
      graph_ = nullptr;
    }
    driver().cuGraphDestroy(captured);
    return graph_ != nullptr;
  }

  void launch(const Stream& stream) const {
    check(driver().cuGraphLaunch(graph_, stream.get()), "launching the graph");
  }

  void reset() noexcept {
    if (graph_ == nullptr) return;
    released(*context_, [this] { driver().cuGraphExecDestroy(graph_); });
    graph_ = nullptr;
  }

 private:
  const Context* context_;
  CUgraphExec graph_ = nullptr;
};

}  // namespace cuda
}  // namespace infc

#endif
