#include "harness.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <stdexcept>

namespace fs = std::filesystem;

namespace harness {
namespace {

constexpr const char* kUsage =
    "usage: main BUNDLE [options]\n"
    "  --threads N       threads of the runtime (0: its own choice)\n"
    "  --device NAME     in place of the device the model was compiled for\n"
    "  --runs N          timed runs (20; 1 with --inputs)\n"
    "  --warmup N        runs before them (3; 0 with --inputs)\n"
    "  --dim NAME=N      size of a dynamic dimension; repeat for several\n"
    "  --seed N          of the random inputs (0)\n"
    "  --inputs FOLDER   read the inputs from FOLDER (0.bin, 1.bin, ..., tensors.json)\n"
    "  --outputs FOLDER  write the outputs of the --inputs before it to the new FOLDER\n"
    "  --json            print for machines\n"
    "  --version         print what the loader is and runs on\n";

struct Usage : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Folders {
  std::string inputs, outputs;
};

struct Arguments {
  std::string bundle, device;
  int threads = 0, runs = -1, warmup = -1;
  unsigned seed = 0;
  bool json = false, version = false, help = false;
  std::vector<std::string> dims;
  std::vector<Folders> folders;
};

std::int64_t number(const std::string& text, const std::string& option) {
  std::size_t end = 0;
  std::int64_t value = -1;
  try {
    value = std::stoll(text, &end);
  } catch (const std::exception&) {
    end = 0;
  }
  if (end == 0 || end != text.size() || value < 0 || value > std::numeric_limits<int>::max()) {
    throw Usage("`" + text + "` after " + option + " is not a number of that kind");
  }
  return value;
}

Arguments parse(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto value = [&] {
      if (++i == argc) throw Usage(word + " needs a value");
      return std::string(argv[i]);
    };
    const auto count = [&] { return static_cast<int>(number(value(), word)); };
    if (word == "--threads") {
      a.threads = count();
    } else if (word == "--device") {
      a.device = value();
    } else if (word == "--runs") {
      a.runs = count();
    } else if (word == "--warmup") {
      a.warmup = count();
    } else if (word == "--seed") {
      a.seed = static_cast<unsigned>(count());
    } else if (word == "--dim") {
      a.dims.push_back(value());
    } else if (word == "--inputs") {
      a.folders.push_back({value(), ""});
    } else if (word == "--outputs") {
      if (a.folders.empty()) throw Usage("--outputs comes after its --inputs");
      a.folders.back().outputs = value();
    } else if (word == "--json") {
      a.json = true;
    } else if (word == "--version") {
      a.version = true;
    } else if (word == "--help" || word == "-h") {
      a.help = true;
    } else if (word.size() > 1 && word[0] == '-') {
      throw Usage("there is no option " + word);
    } else if (a.bundle.empty()) {
      a.bundle = word;
    } else {
      throw Usage("`" + word + "` is one argument too many");
    }
  }
  if (a.bundle.empty() && !a.version && !a.help) throw Usage("the bundle's folder is missing");
  const bool files = !a.folders.empty();
  if (a.runs < 0) a.runs = files ? 1 : 20;
  if (a.warmup < 0) a.warmup = files ? 0 : 3;
  if (a.runs == 0) throw Usage("--runs must be at least 1");
  return a;
}

std::size_t item_bytes(DType dtype) {
  switch (dtype) {
    case DType::int8:
    case DType::uint8:
    case DType::boolean:
      return 1;
    case DType::float16:
    case DType::bfloat16:
    case DType::int16:
    case DType::uint16:
      return 2;
    case DType::float32:
    case DType::int32:
    case DType::uint32:
      return 4;
    case DType::float64:
    case DType::int64:
    case DType::uint64:
      break;
  }
  return 8;
}

const char* name_of(DType dtype) {
  constexpr const char* names[] = {"float32", "float64", "float16", "bfloat16", "int8",
                                   "int16",   "int32",   "int64",   "uint8",    "uint16",
                                   "uint32",  "uint64",  "bool"};
  return names[static_cast<int>(dtype)];
}

// float16 and bfloat16 as their bits; what lies below the normal numbers of float16 becomes zero.
std::uint16_t half_of(float value, DType dtype) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (dtype == DType::bfloat16) return static_cast<std::uint16_t>(bits >> 16);
  const int exponent = static_cast<int>(bits >> 23 & 0xff) - 127 + 15;
  const std::uint32_t sign = bits >> 16 & 0x8000;
  if (exponent <= 0) return static_cast<std::uint16_t>(sign);
  if (exponent >= 31) return static_cast<std::uint16_t>(sign | 0x7bff);
  return static_cast<std::uint16_t>(sign | static_cast<std::uint32_t>(exponent) << 10 |
                                    (bits >> 13 & 0x3ff));
}

double from_half(std::uint16_t bits, DType dtype) {
  if (dtype == DType::bfloat16) {
    const std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return value;
  }
  const int exponent = bits >> 10 & 0x1f, fraction = bits & 0x3ff;
  double value = exponent == 0 ? std::ldexp(fraction, -24)
                               : std::ldexp(1024 + fraction, exponent - 25);
  if (exponent == 31) value = fraction == 0 ? HUGE_VAL : std::nan("");
  return (bits & 0x8000) != 0 ? -value : value;
}

double element(Buffer& buffer, DType dtype, std::size_t i) {
  switch (dtype) {
    case DType::float32:
      return static_cast<double>(buffer.as<float>().data()[i]);
    case DType::float64:
      return buffer.as<double>().data()[i];
    case DType::float16:
    case DType::bfloat16:
      return from_half(buffer.as<std::uint16_t>().data()[i], dtype);
    case DType::int8:
      return buffer.as<std::int8_t>().data()[i];
    case DType::int16:
      return buffer.as<std::int16_t>().data()[i];
    case DType::int32:
      return buffer.as<std::int32_t>().data()[i];
    case DType::int64:
      return static_cast<double>(buffer.as<std::int64_t>().data()[i]);
    case DType::uint8:
    case DType::boolean:
      return buffer.as<std::uint8_t>().data()[i];
    case DType::uint16:
      return buffer.as<std::uint16_t>().data()[i];
    case DType::uint32:
      return buffer.as<std::uint32_t>().data()[i];
    case DType::uint64:
      break;
  }
  return static_cast<double>(buffer.as<std::uint64_t>().data()[i]);
}

// Standard normal floats; integers and booleans are 0 or 1, which are valid as indices, masks and
// token ids alike. std::normal_distribution differs between libraries, this does not.
void fill(Buffer& buffer, DType dtype, std::mt19937& random) {
  const std::size_t size = item_bytes(dtype);
  for (std::size_t i = 0; i < buffer.bytes / size; ++i) {
    const std::uint32_t bits = random();
    double sum = -6.0;
    if (dtype <= DType::bfloat16) {
      for (int k = 0; k < 12; ++k) sum += static_cast<double>(random()) / 4294967296.0;
    }
    if (dtype == DType::float32) {
      buffer.as<float>().data()[i] = static_cast<float>(sum);
    } else if (dtype == DType::float64) {
      buffer.as<double>().data()[i] = sum;
    } else if (dtype == DType::float16 || dtype == DType::bfloat16) {
      buffer.as<std::uint16_t>().data()[i] = half_of(static_cast<float>(sum), dtype);
    } else {
      auto* const bytes = buffer.as<unsigned char>().data() + i * size;
      std::fill(bytes, bytes + size, static_cast<unsigned char>(0));
      bytes[0] = static_cast<unsigned char>(bits >> 31);  // little-endian
    }
  }
}

std::size_t bytes_of(const Tensor& tensor, const std::vector<std::int64_t>& shape) {
  std::size_t bytes = item_bytes(tensor.dtype);
  for (const std::int64_t size : shape) bytes *= static_cast<std::size_t>(size);
  return bytes;
}

std::vector<std::int64_t> resolve(const Tensor& tensor, const std::vector<std::int64_t>& dims) {
  std::vector<std::int64_t> shape;
  for (const std::int64_t axis : tensor.axes) {
    shape.push_back(axis >= 0 ? axis : dims[static_cast<std::size_t>(-1 - axis)]);
  }
  return shape;
}

bool is_known(const Tensor& tensor) {
  return !tensor.rank_unknown &&
         std::find(tensor.axes.begin(), tensor.axes.end(), kUnknown) == tensor.axes.end();
}

std::string text_of(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i != 0 ? ", " : "") + std::to_string(shape[i]);
  }
  return text + "]";
}

// The `"shape": [...]` of each row of a tensors.json, in order.
std::vector<std::vector<std::int64_t>> read_shapes(const fs::path& file) {
  std::ifstream stream(file);
  if (!stream) throw std::runtime_error("`" + file.string() + "` cannot be read");
  std::stringstream whole;
  whole << stream.rdbuf();
  const std::string text = whole.str();
  std::vector<std::vector<std::int64_t>> shapes;
  std::string word;  // the last string, which is the key where a colon follows
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '"') {
      word.clear();
      for (++i; i < text.size() && text[i] != '"'; ++i) {
        if (text[i] == '\\') ++i;
        if (i < text.size()) word += text[i];
      }
    } else if (text[i] == '[' && word == "shape") {
      shapes.emplace_back();
      while (++i < text.size() && text[i] != ']') {
        if (std::isdigit(static_cast<unsigned char>(text[i])) == 0) continue;
        std::size_t used = 0;
        shapes.back().push_back(std::stoll(text.substr(i, 20), &used));
        i += used - 1;
      }
      word.clear();
    }
  }
  return shapes;
}

void read_inputs(const Signature& s, const std::string& folder, Run& run) {
  const auto shapes = read_shapes(fs::path(folder) / "tensors.json");
  if (shapes.size() != s.inputs.size()) {
    throw std::runtime_error("`" + folder + "` holds " + std::to_string(shapes.size()) +
                             " tensors, the model takes " + std::to_string(s.inputs.size()));
  }
  run.dims.assign(s.dims.size(), -1);
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    const Tensor& tensor = s.inputs[i];
    bool fits = shapes[i].size() == tensor.axes.size();
    for (std::size_t k = 0; fits && k < shapes[i].size(); ++k) {
      const std::int64_t axis = tensor.axes[k], size = shapes[i][k];
      if (axis >= 0) {
        fits = axis == size;
      } else {
        std::int64_t& dim = run.dims[static_cast<std::size_t>(-1 - axis)];
        fits = dim == -1 || dim == size;
        dim = size;
      }
    }
    if (!fits) {
      throw std::runtime_error("`" + tensor.name + "` in `" + folder + "` has shape " +
                               text_of(shapes[i]) + ", which does not fit the model");
    }
    run.inputs[i].shape = shapes[i];
    run.inputs[i].resize(bytes_of(tensor, shapes[i]));
    const fs::path file = fs::path(folder) / (std::to_string(i) + ".bin");
    std::error_code ignored;
    if (fs::file_size(file, ignored) != run.inputs[i].bytes) {
      throw std::runtime_error("`" + file.string() + "` is missing or has the wrong size");
    }
    std::ifstream stream(file, std::ios::binary);
    stream.read(run.inputs[i].as<char>().data(), static_cast<std::streamsize>(run.inputs[i].bytes));
    if (!stream) throw std::runtime_error("`" + file.string() + "` cannot be read");
  }
}

void make_inputs(const Signature& s, const Arguments& a, Run& run) {
  run.dims.clear();
  for (const Dim& dim : s.dims) run.dims.push_back(dim.typical);
  for (const std::string& text : a.dims) {
    const std::size_t equals = text.rfind('=');
    const std::string name = text.substr(0, equals);
    const auto dim = std::find_if(s.dims.begin(), s.dims.end(),
                                  [&](const Dim& d) { return d.name == name; });
    if (equals == std::string::npos || dim == s.dims.end()) {
      std::string known;
      for (const Dim& d : s.dims) known += (known.empty() ? "" : ", ") + d.name;
      throw Usage("`" + text + "` after --dim is not NAME=N; the model's dynamic dimensions: " +
                  (known.empty() ? "none" : known));
    }
    run.dims[static_cast<std::size_t>(dim - s.dims.begin())] =
        number(text.substr(equals + 1), "--dim");
  }
  for (std::size_t i = 0; i < s.dims.size(); ++i) {
    if (run.dims[i] == 0) {
      throw Usage("dimension `" + s.dims[i].name + "` is not fixed: add --dim " + s.dims[i].name +
                  "=N");
    }
  }
  std::mt19937 random(a.seed);
  for (std::size_t i = 0; i < s.inputs.size(); ++i) {
    run.inputs[i].shape = resolve(s.inputs[i], run.dims);
    run.inputs[i].resize(bytes_of(s.inputs[i], run.inputs[i].shape));
    fill(run.inputs[i], s.inputs[i].dtype, random);
  }
}

std::string json_string(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (code < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", code);
      out += escape;
    } else {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
  }
  return out + "\"";
}

void write_outputs(const Signature& s, const std::string& folder, Run& run) {
  fs::create_directories(folder);
  std::string index = "[";
  for (std::size_t i = 0; i < run.outputs.size(); ++i) {
    Buffer& buffer = run.outputs[i];
    const std::string name = std::to_string(i) + ".bin";
    std::ofstream stream(fs::path(folder) / name, std::ios::binary);
    stream.write(buffer.as<char>().data(), static_cast<std::streamsize>(buffer.bytes));
    if (!stream.flush()) throw std::runtime_error("`" + folder + "` cannot be written");
    index += std::string(i != 0 ? "," : "") + "\n {\"name\": " + json_string(s.outputs[i].name) +
             ", \"dtype\": \"" + name_of(s.outputs[i].dtype) +
             "\", \"shape\": " + text_of(buffer.shape) + ", \"file\": \"" + name + "\"}";
  }
  std::ofstream stream(fs::path(folder) / "tensors.json");
  stream << index << "\n]\n";
  if (!stream.flush()) throw std::runtime_error("`" + folder + "` cannot be written");
}

std::string number_text(double value, bool json) {
  if (json && !std::isfinite(value)) return "null";
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

std::string first_values(Buffer& buffer, DType dtype, bool json) {
  const std::size_t count = buffer.bytes / item_bytes(dtype);
  std::string text;
  for (std::size_t i = 0; i < std::min<std::size_t>(count, 5); ++i) {
    text += (i != 0 ? (json ? ", " : " ") : "") + number_text(element(buffer, dtype, i), json);
  }
  return json ? "[" + text + "]" : text + (count > 5 ? " ..." : "");
}

struct Times {
  double load, least, median, greatest;
};

void print(const Signature& s, const Arguments& a, const Times& times, Run& run) {
  if (!a.json) {
    std::printf("%s: %d run%s, ms: min %.3f  median %.3f  max %.3f  (load %.1f)\n",
                s.model.c_str(), a.runs, a.runs == 1 ? "" : "s", times.least, times.median,
                times.greatest, times.load);
    std::size_t width = 0;
    for (const Tensor& t : s.outputs) width = std::max(width, t.name.size());
    for (std::size_t i = 0; i < s.outputs.size(); ++i) {
      std::printf("  %-*s  %-8s %-18s %s\n", static_cast<int>(width), s.outputs[i].name.c_str(),
                  name_of(s.outputs[i].dtype), text_of(run.outputs[i].shape).c_str(),
                  first_values(run.outputs[i], s.outputs[i].dtype, false).c_str());
    }
    return;
  }
  std::printf("{\"model\": %s, \"runs\": %d, \"threads\": %d, \"load_ms\": %.3f, "
              "\"min_ms\": %.4f, \"median_ms\": %.4f, \"max_ms\": %.4f, \"outputs\": [",
              json_string(s.model).c_str(), a.runs, a.threads, times.load, times.least,
              times.median, times.greatest);
  for (std::size_t i = 0; i < s.outputs.size(); ++i) {
    std::printf("%s{\"name\": %s, \"dtype\": \"%s\", \"shape\": %s, \"first\": %s}",
                i != 0 ? ", " : "", json_string(s.outputs[i].name).c_str(),
                name_of(s.outputs[i].dtype), text_of(run.outputs[i].shape).c_str(),
                first_values(run.outputs[i], s.outputs[i].dtype, true).c_str());
  }
  std::printf("]}\n");
}

double now_ms() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::milli>(now).count();
}

// Runs `program` as often as asked; returns the sorted times.
std::vector<double> timed_runs(Program& program, const Signature& s, const Arguments& a,
                               Run& run) {
  for (std::size_t i = 0; i < s.outputs.size(); ++i) {
    if (!is_known(s.outputs[i])) continue;
    run.outputs[i].shape = resolve(s.outputs[i], run.dims);
    run.outputs[i].resize(bytes_of(s.outputs[i], run.outputs[i].shape));
  }
  for (int i = 0; i < a.warmup; ++i) program.run(run);
  std::vector<double> times;
  for (int i = 0; i < a.runs; ++i) {
    const double start = now_ms();
    program.run(run);
    times.push_back(now_ms() - start);
  }
  std::sort(times.begin(), times.end());
  return times;
}

void run_all(const Arguments& a, const Signature& s, Open open) {
  Run run;
  run.inputs.resize(s.inputs.size());
  run.outputs.resize(s.outputs.size());
  if (a.folders.empty()) make_inputs(s, a, run);
  const double start = now_ms();
  const std::unique_ptr<Program> program = open(a.bundle, a.threads, a.device);
  const double load = now_ms() - start;
  std::vector<double> times;
  if (a.folders.empty()) times = timed_runs(*program, s, a, run);
  for (const Folders& folders : a.folders) {
    read_inputs(s, folders.inputs, run);
    const std::vector<double> more = timed_runs(*program, s, a, run);
    times.insert(times.end(), more.begin(), more.end());
    if (!folders.outputs.empty()) write_outputs(s, folders.outputs, run);
  }
  std::sort(times.begin(), times.end());
  const std::size_t middle = times.size() / 2;
  const double median =
      times.size() % 2 != 0 ? times[middle] : (times[middle - 1] + times[middle]) / 2;
  print(s, a, {load, times.front(), median, times.back()}, run);
}

}  // namespace

int main(int argc, char** argv, const Signature& signature, Open open, Version version) {
  try {
    const Arguments a = parse(argc, argv);
    if (a.help) {
      std::fputs(kUsage, stdout);
    } else if (a.version) {
      std::printf("%s\n", version().c_str());
    } else {
      run_all(a, signature, open);
    }
    return 0;
  } catch (const Usage& error) {
    std::fprintf(stderr, "error: %s\n%s", error.what(), kUsage);
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}

}  // namespace harness
