// A library of kernels that TVM made for one processor: the model is all in it.
//
// It is opened by dlopen, each model's under its own handle: the libraries of several models
// have the same names in them.
#include <dlfcn.h>

#include <string>

#include "adaptor/session.h"
#include "runtime/adaptor.h"

namespace infc {
namespace {

class Library {
 public:
  explicit Library(const std::string& path) : handle_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    if (handle_ == nullptr) {
      const char* reason = dlerror();
      throw Error(std::string("the model's library cannot be opened: ") +
                  (reason != nullptr ? reason : path));
    }
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
  ~Library() { dlclose(handle_); }

  ModelApi api() const {
    int (*abi)() = nullptr;
    find("infc_model_abi", abi);
    if (abi() != kModelAbi) {
      throw Error("the model's library has interface " + std::to_string(abi()) +
                  ", this loader takes " + std::to_string(kModelAbi));
    }
    ModelApi found;
    find("infc_model_create", found.create);
    find("infc_model_run", found.run);
    find("infc_model_message", found.message);
    find("infc_model_destroy", found.destroy);
    find("infc_model_tensor", found.tensor);
    return found;
  }

 private:
  template <typename Function>
  void find(const char* name, Function& function) const {
    function = reinterpret_cast<Function>(dlsym(handle_, name));
    if (function == nullptr) {
      throw Error(std::string("the model's library has no `") + name + "`");
    }
  }

  void* handle_;
};

// The library is opened before the session is made, and closed after it.
class OpenedSession final : private Library, public TvmSession {
 public:
  OpenedSession(const infc_bundle& bundle, const Settings& settings)
      : Library(settings.entry), TvmSession(bundle, settings, api()) {}
};

}  // namespace

const char* runtime_name() { return "the model's library"; }

// There is no runtime: what could be of another version is in the library, and asked when it opens.
std::string runtime_version() { return "0.27"; }

bool accepts(Version, Version) { return true; }

std::string accepted(Version) { return "any"; }

std::unique_ptr<Session> open(const infc_bundle& bundle, const Settings& settings) {
  return std::make_unique<OpenedSession>(bundle, settings);
}

}  // namespace infc
