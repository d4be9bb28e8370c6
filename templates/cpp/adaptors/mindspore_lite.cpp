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
#include <memory>
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

// Clears what it holds when it goes.
struct Key {
  std::array<unsigned char, 16> bytes{};
  Key() = default;
  Key(const Key&) = delete;
  Key& operator=(const Key&) = delete;
  ~Key() {
    volatile unsigned char* const all = bytes.data();
    for (std::size_t i = 0; i < bytes.size(); ++i) all[i] = 0;
  }
};

// 32 hexadecimal digits and white space around them; false for anything else.
bool parse(const char* text, Key& key) {
  const auto digit = [](char c) {
    const auto u = static_cast<unsigned char>(c);
    return std::isxdigit(u) == 0 ? -1 : std::isdigit(u) != 0 ? c - '0' : std::tolower(u) - 'a' + 10;
  };
  const auto skip = [&text] {
    while (std::isspace(static_cast<unsigned char>(*text)) != 0) ++text;
  };
  skip();
  for (unsigned char& byte : key.bytes) {
    const int high = digit(*text), low = high < 0 ? -1 : digit(text[1]);
    if (low < 0) return false;
    byte = static_cast<unsigned char>(high << 4 | low);
    text += 2;
  }
  skip();
  return *text == '\0';
}

void read_key(const std::string& path, Key& key) {
  constexpr const char* kForm = " does not hold a key: 32 hexadecimal digits";
  if (const char* const text = std::getenv("INFC_MODEL_KEY")) {
    if (!parse(text, key)) throw Error(std::string("INFC_MODEL_KEY") + kForm);
    return;
  }
  const char* const file = std::getenv("INFC_MODEL_KEY_FILE");
  if (file == nullptr || *file == '\0') {
    throw Error("`" + path + "` is encrypted, and there is no key: set INFC_MODEL_KEY to its 32 " +
                "hexadecimal digits, or INFC_MODEL_KEY_FILE to a file that holds them");
  }
  std::array<char, 128> text{};
  std::FILE* const stream = std::fopen(file, "rb");
  if (stream == nullptr) throw Error("the key file `" + std::string(file) + "` cannot be read");
  std::setbuf(stream, nullptr);  // no copy of the key stays behind in a buffer
  const std::size_t count = std::fread(text.data(), 1, text.size() - 1, stream);
  std::fclose(stream);
  const bool is_key = std::strlen(text.data()) == count && parse(text.data(), key);
  volatile char* const all = text.data();
  for (std::size_t i = 0; i < text.size(); ++i) all[i] = 0;
  if (!is_key) throw Error("the key file `" + std::string(file) + "`" + kForm);
}

// AES-128-GCM of OpenSSL 1.1 or 3, by the names and numbers of its <openssl/evp.h>. Not linked: a
// loader of plain artifacts does without it.
class Gcm {
 public:
  Gcm() {
    for (const char* const name : {"libcrypto.so.3", "libcrypto.so.1.1", "libcrypto.so"}) {
      // Never closed: it may be the program's own too.
      if (library_ == nullptr) library_ = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    }
    if (library_ == nullptr) {
      throw Error("an encrypted model needs OpenSSL's libcrypto.so.3, which cannot be loaded");
    }
    find("EVP_CIPHER_CTX_new", make_);
    find("EVP_CIPHER_CTX_free", free_);
    find("EVP_CIPHER_CTX_ctrl", control_);
    find("EVP_aes_128_gcm", cipher_);
    find("EVP_DecryptInit_ex", begin_);
    find("EVP_DecryptUpdate", update_);
    find("EVP_DecryptFinal_ex", end_);
  }

  // Decrypts `count` bytes; false where key, nonce, text and tag do not belong together.
  bool decrypt(const Key& key, const unsigned char* nonce, const unsigned char* tag,
               const unsigned char* from, int count, unsigned char* to) const {
    constexpr int kSetTag = 0x11, kTagBytes = 16;  // EVP_CTRL_AEAD_SET_TAG
    const std::unique_ptr<void, void (*)(void*)> context(make_(), free_);
    int written = 0, rest = 0;
    return context != nullptr &&
           begin_(context.get(), cipher_(), nullptr, key.bytes.data(), nonce) == 1 &&
           update_(context.get(), to, &written, from, count) == 1 &&
           control_(context.get(), kSetTag, kTagBytes, const_cast<unsigned char*>(tag)) == 1 &&
           end_(context.get(), to + written, &rest) == 1;
  }

 private:
  template <class Function>
  void find(const char* name, Function& function) const {
    function = reinterpret_cast<Function>(dlsym(library_, name));
    if (function == nullptr) throw Error(std::string("libcrypto has no ") + name);
  }

  void* library_ = nullptr;
  void* (*make_)() = nullptr;
  void (*free_)(void*) = nullptr;
  int (*control_)(void*, int, int, void*) = nullptr;
  const void* (*cipher_)() = nullptr;
  int (*begin_)(void*, const void*, void*, const unsigned char*, const unsigned char*) = nullptr;
  int (*update_)(void*, unsigned char*, int*, const unsigned char*, int) = nullptr;
  int (*end_)(void*, unsigned char*, int*) = nullptr;
};

constexpr char kEncrypted[] = "\xd8\x5e\x3a\x7f";

// What the blocks of an encrypted file hold:
//   magic[4] tag[16] u32(n + 24) u32(16) iv[16] u32(n) cipher[n], the nonce being iv[:12]
std::vector<unsigned char> decrypted(const File& file, const std::string& path) {
  constexpr std::size_t kTag = 4, kIv = 28, kCount = 44, kHead = 48;
  Key key;
  read_key(path, key);
  const Gcm gcm;
  const auto* const data = static_cast<const unsigned char*>(file.data());
  std::vector<unsigned char> plain(file.size());
  std::size_t used = 0;
  for (std::size_t at = 0; at < file.size();) {
    const unsigned char* const block = data + at;
    const std::size_t left = file.size() - at;
    std::size_t count = 0;
    bool good = left >= kHead && std::memcmp(block, kEncrypted, kTag) == 0;
    for (std::size_t i = 0; good && i < 4; ++i) {
      count |= static_cast<std::size_t>(block[kCount + i]) << 8 * i;
    }
    good = good && count <= left - kHead && count <= std::numeric_limits<int>::max();
    good = good && gcm.decrypt(key, block + kIv, block + kTag, block + kHead,
                               static_cast<int>(count), plain.data() + used);
    if (!good) {
      throw Error("`" + path + "` cannot be decrypted: the key is another one, or the file is " +
                  "damaged");
    }
    used += count;
    at += kHead + count;
  }
  plain.resize(used);
  return plain;
}

// The artifact's bytes, whether the file holds them or what they were encrypted to.
class Content {
 public:
  explicit Content(const std::string& path) : file_(std::make_unique<File>(path)) {
    if (begins(0, kEncrypted)) {
      plain_ = decrypted(*file_, path);
      file_.reset();
    }
    // The runtime is not hardened against files of another kind. Bytes 4 to 8 of a flatbuffer are
    // its identifier.
    if (!begins(4, "MSL2")) throw Error("`" + path + "` is no MindSpore Lite model");
  }
  bool is_decrypted() const { return file_ == nullptr; }
  const void* data() const { return file_ != nullptr ? file_->data() : plain_.data(); }
  std::size_t size() const { return file_ != nullptr ? file_->size() : plain_.size(); }

 private:
  bool begins(std::size_t at, const char* with) const {
    return size() >= at + 4 && std::memcmp(static_cast<const char*>(data()) + at, with, 4) == 0;
  }

  std::unique_ptr<File> file_;
  std::vector<unsigned char> plain_;
};

// A file in memory, of a name, that nobody else may read; it goes as soon as it was read.
class Shared {
 public:
  Shared(const void* data, std::size_t size) {
    const int file = mkstemp(path_.data());  // 0600
    if (file < 0) throw Error("an encrypted fp16 model needs /dev/shm, which cannot be written");
    std::size_t done = 0;
    while (done < size) {
      const ssize_t count = write(file, static_cast<const char*>(data) + done, size - done);
      if (count <= 0) break;
      done += static_cast<std::size_t>(count);
    }
    close(file);
    if (done == size) return;
    unlink(path_.data());
    throw Error("an encrypted fp16 model does not fit into /dev/shm");
  }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  ~Shared() { unlink(path_.data()); }
  std::string path() const { return path_.data(); }

 private:
  std::array<char, 24> path_{"/dev/shm/infc-XXXXXX"};
};

std::size_t place(const std::string& name, const infc_tensor* tensors, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    if (name == tensors[i].name) return i;
  }
  throw Error("the artifact has a tensor `" + name + "` that the loader does not know");
}

class MindSporeSession final : public Session {
 public:
  MindSporeSession(const infc_bundle& bundle, const Settings& settings)
      : bundle_(bundle), settings_(settings), content_(settings.entry) {
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
    check(build(), "the model cannot be loaded on device `" + settings_.device + "`");
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

  ms::Status build() {
    const auto context = context_of(bundle_, settings_);
    if (std::strcmp(bundle_.precision, "fp16") != 0) {
      return model_->Build(content_.data(), content_.size(), ms::kMindIR_Lite, context);
    }
    // Weights in float16 are widened at once; MatMul looks for them where they were, and finds them
    // only where the runtime has read the file by itself (2.0.0).
    if (!content_.is_decrypted()) return model_->Build(settings_.entry, ms::kMindIR_Lite, context);
    const Shared copy(content_.data(), content_.size());
    return model_->Build(copy.path(), ms::kMindIR_Lite, context);
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
  const Content content_;
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
