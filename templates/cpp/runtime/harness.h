// The command line of a loader's `main`: fill or read the inputs, run, time, print or write.
#ifndef INFC_HARNESS_H
#define INFC_HARNESS_H

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace harness {

enum class DType {
  float32,
  float64,
  float16,
  bfloat16,
  int8,
  int16,
  int32,
  int64,
  uint8,
  uint16,
  uint32,
  uint64,
  boolean
};

// An axis is a size, dim(i) for dimension i of the run, or kUnknown where only the run tells.
constexpr std::int64_t dim(std::int64_t i) { return -1 - i; }
constexpr std::int64_t kUnknown = std::numeric_limits<std::int64_t>::min();

struct Dim {
  std::string name;
  std::int64_t low, high;
  std::int64_t typical;  // 0 where the model says nothing about it
};

struct Tensor {
  std::string name;
  DType dtype;
  std::vector<std::int64_t> axes;
  bool rank_unknown = false;
};

struct Signature {
  std::string model;
  std::vector<Dim> dims;
  std::vector<Tensor> inputs, outputs;
};

template <class T>
class View {
 public:
  View(T* data, std::size_t size) : data_(data), size_(size) {}
  T* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  T* data_;
  std::size_t size_;
};

// The elements of a tensor and its shape.
class Buffer {
 public:
  std::vector<std::int64_t> shape = {};
  std::vector<std::max_align_t> storage = {};
  std::size_t bytes = 0;

  void resize(std::size_t size) {
    bytes = size;
    storage.resize((size + sizeof(std::max_align_t) - 1) / sizeof(std::max_align_t));
  }
  template <class T>
  View<T> as() {
    return View<T>(reinterpret_cast<T*>(storage.data()), bytes / sizeof(T));
  }
  template <class T>
  void assign(const std::vector<T>& data, const std::vector<std::int64_t>& new_shape) {
    shape = new_shape;
    resize(data.size() * sizeof(T));
    T* const to = as<T>().data();
    for (std::size_t i = 0; i < data.size(); ++i) to[i] = data[i];
  }
};

struct Run {
  std::vector<std::int64_t> dims;
  std::vector<Buffer> inputs, outputs;
};

// A model, opened; `run` calls it through its generated C++ interface.
class Program {
 public:
  Program() = default;
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  virtual ~Program() = default;
  virtual void run(Run& r) = 0;
};

using Open = std::unique_ptr<Program> (*)(const std::string& path, int threads,
                                          const std::string& device);
using Version = std::string (*)();

int main(int argc, char** argv, const Signature& signature, Open open, Version version);

}  // namespace harness

#endif
