// A device server for TVM RPC without Python: it registers with a tracker, and serves one client at
// a time in a process of its own. It runs whatever a client sends.
//
//   serve --tracker HOST:PORT --key KEY [--bind ADDRESS] [--port PORT] [--announce ADDRESS]
//
// Beside TVM's own functions it has `infc.device.*`, by which libraries run that need no TVM.
// Protocols: tvm/rpc/base.py, tracker.py and server.py of apache-tvm 0.27.
#include <dlfcn.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <tvm/ffi/c_api.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace ffi = tvm::ffi;

namespace {

constexpr std::int32_t kTracker = 0x2F271, kRpc = 0xFF271, kMismatch = kRpc + 2;
constexpr int kUpdateInfo = 5, kPut = 3, kKeys = 7;  // TrackerCode
constexpr std::int32_t kMostBytes = 1 << 20;         // of a message
constexpr int kPingMs = 1000, kAnswerS = 10, kAgainS = 2;

volatile sig_atomic_t stopped = 0;
std::string work_folder;

void stop(int) { stopped = 1; }

// Holds back the signals that end this program or a session, until they are waited for: one that
// came between a look at `stopped` and a wait would not be noticed before the wait is over.
class Held {
 public:
  Held() {
    sigset_t held;
    sigemptyset(&held);
    for (const int number : {SIGTERM, SIGINT, SIGCHLD}) sigaddset(&held, number);
    sigprocmask(SIG_BLOCK, &held, &before_);
  }
  ~Held() { release(); }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

  const sigset_t* before() const { return &before_; }
  void release() const { sigprocmask(SIG_SETMASK, &before_, nullptr); }
  // Until one of them comes, or has come.
  void wait() const { sigsuspend(&before_); }

 private:
  sigset_t before_;
};

// As poll(2) of one descriptor, or of none; negative at once where this program is to end.
int waited(pollfd* waiting, int time_ms) {
  const Held held;
  if (stopped) return -1;
  const timespec time{time_ms / 1000, time_ms % 1000 * 1000000L};
  return ppoll(waiting, waiting != nullptr ? 1 : 0, &time, held.before());
}

std::runtime_error failure(const std::string& what) {
  return std::runtime_error(what + ": " + std::strerror(errno));
}

// A socket, closed at the end.
class Socket {
 public:
  explicit Socket(int descriptor = -1) : descriptor_(descriptor) {}
  Socket(Socket&& other) noexcept : descriptor_(other.release()) {}
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  int get() const { return descriptor_; }
  int release() {
    const int descriptor = descriptor_;
    descriptor_ = -1;
    return descriptor;
  }

  void read(void* to, std::size_t bytes) const {
    for (char* at = static_cast<char*>(to); bytes > 0;) {
      const ssize_t got = ::recv(descriptor_, at, bytes, 0);
      if (got < 0 && errno == EINTR && !stopped) continue;
      if (got <= 0) throw std::runtime_error("the connection ended");
      at += got;
      bytes -= static_cast<std::size_t>(got);
    }
  }
  void write(const void* from, std::size_t bytes) const {
    for (const char* at = static_cast<const char*>(from); bytes > 0;) {
      const ssize_t put = ::send(descriptor_, at, bytes, MSG_NOSIGNAL);
      if (put < 0 && errno == EINTR && !stopped) continue;
      if (put <= 0) throw std::runtime_error("the connection ended");
      at += put;
      bytes -= static_cast<std::size_t>(put);
    }
  }
  std::int32_t number() const {
    std::int32_t value = 0;
    read(&value, sizeof value);
    return value;
  }
  void number(std::int32_t value) const { write(&value, sizeof value); }
  std::string text() const {
    const std::int32_t bytes = number();
    if (bytes < 0 || bytes > kMostBytes) throw std::runtime_error("a message of no sane length");
    std::string found(static_cast<std::size_t>(bytes), '\0');
    read(&found[0], found.size());
    return found;
  }
  void text(const std::string& value) const {
    number(static_cast<std::int32_t>(value.size()));
    write(value.data(), value.size());
  }
  // Nothing is waited for longer than so many seconds; 0 for ever.
  void limit(int seconds) const {
    const timeval wait{seconds, 0};
    setsockopt(descriptor_, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    setsockopt(descriptor_, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
  }

 private:
  int descriptor_;
};

struct Options {
  std::string host = "127.0.0.1", port = "9190", key, bind = "127.0.0.1", announce;
  std::string own_port = "0";
};

// Every address of a name, until `use` takes one.
template <class Use>
Socket first(const std::string& host, const std::string& port, int flags, Use use) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  if (const int status = getaddrinfo(host.c_str(), port.c_str(), &hints, &found)) {
    throw std::runtime_error(host + ": " + gai_strerror(status));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(found, freeaddrinfo);
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    Socket made(::socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol));
    if (made.get() >= 0 && use(made, *at)) return made;
  }
  throw failure(host + ":" + port);
}

Socket listening(const Options& options) {
  return first(options.bind, options.own_port, AI_PASSIVE, [](const Socket& s, const addrinfo& a) {
    const int one = 1;
    setsockopt(s.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    return ::bind(s.get(), a.ai_addr, a.ai_addrlen) == 0 && ::listen(s.get(), 4) == 0;
  });
}

int port_of(const Socket& socket) {
  sockaddr_storage address{};
  socklen_t bytes = sizeof address;
  getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &bytes);
  char port[16] = "0";
  getnameinfo(reinterpret_cast<sockaddr*>(&address), bytes, nullptr, 0, port, sizeof port,
              NI_NUMERICSERV);
  return std::atoi(port);
}

std::string asked(const Socket& tracker, const std::string& json) {
  tracker.text(json);
  return tracker.text();
}

Socket registered(const Options& options, int port) {
  Socket tracker =
      first(options.host, options.port, 0, [](const Socket& s, const addrinfo& a) {
        s.limit(kAnswerS);
        return ::connect(s.get(), a.ai_addr, a.ai_addrlen) == 0;
      });
  tracker.number(kTracker);
  if (tracker.number() != kTracker) throw std::runtime_error("no tracker of TVM's answers there");
  const std::string address =
      options.announce.empty() ? "null" : "\"" + options.announce + "\"";
  asked(tracker, "[" + std::to_string(kUpdateInfo) + ", {\"key\": \"server:" + options.key +
                     "\", \"addr\": [" + address + ", " + std::to_string(port) + "]}]");
  return tracker;
}

// ---- Libraries that need no TVM: infc_model.h.

struct Model {
  void* library = nullptr;
  void* handle = nullptr;
  int (*run)(void*, const void* const*, void* const*) = nullptr;
  const char* (*message)(const void*) = nullptr;
  int (*tensor)(int, int, std::int64_t*, int*) = nullptr;
};

template <class Function>
Function symbol(void* library, const char* name) {
  void* const found = dlsym(library, name);
  if (found == nullptr) throw std::runtime_error(std::string("the library has no `") + name + "`");
  return reinterpret_cast<Function>(found);
}

Model& opened(const std::string& name, int threads) {
  static std::map<std::pair<std::string, int>, Model> models;
  Model& model = models[{name, threads}];
  if (model.handle != nullptr) return model;
  const std::string path = work_folder + "/" + name;
  model.library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (model.library == nullptr) throw std::runtime_error(dlerror());
  model.run = symbol<decltype(model.run)>(model.library, "infc_model_run");
  model.message = symbol<decltype(model.message)>(model.library, "infc_model_message");
  model.tensor = symbol<decltype(model.tensor)>(model.library, "infc_model_tensor");
  const auto create = symbol<int (*)(int, void**)>(model.library, "infc_model_create");
  if (const int status = create(threads, &model.handle)) {
    model.handle = nullptr;
    throw std::runtime_error(status == 4 ? "the library is for another processor than the device's"
                                         : "the model cannot be made: error " +
                                               std::to_string(status));
  }
  return model;
}

// A line for each tensor: 0 for an input and 1 for an output, DLPack's type * 256 + bits, sizes.
std::string described(const std::string& name, int threads) {
  const Model& model = opened(name, threads);
  std::string found;
  for (int output = 0; output < 2; ++output) {
    std::int64_t shape[16];
    int type = 0;
    for (int i = 0;; ++i) {
      const int rank = model.tensor(output, i, shape, &type);
      if (rank < 0) break;
      found += std::to_string(output) + " " + std::to_string(type);
      for (int axis = 0; axis < rank; ++axis) found += " " + std::to_string(shape[axis]);
      found += "\n";
    }
  }
  return found;
}

std::size_t bytes_of(const DLTensor& tensor) {
  std::size_t count = 1;
  for (int axis = 0; axis < tensor.ndim; ++axis) count *= static_cast<std::size_t>(tensor.shape[axis]);
  return count * ((tensor.dtype.bits * tensor.dtype.lanes + 7u) / 8u);
}

// (name, threads, inputs..., outputs...)
void run(ffi::PackedArgs arguments, ffi::Any*) {
  const std::string name = arguments[0].cast<std::string>();
  const Model& model = opened(name, arguments[1].cast<int>());
  std::vector<const void*> inputs;
  std::vector<void*> outputs;
  int at = 2;
  for (int output = 0; output < 2; ++output) {
    std::int64_t shape[16];
    int type = 0;
    for (int i = 0; model.tensor(output, i, shape, &type) >= 0; ++i, ++at) {
      if (at >= arguments.size()) throw std::runtime_error("there are too few tensors");
      const DLTensor& tensor = *arguments[at].cast<DLTensor*>();
      const int rank = model.tensor(output, i, shape, &type);
      std::size_t wanted = static_cast<std::size_t>((type % 256 + 7) / 8);
      for (int axis = 0; axis < rank; ++axis) wanted *= static_cast<std::size_t>(shape[axis]);
      if (bytes_of(tensor) != wanted) throw std::runtime_error("a tensor has another size");
      char* const data = static_cast<char*>(tensor.data) + tensor.byte_offset;
      if (output != 0) {
        outputs.push_back(data);
      } else {
        inputs.push_back(data);
      }
    }
  }
  if (model.run(model.handle, inputs.data(), outputs.data()) != 0) {
    throw std::runtime_error(std::string("a kernel fails: ") + model.message(model.handle));
  }
}

std::string about() {
  TVMFFIVersion version;
  TVMFFIGetVersion(&version);
  utsname machine{};
  uname(&machine);
  return "infc 1 tvm_ffi " + std::to_string(version.major) + "." + std::to_string(version.minor) +
         "." + std::to_string(version.patch) + " " + machine.machine;
}

// A plain file name, in the folder of this session alone.
std::string place_of(const std::string& name) {
  if (name.empty() || name[0] == '.' || name.find('/') != std::string::npos) {
    throw std::runtime_error("`" + name + "` is no file's name");
  }
  return work_folder + "/" + name;
}

void add_functions() {
  ffi::reflection::GlobalDef()
      .def("tvm.rpc.server.workpath",
           [](ffi::String name) { return ffi::String(place_of(std::string(name))); })
      .def("tvm.rpc.server.load_module",
           [](ffi::String name) { return ffi::Module::LoadFromFile(place_of(std::string(name))); })
      .def("infc.device.about", [] { return ffi::String(about()); })
      .def("infc.device.describe",
           [](ffi::String name, int threads) {
             return ffi::String(described(std::string(name), threads));
           })
      .def_packed("infc.device.run", run);
}

// ---- Sessions.

void remove_all(const std::string& folder) {
  const pid_t child = fork();
  if (child == 0) {
    execlp("rm", "rm", "-rf", "--", folder.c_str(), static_cast<char*>(nullptr));
    _exit(1);
  }
  if (child > 0) waitpid(child, nullptr, 0);
}

double limit_of(const std::string& words) {
  const std::size_t at = words.find("-timeout=");
  return at == std::string::npos ? 0 : std::atof(words.c_str() + at + 9);
}

// A client's session, in a process that ends with it, with this one, or at its time limit.
void serve(Socket client, double limit_s, const ffi::Function& loop, const Socket& listener) {
  const char* const place = std::getenv("TMPDIR");
  std::string folder = place != nullptr && *place != '\0' ? place : "/tmp";
  folder += "/infc-device-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) throw failure("no folder can be made as " + folder);
  const Held held;
  const pid_t parent = getpid(), child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    for (const int number : {SIGTERM, SIGINT, SIGCHLD}) signal(number, SIG_DFL);
    held.release();
    ::close(listener.get());
    work_folder = folder;
    if (limit_s > 0) alarm(static_cast<unsigned>(limit_s) + 1);
    // Not as C++: this program's standard library may be another one than TVM's, and an error that
    // was made there is none to be looked at here. A client that just leaves is an error, too.
    TVMFFIAny argument{}, answer{};
    argument.type_index = kTVMFFIInt;
    argument.v_int64 = client.release();
    const TVMFFIObjectHandle function =
        ffi::details::ObjectUnsafe::TVMFFIObjectPtrFromObjectRef(loop);
    TVMFFIFunctionCall(function, &argument, 1, &answer);
    _exit(0);
  }
  int status = 0;
  while (child > 0 && waitpid(child, &status, WNOHANG) == 0) {
    if (stopped) kill(child, SIGKILL);
    held.wait();
  }
  if (child > 0 && WIFSIGNALED(status)) {
    std::fprintf(stderr, "session: ended by signal %d\n", WTERMSIG(status));
  }
  remove_all(folder);
}

// Whether a client that was promised this device, by `match`, has connected.
bool welcomed(const Socket& client, const Options& options, const std::string& match,
              double* limit_s) {
  client.limit(kAnswerS);
  if (client.number() != kRpc) return false;
  const std::string words = client.text();
  if (words.substr(0, words.find(' ')) != "client:" + match) {
    client.number(kMismatch);
    return false;
  }
  client.number(kRpc);
  client.text("server:" + options.key);
  client.limit(0);
  *limit_s = limit_of(words);
  return true;
}

// Offer the device, wait for a client, serve it; again and again until the tracker is gone.
void offer(const Options& options, const Socket& listener, const ffi::Function& loop) {
  const int port = port_of(listener);
  const Socket tracker = registered(options, port);
  std::printf("%s is offered at %s:%s, port %d\n", options.key.c_str(), options.host.c_str(),
              options.port.c_str(), port);
  std::fflush(stdout);
  while (!stopped) {
    const std::string match = options.key + ":" + std::to_string(std::rand());
    const std::string address =
        options.announce.empty() ? "null" : "\"" + options.announce + "\"";
    asked(tracker, "[" + std::to_string(kPut) + ", \"" + options.key + "\", [" +
                       std::to_string(port) + ", \"" + match + "\"], " + address + "]");
    for (int promised = 0; !stopped;) {
      pollfd waiting{listener.get(), POLLIN, 0};
      const int ready = waited(&waiting, kPingMs);
      if (ready < 0) continue;
      if (ready == 0) {
        // Taken from the tracker, but nobody came: it is offered once more.
        const std::string keys = asked(tracker, "[" + std::to_string(kKeys) + "]");
        promised = keys.find("\"" + match + "\"") == std::string::npos ? promised + 1 : 0;
        if (promised * kPingMs >= kAnswerS * 1000) break;
        continue;
      }
      Socket client(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      double limit_s = 0;
      try {
        if (client.get() < 0 || !welcomed(client, options, match, &limit_s)) continue;
      } catch (const std::exception&) {
        continue;
      }
      serve(std::move(client), limit_s, loop, listener);
      break;
    }
  }
}

[[noreturn]] void usage() {
  std::fprintf(stderr,
               "usage: serve --key KEY [--tracker HOST:PORT] [--bind ADDRESS] [--port PORT] "
               "[--announce ADDRESS]\n"
               "It runs what clients send: bind it to an address that only they can reach.\n");
  std::exit(2);
}

Options parsed(int count, char** words) {
  Options options;
  for (int i = 1; i < count; i += 2) {
    const std::string name = words[i];
    if (i + 1 >= count) usage();
    const std::string value = words[i + 1];
    if (name == "--tracker") {
      const std::size_t colon = value.rfind(':');
      if (colon == std::string::npos) usage();
      options.host = value.substr(0, colon);
      options.port = value.substr(colon + 1);
    } else if (name == "--key") {
      options.key = value;
    } else if (name == "--bind") {
      options.bind = value;
    } else if (name == "--port") {
      options.own_port = value;
    } else if (name == "--announce") {
      options.announce = value;
    } else {
      usage();
    }
  }
  const char* plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  if (options.key.empty() || options.key.find_first_not_of(plain) != std::string::npos) usage();
  return options;
}

}  // namespace

int main(int count, char** words) {
  const Options options = parsed(count, words);
  signal(SIGPIPE, SIG_IGN);
  struct sigaction action {};
  action.sa_handler = stop;  // without SA_RESTART: what waits is woken
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  action.sa_handler = [](int) {};  // what is ignored wakes nobody
  action.sa_flags = SA_RESTART;
  sigaction(SIGCHLD, &action, nullptr);
  std::srand(static_cast<unsigned>(std::time(nullptr)) ^ static_cast<unsigned>(getpid()));
  try {
    add_functions();
    const ffi::Function loop = ffi::Function::GetGlobalRequired("rpc.ServerLoop");
    const Socket listener = listening(options);
    while (!stopped) {
      try {
        offer(options, listener, loop);
      } catch (const std::exception& error) {
        if (!stopped) std::fprintf(stderr, "tracker: %s; again in %d s\n", error.what(), kAgainS);
      }
      waited(nullptr, kAgainS * 1000);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
