// open, run, close, error: what is the same for every back end. The checks are here, and here every
// exception ends: none crosses the C interface.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <new>
#include <system_error>
#include <vector>

#include "adaptor.h"
#include "infc_runtime.h"
#include "sha256.h"

namespace fs = std::filesystem;

struct infc_model {
  const infc_bundle* bundle = nullptr;
  std::unique_ptr<infc::Session> session;
  // Of the inputs, then of the outputs; kept from run to run, so that a run allocates nothing.
  std::vector<std::vector<std::int64_t>> shapes;
  std::vector<infc::Input> inputs;
  std::vector<infc::Output> outputs;
};

namespace infc {
namespace {

thread_local std::string last_error;

std::string quoted(const std::string& text) { return "`" + text + "`"; }

// Calls `body` and turns whatever it throws into a status and a message.
template <class Body>
int guarded(const char* what, Body body) noexcept {
  try {
    try {
      return body();
    } catch (const Error& error) {
      last_error = error.what();
    } catch (const std::bad_alloc&) {
      last_error = std::string(what) + ": out of memory";
    } catch (const std::exception& error) {
      last_error = std::string(what) + ": " + error.what();
    } catch (...) {
      last_error = std::string(what) + ": an exception of unknown type";
    }
  } catch (...) {
    last_error.clear();  // no memory even for the message
  }
  return INFC_FAILED;
}

std::string text_of(const std::int64_t* shape, std::size_t rank) {
  std::string text = "[";
  for (std::size_t i = 0; i < rank; ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

// The number of bytes of a tensor. Shapes come from callers: the product may not overflow.
std::size_t bytes_of(const infc_tensor& tensor, const std::vector<std::int64_t>& shape) {
  std::size_t bytes = item_bytes(tensor.dtype);
  const std::size_t limit = std::numeric_limits<std::ptrdiff_t>::max();
  for (const std::int64_t size : shape) {
    if (size != 0 && bytes > limit / static_cast<std::size_t>(size)) {
      throw Error(quoted(tensor.name) + " of shape " + text_of(shape.data(), shape.size()) +
                  " does not fit into memory");
    }
    bytes *= static_cast<std::size_t>(size);
  }
  return bytes;
}

fs::path given_folder(const char* path) {
  if (path == nullptr || *path == '\0') throw Error("the path of the bundle is empty");
  const fs::path given(path);
  std::error_code ignored;
  if (!fs::exists(given, ignored)) throw Error(quoted(path) + " does not exist");
  if (!fs::is_directory(given, ignored)) throw Error(quoted(path) + " is not a folder");
  return given;
}

// What the artifact is built of: in the bundle's folder `given`, or a copy of its `model` folder;
// empty where it is in neither.
fs::path graph_file(const infc_bundle& bundle, const fs::path& given) {
  const fs::path graph(bundle.recipe->files[0].name);
  std::error_code ignored;
  for (const fs::path& file : {given / graph, given / graph.filename()}) {
    if (fs::is_regular_file(file, ignored)) return file;
  }
  return {};
}

// The folder that holds the artifact: `path`/model, or `path` itself.
fs::path model_folder(const infc_bundle& bundle, const char* path) {
  const fs::path given = given_folder(path);
  std::error_code ignored;
  for (const fs::path& folder : {given / "model", given}) {
    if (fs::is_regular_file(folder / bundle.entry, ignored)) return folder;
  }
  if (bundle.recipe != nullptr && !graph_file(bundle, given).empty()) {
    throw Error("the artifact of " + quoted(bundle.name) + " is still to be built on this device: " +
                "call " + bundle.name + "_build, or run ./finish in the bundle");
  }
  throw Error(quoted(path) + " holds no artifact of " + quoted(bundle.name) + ": there is neither " +
              quoted(std::string("model/") + bundle.entry) + " nor " + quoted(bundle.entry));
}

std::string sha256_of(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  Sha256 hash;
  std::vector<char> block(1 << 20);
  while (stream) {
    stream.read(block.data(), static_cast<std::streamsize>(block.size()));
    hash.add(reinterpret_cast<const unsigned char*>(block.data()),
             static_cast<std::size_t>(stream.gcount()));
  }
  if (!stream.eof()) throw Error(quoted(file.string()) + " cannot be read");
  return hash.hex();
}

// What was built on this device has its hash beside it; where it came from elsewhere it may not.
fs::path hash_file(const fs::path& file) { return file.string() + ".sha256"; }

std::string expected_of(const infc_file& known, const fs::path& file) {
  if (*known.sha256 != '\0') return known.sha256;
  std::ifstream stream(hash_file(file));
  std::string hash;
  stream >> hash;
  return hash;
}

void check_files(const infc_bundle& bundle, const fs::path& folder, bool hashes) {
  for (std::size_t i = 0; i < bundle.file_count; ++i) {
    const fs::path file = folder / bundle.files[i].name;
    std::error_code ignored;
    if (!fs::is_regular_file(file, ignored)) throw Error(quoted(file.string()) + " is missing");
    const std::string expected = expected_of(bundle.files[i], file);
    if (hashes && !expected.empty() && sha256_of(file) != expected) {
      throw Error(quoted(file.string()) + " is damaged, or is not the artifact this loader of " +
                  quoted(bundle.name) + " was generated for: its SHA-256 is not " + expected);
    }
  }
}

Version parse(const std::string& text) {
  Version version{0, 0};
  std::sscanf(text.c_str(), "%d.%d", &version.major, &version.minor);
  return version;
}

void check_version(const infc_bundle& bundle) {
  const std::string found = runtime_version();
  const Version built = parse(bundle.runtime_version);
  if (accepts(built, parse(found))) return;
  throw Error(std::string("the artifact of ") + quoted(bundle.name) + " was built with " +
              runtime_name() + " " + bundle.runtime_version + ", and this program runs " + found +
              ": it needs " + accepted(built));
}

const char* device_of(const infc_bundle& bundle, const infc_options& options) {
  const bool chosen = options.device != nullptr && *options.device != '\0';
  return chosen ? options.device : bundle.device;
}

// Builds the artifact where that is still to be done.
int build_artifact(const infc_bundle& bundle, const char* path, const infc_options& options) {
  const fs::path given = given_folder(path);
  const infc_recipe* const recipe = bundle.recipe;
  const fs::path graph = recipe == nullptr ? fs::path() : graph_file(bundle, given);
  std::error_code ignored;
  const fs::path folder = fs::is_directory(given / "model", ignored) ? given / "model" : given;
  const fs::path entry = folder / bundle.entry;
  if (graph.empty() || fs::is_regular_file(entry, ignored)) {
    model_folder(bundle, path);
    return INFC_OK;
  }
  for (std::size_t i = 0; i < recipe->file_count && options.skip_hash_check == 0; ++i) {
    const infc_file& known = recipe->files[i];
    const fs::path file = graph.parent_path() / fs::path(known.name).filename();
    if (sha256_of(file) == known.sha256) continue;
    throw Error(quoted(file.string()) + " is damaged, or is not what this loader of " +
                quoted(bundle.name) + " was generated for: its SHA-256 is not " + known.sha256);
  }
  fs::create_directories(folder);
  recipe->build(&bundle, graph.string().c_str(), entry.string().c_str(),
                device_of(bundle, options));
  std::ofstream(hash_file(entry)) << sha256_of(entry) << "  " << entry.filename().string() << "\n";
  return INFC_OK;
}

infc_model* open_model(const infc_bundle& bundle, const char* path, const infc_options& options) {
  if (options.threads < 0) throw Error("the number of threads is negative");
  const fs::path folder = model_folder(bundle, path);
  check_files(bundle, folder, options.skip_hash_check == 0);
  check_version(bundle);
  const Settings settings{(folder / bundle.entry).string(), options.threads,
                          device_of(bundle, options), options.cuda_graph != 0};
  auto model = std::make_unique<infc_model>();
  model->bundle = &bundle;
  model->session = open(bundle, settings);
  model->inputs.resize(bundle.input_count);
  model->outputs.resize(bundle.output_count);
  model->shapes.resize(bundle.input_count + bundle.output_count);
  return model.release();
}

// Fills in the shape; false where only the run tells it.
bool resolve(const infc_tensor& tensor, const std::int64_t* dims,
             std::vector<std::int64_t>& shape) {
  shape.clear();
  if (tensor.rank < 0) return false;
  for (std::int32_t i = 0; i < tensor.rank; ++i) {
    const std::int64_t axis = tensor.axes[i];
    if (axis == INFC_UNKNOWN) return false;
    shape.push_back(axis >= 0 ? axis : dims[-1 - axis]);
  }
  return true;
}

void check_dims(const infc_bundle& bundle, const std::int64_t* dims) {
  for (std::size_t i = 0; i < bundle.dim_count; ++i) {
    const infc_dim& dim = bundle.dims[i];
    if (dims[i] >= dim.low && dims[i] <= dim.high) continue;
    throw Error(std::string("dimension ") + quoted(dim.name) + " is " + std::to_string(dims[i]) +
                ": it may be " + std::to_string(dim.low) + " to " + std::to_string(dim.high));
  }
}

void bind(infc_model& model, const std::int64_t* dims, const void* const* inputs,
          const infc_output* outputs) {
  const infc_bundle& bundle = *model.bundle;
  check_dims(bundle, dims);
  for (std::size_t i = 0; i < bundle.input_count; ++i) {
    const infc_tensor& info = bundle.inputs[i];
    std::vector<std::int64_t>& shape = model.shapes[i];
    resolve(info, dims, shape);
    const std::size_t bytes = bytes_of(info, shape);
    if (inputs[i] == nullptr && bytes != 0) throw Error("input " + quoted(info.name) + " is NULL");
    model.inputs[i] = Input{inputs[i], bytes, shape.data(), shape.size()};
  }
  for (std::size_t i = 0; i < bundle.output_count; ++i) {
    const infc_tensor& info = bundle.outputs[i];
    std::vector<std::int64_t>& shape = model.shapes[bundle.input_count + i];
    Output& output = model.outputs[i];
    output = Output();
    output.info = &info;
    output.caller = &outputs[i];
    output.data = outputs[i].data;
    output.known = resolve(info, dims, shape);
    if (output.known) {
      output.shape = shape.data();
      output.rank = shape.size();
      output.bytes = bytes_of(info, shape);
    } else if (outputs[i].shape == nullptr || (info.rank < 0 && outputs[i].rank == nullptr)) {
      throw Error("no room was given for the shape of output " + quoted(info.name));
    } else {
      output.bytes = outputs[i].capacity * item_bytes(info.dtype);
    }
    if (output.data == nullptr && output.bytes != 0) {
      throw Error("output " + quoted(info.name) + " is NULL");
    }
  }
}

int run_model(infc_model* model, const std::int64_t* dims, const void* const* inputs,
              const infc_output* outputs) {
  if (model == nullptr) throw Error("the model is NULL");
  bind(*model, dims, inputs, outputs);
  model->session->run(model->inputs.data(), model->outputs.data());
  for (const Output& output : model->outputs) {
    if (output.needed == 0) continue;
    last_error = "output " + quoted(output.info->name) + " has " + std::to_string(output.needed) +
                 " elements, and room for " + std::to_string(output.caller->capacity);
    return INFC_TOO_SMALL;
  }
  return INFC_OK;
}

}  // namespace

void Output::deliver(const std::int64_t* actual_shape, std::size_t actual_rank, const void* from) {
  if (known && (actual_rank != rank || !std::equal(shape, shape + rank, actual_shape))) {
    throw Error("output " + quoted(info->name) + " came out with shape " +
                text_of(actual_shape, actual_rank) + " in place of " + text_of(shape, rank));
  }
  if (!known) {
    const std::size_t room = info->rank < 0 ? INFC_MAX_RANK : static_cast<std::size_t>(info->rank);
    if (actual_rank > room || (info->rank >= 0 && actual_rank != room)) {
      throw Error("output " + quoted(info->name) + " came out with rank " +
                  std::to_string(actual_rank) + " in place of " + std::to_string(room));
    }
    std::copy(actual_shape, actual_shape + actual_rank, caller->shape);
    if (info->rank < 0) *caller->rank = static_cast<std::int32_t>(actual_rank);
  }
  std::size_t count = 1;
  for (std::size_t i = 0; i < actual_rank; ++i) count *= static_cast<std::size_t>(actual_shape[i]);
  if (!known && count > caller->capacity) {
    needed = count;
  } else if (count != 0 && from != data) {
    std::memcpy(data, from, count * item_bytes(info->dtype));
  }
}

std::size_t item_bytes(infc_dtype dtype) {
  switch (dtype) {
    case INFC_INT8:
    case INFC_UINT8:
    case INFC_BOOL:
      return 1;
    case INFC_FLOAT16:
    case INFC_BFLOAT16:
    case INFC_INT16:
    case INFC_UINT16:
      return 2;
    case INFC_FLOAT32:
    case INFC_INT32:
    case INFC_UINT32:
      return 4;
    case INFC_FLOAT64:
    case INFC_INT64:
    case INFC_UINT64:
      return 8;
  }
  throw Error("an element type this loader does not know");
}

const char* setting(const infc_bundle& bundle, const char* key, const char* otherwise) {
  const char* const value = value_of(bundle.settings, bundle.setting_count, key);
  return value == nullptr ? otherwise : value;
}

const char* value_of(const infc_setting* settings, std::size_t count, const char* key) {
  for (std::size_t i = 0; i < count; ++i) {
    if (std::strcmp(settings[i].key, key) == 0) return settings[i].value;
  }
  return nullptr;
}

}  // namespace infc

int infc_build(const infc_bundle* bundle, const char* path, const infc_options* options) {
  return infc::guarded("building", [&] {
    const infc_options defaults{};
    return infc::build_artifact(*bundle, path, options == nullptr ? defaults : *options);
  });
}

int infc_open(const infc_bundle* bundle, const char* path, const infc_options* options,
              infc_model** model) {
  return infc::guarded("loading", [&] {
    if (model == nullptr) throw infc::Error("there is nowhere to put the model: `model` is NULL");
    *model = nullptr;
    const infc_options defaults{};
    *model = infc::open_model(*bundle, path, options == nullptr ? defaults : *options);
    return INFC_OK;
  });
}

int infc_run(infc_model* model, const int64_t* dims, const void* const* inputs,
             const infc_output* outputs) {
  return infc::guarded("running", [&] { return infc::run_model(model, dims, inputs, outputs); });
}

void infc_close(infc_model* model) {
  infc::guarded("closing", [&] {
    delete model;
    return INFC_OK;
  });
}

const char* infc_error(void) { return infc::last_error.c_str(); }

const char* infc_version(const infc_bundle* bundle) {
  thread_local std::string text;
  infc::guarded("asking for the version", [&] {
    text = std::string(bundle->name) + ", generated by infc " + bundle->infc_version + " for " +
           infc::runtime_name() + " " + bundle->runtime_version + ", running on " +
           infc::runtime_version();
    return INFC_OK;
  });
  return text.c_str();
}
