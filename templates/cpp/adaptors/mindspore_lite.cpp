// MindSpore Lite through its C++ API, of a release archive or of the Python wheel.
//
// Inputs are read from the caller's memory, but for int64: the converter makes int32 of it, so that
// it is converted on the way in and out. Outputs are copied once: the runtime cannot be told where
// to write.
#include <dlfcn.h>
#include <fcntl.h>
#include <include/api/context.h>
#include <include/api/model.h>
#include <include/api/types.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <sstream>
#include <vector>

#include "runtime/adaptor.h"

namespace infc {
namespace {

namespace ms = mindspore;
using Type = ms::DataType;

// A status says no more than "Common error code."; the reason is in the log.
void check(const ms::Status& status, const std::string& what) {
  if (status.IsOk()) return;
  throw Error("MindSpore Lite: " + what + ", its log on standard error says why: " +
              status.GetErrDescription());
}

std::string quoted(const char* name) { return "`" + std::string(name) + "`"; }

// The runtime warns about a missing libnuma in every process. Keeps warnings off standard error
// unless GLOG_v, MindSpore's own variable, asks for a level. MindSpore reads that anew with each
// model, but leaves this flag of its glog alone. A runtime without glog has none to be told.
void quiet() {
  constexpr int kError = 2;
  if (std::getenv("GLOG_v") != nullptr) return;
  void* const glog = dlopen("libmindspore_glog.so.0", RTLD_LAZY | RTLD_NOLOAD);
  if (glog == nullptr) return;
  auto* const least = static_cast<std::int32_t*>(dlsym(glog, "_ZN3fLI17FLAGS_minloglevelE"));
  if (least != nullptr && *least < kError) *least = kError;
  dlclose(glog);
}

Type element_type(infc_dtype dtype) {
  switch (dtype) {
    case INFC_FLOAT32:
      return Type::kNumberTypeFloat32;
    case INFC_FLOAT64:
      return Type::kNumberTypeFloat64;
    case INFC_FLOAT16:
      return Type::kNumberTypeFloat16;
    case INFC_BFLOAT16:
      break;
    case INFC_INT8:
      return Type::kNumberTypeInt8;
    case INFC_INT16:
      return Type::kNumberTypeInt16;
    case INFC_INT32:
      return Type::kNumberTypeInt32;
    case INFC_INT64:
      return Type::kNumberTypeInt64;
    case INFC_UINT8:
      return Type::kNumberTypeUInt8;
    case INFC_UINT16:
      return Type::kNumberTypeUInt16;
    case INFC_UINT32:
      return Type::kNumberTypeUInt32;
    case INFC_UINT64:
      return Type::kNumberTypeUInt64;
    case INFC_BOOL:
      return Type::kNumberTypeBool;
  }
  throw Error("an element type MindSpore Lite does not have");
}

// Whether the artifact has a tensor of the model as int32 in place of int64.
bool is_narrower(const ms::MSTensor& tensor, const infc_tensor& info) {
  const Type type = tensor.DataType();
  if (type == element_type(info.dtype)) return false;
  if (type == Type::kNumberTypeInt32 && info.dtype == INFC_INT64) return true;
  throw Error(quoted(info.name) + " has another element type in the artifact");
}

std::int32_t narrow(std::int64_t value, const char* name) {
  using Limits = std::numeric_limits<std::int32_t>;
  if (value >= Limits::min() && value <= Limits::max()) return static_cast<std::int32_t>(value);
  throw Error("input " + quoted(name) + " holds " + std::to_string(value) +
              ": MindSpore Lite computes in 32 bits");
}

// The devices of a comma-separated list, the first preferred: "CPU", "GPU", "NPU" (Kirin) and
// "ASCEND". An operator that none of them has a kernel for is an error: the CPU stands in only
// where the list ends with it, as in "NPU,CPU".
std::shared_ptr<ms::Context> context_of(const infc_bundle& bundle, const Settings& settings) {
  const bool fp16 = std::strcmp(bundle.precision, "fp16") == 0;
  auto context = std::make_shared<ms::Context>();
  if (settings.threads > 0) context->SetThreadNum(settings.threads);
  auto& devices = context->MutableDeviceInfo();
  std::istringstream list(settings.device);
  for (std::string name; std::getline(list, name, ',');) {
    for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    if (name == "CPU") {
      auto info = std::make_shared<ms::CPUDeviceInfo>();
      info->SetEnableFP16(fp16);
      devices.push_back(info);
    } else if (name == "GPU") {
      auto info = std::make_shared<ms::GPUDeviceInfo>();
      info->SetEnableFP16(fp16);
      devices.push_back(info);
    } else if (name == "NPU") {
      auto info = std::make_shared<ms::KirinNPUDeviceInfo>();
      info->SetEnableFP16(fp16);
      devices.push_back(info);
    } else if (name == "ASCEND") {
      auto info = std::make_shared<ms::AscendDeviceInfo>();
      info->SetPrecisionMode(fp16 ? "enforce_fp16" : "enforce_fp32");
      devices.push_back(info);
    } else {
      throw Error("MindSpore Lite has no device `" + name + "`: CPU, GPU, NPU or ASCEND");
    }
  }
  return context;
}

// The artifact, mapped. The model reads its weights from there as long as it lives.
class File {
 public:
  explicit File(const std::string& path) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat info = {};
    if (file >= 0 && fstat(file, &info) == 0 && info.st_size > 0) {
      size_ = static_cast<std::size_t>(info.st_size);
      // Private: should a kernel write to its weights, then not to the file.
      data_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    }
    if (file >= 0) close(file);
    if (data_ == MAP_FAILED) throw Error("`" + path + "` cannot be read");
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { munmap(data_, size_); }
  const void* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  void* data_ = MAP_FAILED;
  std::size_t size_ = 0;
};

// The runtime is not hardened against files of another kind.
void check_kind(const File& file, const std::string& path) {
  char head[8] = {};
  std::memcpy(head, file.data(), std::min(file.size(), sizeof head));
  // Bytes 4 to 8 of a flatbuffer are its identifier.
  if (std::memcmp(head + 4, "MSL2", 4) == 0) return;
  const bool encrypted = std::memcmp(head, "\xd8\x5e\x3a\x7f", 4) == 0;
  throw Error("`" + path + (encrypted ? "` is encrypted, and this loader takes no key" : "` is no MindSpore Lite model"));
}

std::size_t place(const std::string& name, const infc_tensor* tensors, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    if (name == tensors[i].name) return i;
  }
  throw Error("the artifact has a tensor `" + name + "` that the loader does not know");
}

class MindSporeSession final : public Session {
 public:
  MindSporeSession(const infc_bundle& bundle, const Settings& settings)
      : bundle_(bundle), settings_(settings), file_(settings.entry) {
    check_kind(file_, settings.entry);
    load();
    narrowed_.resize(inputs_.size());
    widened_.resize(outputs_.size());
  }

  void run(const Input* inputs, Output* outputs) override {
    resize(inputs);
    const Release release{inputs_};
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      feed(inputs[places_[i]], bundle_.inputs[places_[i]], inputs_[i], narrowed_[i]);
    }
    // Without arguments: the form that takes tensors makes the model own the caller's memory.
    check(model_->Predict(), "the run failed");
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      deliver(outputs_[i], outputs[i], widened_[i]);
    }
  }

 private:
  using Narrowed = std::vector<std::int32_t>;
  using Widened = std::vector<std::int64_t>;

  // Takes the caller's memory away from the model again: it would free it with the model.
  struct Release {
    std::vector<ms::MSTensor>& tensors;
    ~Release() {
      for (ms::MSTensor& tensor : tensors) {
        if (tensor.allocator() == nullptr) tensor.SetData(nullptr, false);
      }
    }
  };

  void load() {
    outputs_.clear();
    inputs_.clear();
    places_.clear();
    model_ = std::make_unique<ms::Model>();
    resized_ = false;
    check(model_->Build(file_.data(), file_.size(), ms::kMindIR_Lite,
                        context_of(bundle_, settings_)),
          "the model cannot be loaded on device `" + settings_.device + "`");
    inputs_ = model_->GetInputs();
    for (const ms::MSTensor& tensor : inputs_) {
      places_.push_back(place(tensor.Name(), bundle_.inputs, bundle_.input_count));
    }
    outputs_.resize(bundle_.output_count, ms::MSTensor(nullptr));
    for (const ms::MSTensor& tensor : model_->GetOutputs()) {
      outputs_[place(tensor.Name(), bundle_.outputs, bundle_.output_count)] = tensor;
    }
    for (std::size_t i = 0; i < bundle_.output_count; ++i) {
      if (outputs_[i] != nullptr) continue;
      throw Error("the artifact has no output " + quoted(bundle_.outputs[i].name));
    }
  }

  // Tells the model the shapes of a run, where they are not those of the last one.
  void resize(const Input* inputs) {
    bool changed = false;
    shapes_.resize(inputs_.size());
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      const Input& in = inputs[places_[i]];
      if (in.bytes == 0) {
        // Some of its kernels divide by the number of elements.
        throw Error("input " + quoted(bundle_.inputs[places_[i]].name) +
                    " is empty, which MindSpore Lite does not take");
      }
      shapes_[i].assign(in.shape, in.shape + in.rank);
      changed = changed || shapes_[i] != inputs_[i].Shape();
    }
    if (!changed) return;
    // On several threads MatMul packs its weights for the first shapes it is told, and gives wrong
    // answers for later ones (2.0.0).
    if (resized_ && settings_.threads != 1) load();
    resized_ = true;
    check(model_->Resize(inputs_, shapes_), "it does not take these shapes");
  }

  static void feed(const Input& in, const infc_tensor& info, ms::MSTensor& tensor,
                   Narrowed& narrowed) {
    const void* data = in.data;
    std::size_t bytes = in.bytes;
    if (is_narrower(tensor, info)) {
      const auto* const from = static_cast<const std::int64_t*>(in.data);
      narrowed.resize(in.bytes / sizeof *from);
      for (std::size_t i = 0; i < narrowed.size(); ++i) narrowed[i] = narrow(from[i], info.name);
      data = narrowed.data();
      bytes = narrowed.size() * sizeof(std::int32_t);
    }
    if (tensor.DataSize() != bytes) {
      throw Error("input " + quoted(info.name) + " has another size in the artifact");
    }
    if (tensor.allocator() == nullptr) {
      tensor.SetData(const_cast<void*>(data), false);
      return;
    }
    // An allocator of a device, or one that counts users in front of the memory it gave out.
    void* const theirs = tensor.MutableData();
    if (theirs == nullptr) throw Error("MindSpore Lite: out of memory");
    std::memcpy(theirs, data, bytes);
  }

  static void deliver(ms::MSTensor& tensor, Output& output, Widened& widened) {
    const std::vector<std::int64_t> shape = tensor.Shape();
    const void* data = tensor.MutableData();
    if (is_narrower(tensor, *output.info)) {
      const auto* const from = static_cast<const std::int32_t*>(data);
      widened.assign(from, from + tensor.ElementNum());
      data = widened.data();
    }
    output.deliver(shape.data(), shape.size(), data);
  }

  const infc_bundle& bundle_;
  const Settings settings_;
  const File file_;
  std::unique_ptr<ms::Model> model_;
  bool resized_ = false;
  std::vector<ms::MSTensor> inputs_, outputs_;  // of the artifact; outputs in the loader's order
  std::vector<std::size_t> places_;             // of the artifact's inputs among the loader's
  std::vector<std::vector<std::int64_t>> shapes_;
  std::vector<Narrowed> narrowed_;              // inputs as the artifact has them
  std::vector<Widened> widened_;                // outputs as the model has them
};

}  // namespace

const char* runtime_name() { return "MindSpore Lite"; }

// "MindSpore Lite 2.0.0" without the name.
std::string runtime_version() {
  const std::string text = ms::Version();
  return text.substr(text.find_last_of(' ') + 1);
}

// A later 2.x reads the flatbuffers of an earlier one; an earlier one may lack operators.
bool accepts(Version built, Version found) {
  return found.major == built.major && found.minor >= built.minor;
}

std::string accepted(Version built) {
  return std::to_string(built.major) + "." + std::to_string(built.minor) + " or a later " +
         std::to_string(built.major) + ".x";
}

std::unique_ptr<Session> open(const infc_bundle& bundle, const Settings& settings) {
  static const bool told = (quiet(), true);
  static_cast<void>(told);
  return std::make_unique<MindSporeSession>(bundle, settings);
}

}  // namespace infc
