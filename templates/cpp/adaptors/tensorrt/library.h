// TensorRT's library, opened when a model is loaded and not linked: the program starts without it,
// and one loader runs on libnvinfer, libnvinfer_lean and libtensorrt_rtx alike.
//
// What is compiled are the headers' inline functions over virtual tables. Those changed from 10 to
// 11, and a loader with the headers of one crashes on the library of the other; TensorRT for RTX
// from 1.7 on has the tables of 11. So the pair is checked before anything is called.
#ifndef INFC_ADAPTOR_LIBRARY_H
#define INFC_ADAPTOR_LIBRARY_H

#include <NvInferRuntime.h>
#include <NvInferVersion.h>
#include <dlfcn.h>

#include <cstring>
#include <string>

#include "runtime/adaptor.h"

#define INFC_TENSORRT_TEXT(text) #text
#define INFC_TENSORRT_NAME(stem, major) stem "." INFC_TENSORRT_TEXT(major)

// The file that is opened: of the library that sdk.cmake found, else the headers' own.
#ifndef INFC_TENSORRT_LIBRARY
#if NV_TENSORRT_MAJOR < 8
#define INFC_TENSORRT_LIBRARY INFC_TENSORRT_NAME("libtensorrt_rtx.so", NV_TENSORRT_MAJOR)
#else
#define INFC_TENSORRT_LIBRARY INFC_TENSORRT_NAME("libnvinfer.so", NV_TENSORRT_MAJOR)
#endif
#endif

namespace infc {
namespace tensorrt {

constexpr bool kHeadersOfRtx = NV_TENSORRT_MAJOR < 8;
constexpr bool kRtx = INFC_TENSORRT_LIBRARY[3] == 't';  // libtensorrt_rtx, not libnvinfer
constexpr const char* kName = kRtx ? "TensorRT for RTX" : "TensorRT";

struct Release {
  int major, minor, patch;
  std::string text() const {
    return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
  }
};

// As getInferLibVersion counts: 101601 is 10.16.1, 10701 is TensorRT for RTX 1.7.1, 8601 was 8.6.1.
inline Release release_of(int number) {
  if (number < 10000) return {number / 1000, number / 100 % 10, number % 100};
  return {number / 10000, number / 100 % 100, number % 100};
}

// Keeps what TensorRT says of errors, in each thread for itself; the rest is for nobody.
class Log final : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override {
    if (severity > Severity::kERROR) return;
    try {
      std::string& text = said();
      if (text.size() < 2000) text += (text.empty() ? "" : "; ") + sentence(message);
    } catch (...) {  // no memory for the message
    }
  }

  static void clear() { said().clear(); }

  // `what`, and why, in TensorRT's words.
  static Error error(const std::string& what) {
    const std::string why = said().empty() ? "and it does not say why" : said();
    clear();
    return Error(std::string(kName) + ": " + what + ": " + why);
  }

 private:
  static std::string& said() {
    thread_local std::string text;
    return text;
  }

  // Without the function it was raised in, and the source file.
  static std::string sentence(const char* message) {
    std::string text = message;
    const std::size_t file = text.rfind(" (In ");
    if (file != std::string::npos) text.erase(file);
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
    return text;
  }
};

inline Log& log() {
  // Never destroyed: TensorRT keeps it as long as the process lives.
  static Log* const logger = new Log;
  return *logger;
}

// Whether an option of the back end's is `on`.
inline bool is_on(const infc_bundle& bundle, const char* key) {
  return std::strcmp(setting(bundle, key, "off"), "on") == 0;
}

// A function of a library that is open; throws where it has none of that name.
template <class Function>
Function symbol(void* library, const char* name) {
  const auto found = reinterpret_cast<Function>(dlsym(library, name));
  if (found == nullptr) throw Error(std::string(kName) + " has no " + name);
  return found;
}

// Opens `file`, a library of TensorRT's.
inline void* opened(const char* file) {
  void* const library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw Error(std::string(kName) + " cannot be loaded (its folder must be in the loader's run " +
                "path or in LD_LIBRARY_PATH): " + dlerror());
  }
  return library;
}

// Throws where the library's virtual tables are not those of the headers.
inline void check_headers(const Release& found) {
  const bool is_rtx = found.major < 8;
  const bool same = found.major == NV_TENSORRT_MAJOR;
  const bool rtx_on_eleven = is_rtx && NV_TENSORRT_MAJOR == 11 && found.minor >= 7;
  if (same || rtx_on_eleven) return;
  throw Error(std::string("this loader was compiled with the headers of ") +
              (kHeadersOfRtx ? "TensorRT for RTX " : "TensorRT ") +
              std::to_string(NV_TENSORRT_MAJOR) + "." + std::to_string(NV_TENSORRT_MINOR) +
              ", and " + INFC_TENSORRT_LIBRARY + " is " +
              (is_rtx ? "TensorRT for RTX " : "TensorRT ") + found.text() + ", whose interface is " +
              "another one: compile it with the headers of that release" +
              (is_rtx ? ", or of TensorRT 11" : ""));
}

struct Library {
  void* handle;
  Release release;
};

inline const Library& library() {
  static const Library found = [] {
    // Never closed: its threads may outlive the last model.
    void* const handle = opened(INFC_TENSORRT_LIBRARY);
    const auto version = symbol<std::int32_t (*)()>(handle, "getInferLibVersion");
    const Release release = release_of(version());
    check_headers(release);
    return Library{handle, release};
  }();
  return found;
}

// A new object of the library's by one of its entries (`createInferRuntime_INTERNAL`). There must
// be a driver: without one some libraries return what is none and crash on its first use.
template <class T>
T* created(const char* entry) {
  using Entry = void* (*)(void*, std::int32_t);
  Log::clear();
  void* const made = symbol<Entry>(library().handle, entry)(&log(), NV_TENSORRT_VERSION);
  if (made == nullptr) throw Log::error("it does not start");
  return static_cast<T*>(made);
}

}  // namespace tensorrt
}  // namespace infc

#endif
