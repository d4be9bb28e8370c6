// The loaders of several back ends in one process, from several threads: TVM's library beside what
// runs on TVM's own runtime, and one bundle opened twice.
#include <cstdio>
#include <exception>
#include <string>
#include <thread>
#include <vector>

#include "digits_mindspore_lite.hpp"
#include "digits_onnxruntime.hpp"
#include "digits_openvino.hpp"
#include "digits_torchscript.hpp"
#include "digits_tvm.hpp"
#include "digits_tvm_open.hpp"

std::vector<float> image() {
  std::vector<float> pixels(2 * 64);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<float>(i % 17) / 16;
  return pixels;
}

template <class Model, class Options>
std::vector<float> answer(const char* path, int threads = 1) {
  Options options;
  options.threads = threads;
  Model model(path, options);
  std::vector<float> pixels = image(), logits(2 * 10);
  for (int i = 0; i < 20; ++i) model.run(2, pixels, logits);
  return logits;
}

// Its shapes are fixed. It is opened and closed while others run.
std::vector<float> answer_of_the_library(const char* path, int threads) {
  std::vector<float> pixels = image(), logits(2 * 10);
  for (int i = 0; i < 5; ++i) {
    digits_tvm::Options options;
    options.threads = threads;
    digits_tvm::Model model(path, options);
    for (int run = 0; run < 4; ++run) model.run(pixels, logits);
  }
  return logits;
}

int main(int argc, char** argv) {
  if (argc != 7) return 2;
  try {
    namespace a = digits_onnxruntime;
    namespace b = digits_openvino;
    namespace c = digits_torchscript;
    namespace d = digits_mindspore_lite;
    namespace e = digits_tvm_open;
    std::vector<float> answers[8];
    std::thread threads[] = {
        std::thread([&] { answers[0] = answer<a::Model, a::Options>(argv[1]); }),
        std::thread([&] { answers[1] = answer<b::Model, b::Options>(argv[2]); }),
        std::thread([&] { answers[2] = answer<c::Model, c::Options>(argv[3]); }),
        std::thread([&] { answers[3] = answer<d::Model, d::Options>(argv[4]); }),
        std::thread([&] { answers[4] = answer_of_the_library(argv[5], 1); }),
        std::thread([&] { answers[5] = answer_of_the_library(argv[5], 2); }),
        std::thread([&] { answers[6] = answer<e::Model, e::Options>(argv[6], 1); }),
        std::thread([&] { answers[7] = answer<e::Model, e::Options>(argv[6], 2); }),
    };
    for (std::thread& thread : threads) thread.join();
    for (const auto& logits : answers) {
      for (const float value : logits) std::printf("%.7g ", static_cast<double>(value));
      std::printf("\n");
    }
    std::vector<float> short_of_one(63), logits(10);
    a::Model model(argv[1]);
    a::Model moved = std::move(model);
    moved.run(1, short_of_one, logits);
  } catch (const digits_onnxruntime::Error& error) {
    std::printf("%s\n", error.what());
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
  }
  return 1;
}
