// Element types as DLPack has them, and memory that TVM reads.
#ifndef INFC_TVM_TENSORS_H
#define INFC_TVM_TENSORS_H

#include <tvm/ffi/container/tensor.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "runtime/adaptor.h"

namespace infc {

constexpr std::size_t kAlignment = 64;  // what the kernels' loads are made for

inline DLDataType type_of(infc_dtype dtype) {
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

}  // namespace infc

#endif
