// What a back end implements for the loaders: adaptor.cpp, plain C++17 over the vendor's SDK.
#ifndef INFC_ADAPTOR_H
#define INFC_ADAPTOR_H

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

#include "infc_runtime.h"

namespace infc {

// Ends a call with this message. An adaptor may also let the SDK's own std::exceptions pass.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Version {
  int major;
  int minor;
};

// An input of one run; `data` is the caller's memory.
struct Input {
  const void* data;
  std::size_t bytes;
  const std::int64_t* shape;
  std::size_t rank;
};

// An output of one run.
class Output {
 public:
  // Whether the shape is known before the run; then `data`, `shape` and `rank` may be given to the
  // runtime to write to, and `deliver` need not be called.
  bool known = false;
  void* data = nullptr;
  std::size_t bytes = 0;
  const std::int64_t* shape = nullptr;
  std::size_t rank = 0;

  // Takes an answer of this shape from `from`; throws where a known shape is another one.
  void deliver(const std::int64_t* actual_shape, std::size_t actual_rank, const void* from);

  const infc_tensor* info = nullptr;
  const infc_output* caller = nullptr;
  std::size_t needed = 0;  // elements that had no room; 0 where it fitted
};

// An artifact, loaded. Used by one thread at a time.
class Session {
 public:
  Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  virtual ~Session() = default;
  virtual void run(const Input* inputs, Output* outputs) = 0;
};

struct Settings {
  std::string entry;   // the artifact's file
  int threads;         // 0: the runtime's own choice
  std::string device;  // never empty
  bool cuda_graph;     // replay what repeats, where the runtime can
};

// The name of the runtime for messages, and the version of the library that is really loaded.
const char* runtime_name();
std::string runtime_version();

// Whether a runtime of version `found` can be trusted with an artifact made with `built`, and the
// rule in words: "ONNX Runtime 1.31 or a later 1.x".
bool accepts(Version built, Version found);
std::string accepted(Version built);

std::unique_ptr<Session> open(const infc_bundle& bundle, const Settings& settings);

// Of a back end whose artifacts are built where they run, and of no other: `infc_recipe::build`.
void build(const infc_bundle* bundle, const char* graph, const char* entry, const char* device);

// For adaptors.
std::size_t item_bytes(infc_dtype dtype);
const char* setting(const infc_bundle& bundle, const char* key, const char* otherwise);
const char* value_of(const infc_setting* settings, std::size_t count, const char* key);  // or null

}  // namespace infc

#endif
