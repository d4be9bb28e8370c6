// The inputs and outputs of an engine: where they lie, and which shapes it takes.
#ifndef INFC_ADAPTOR_TENSORS_H
#define INFC_ADAPTOR_TENSORS_H

#include <NvInferRuntime.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "adaptor/cuda.h"
#include "runtime/adaptor.h"

namespace infc {
namespace tensorrt {

using nvinfer1::Dims;

inline nvinfer1::DataType element_type(infc_dtype dtype) {
  using nvinfer1::DataType;
  switch (dtype) {
    case INFC_FLOAT32:
      return DataType::kFLOAT;
    case INFC_FLOAT16:
      return DataType::kHALF;
    case INFC_BFLOAT16:
      return DataType::kBF16;
    case INFC_INT8:
      return DataType::kINT8;
    case INFC_INT32:
      return DataType::kINT32;
    case INFC_INT64:
      return DataType::kINT64;
    case INFC_UINT8:
      return DataType::kUINT8;
    case INFC_BOOL:
      return DataType::kBOOL;
    case INFC_FLOAT64:
    case INFC_INT16:
    case INFC_UINT16:
    case INFC_UINT32:
    case INFC_UINT64:
      break;
  }
  throw Error("an element type TensorRT does not have");
}

inline std::string text_of(const Dims& dims) {
  std::string text = "[";
  for (int i = 0; i < dims.nbDims; ++i) text += (i ? ", " : "") + std::to_string(dims.d[i]);
  return text + "]";
}

template <class Size>
Dims dims_of(const Size* shape, std::size_t rank) {
  if (rank > static_cast<std::size_t>(Dims::MAX_DIMS)) {
    throw Error("a tensor has rank " + std::to_string(rank) + ", and TensorRT at most " +
                std::to_string(Dims::MAX_DIMS));
  }
  Dims dims{};
  dims.nbDims = static_cast<std::int32_t>(rank);
  std::copy(shape, shape + rank, dims.d);
  return dims;
}

inline bool is_same(const Dims& a, const Dims& b) {
  return a.nbDims == b.nbDims && std::equal(a.d, a.d + a.nbDims, b.d);
}

inline bool is_known(const Dims& dims) {
  return dims.nbDims >= 0 &&
         std::all_of(dims.d, dims.d + dims.nbDims, [](std::int64_t d) { return d >= 0; });
}

inline std::size_t bytes_of(const Dims& dims, infc_dtype dtype) {
  std::size_t bytes = item_bytes(dtype);
  for (int i = 0; i < dims.nbDims; ++i) bytes *= static_cast<std::size_t>(dims.d[i]);
  return bytes;
}

// The memory of an output whose size only the run tells: TensorRT asks for it while it runs.
class Growing final : public nvinfer1::IOutputAllocator {
 public:
  explicit Growing(cuda::Memory& memory) : memory_(&memory) {}
  void* reallocateOutputAsync(const char*, void*, std::uint64_t size, std::uint64_t,
                              cudaStream_t) noexcept override {
    try {
      memory_->reserve(static_cast<std::size_t>(size));
      return memory_->get();
    } catch (...) {
      return nullptr;  // TensorRT then ends the run with an error
    }
  }
  void notifyShape(const char*, const Dims& dims) noexcept override { shape = dims; }

  Dims shape{};

 private:
  cuda::Memory* memory_;
};

// An input or output, and its memory: where TensorRT reads or writes it, and the pinned memory that
// is copied from and to. They are one for a tensor that shapes are computed from, or that holds
// one: TensorRT wants those on the host.
struct Tensor {
  Tensor(const cuda::Context& context, const infc_tensor& tensor, std::size_t position, bool on_host)
      : info(&tensor),
        place(position),
        is_on_host(on_host),
        bound(context, on_host ? cuda::Memory::Place::host : cuda::Memory::Place::gpu),
        pinned(context, cuda::Memory::Place::host) {}

  const cuda::Memory& staging() const { return is_on_host ? bound : pinned; }

  // Makes room; whether an address changed.
  bool reserve(std::size_t size) {
    bytes = size;
    const bool moved = bound.reserve(size);
    return (!is_on_host && pinned.reserve(size)) || moved;
  }

  const infc_tensor* info;
  std::size_t place;  // among the bundle's inputs, or outputs
  bool is_on_host;
  cuda::Memory bound;
  cuda::Memory pinned;
  std::size_t bytes = 0;
  Dims shape{};
  std::unique_ptr<Growing> growing;  // for an output whose size only the run tells
};

// The shapes that one optimization profile takes, input by input.
struct Profile {
  std::vector<Dims> low, typical, high;

  bool takes(const std::vector<Dims>& shapes) const {
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      for (int axis = 0; axis < shapes[i].nbDims && axis < low[i].nbDims; ++axis) {
        const std::int64_t size = shapes[i].d[axis];
        if (size < low[i].d[axis] || size > high[i].d[axis]) return false;
      }
    }
    return true;
  }

  // How far shapes are from those that the profile was tuned for, in sizes of axes.
  std::int64_t distance(const std::vector<Dims>& shapes) const {
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      for (int axis = 0; axis < shapes[i].nbDims && axis < typical[i].nbDims; ++axis) {
        const std::int64_t apart = shapes[i].d[axis] - typical[i].d[axis];
        sum += apart < 0 ? -apart : apart;
      }
    }
    return sum;
  }
};

// The profile that takes `shapes` and was tuned for the nearest ones; -1 where none takes them.
inline int nearest(const std::vector<Profile>& profiles, const std::vector<Dims>& shapes) {
  int best = -1;
  std::int64_t least = 0;
  for (std::size_t i = 0; i < profiles.size(); ++i) {
    if (!profiles[i].takes(shapes)) continue;
    const std::int64_t distance = profiles[i].distance(shapes);
    if (best >= 0 && distance >= least) continue;
    best = static_cast<int>(i);
    least = distance;
  }
  return best;
}

}  // namespace tensorrt
}  // namespace infc

#endif
