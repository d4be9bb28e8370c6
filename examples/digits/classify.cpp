// Classifies scanned digits through the generated C++ loader: `classify BUNDLE digits.csv`.
// Prints `sample label prediction` for each digit, then the accuracy.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "digits.hpp"

namespace {

constexpr std::size_t kPixels = 64;
constexpr std::size_t kClasses = 10;
constexpr float kGreyMax = 16.0f;

struct Samples {
  std::vector<int> labels;
  std::vector<float> images;  // (N, 1, 8, 8), 0..1
};

// A line holds the label, then 64 grey values 0..16.
Samples read(const char* path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(std::string(path) + " cannot be read");
  Samples samples;
  std::string line;
  std::string field;
  while (std::getline(file, line)) {
    std::istringstream fields(line);
    std::getline(fields, field, ',');
    samples.labels.push_back(std::stoi(field));
    while (std::getline(fields, field, ',')) {
      samples.images.push_back(static_cast<float>(std::stoi(field)) / kGreyMax);
    }
  }
  if (samples.images.size() != samples.labels.size() * kPixels) {
    throw std::runtime_error(std::string(path) + " does not hold 64 grey values a line");
  }
  return samples;
}

int classify(const char* bundle, const char* csv) {
  const Samples samples = read(csv);
  const std::size_t count = samples.labels.size();
  std::vector<float> logits(count * kClasses);
  digits::Model model(bundle);
  model.run(static_cast<std::int64_t>(count), samples.images, logits);
  std::size_t right = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const float* row = logits.data() + i * kClasses;
    const auto prediction = std::max_element(row, row + kClasses) - row;
    if (prediction == samples.labels[i]) ++right;
    std::printf("sample %zu label %d predicted %td\n", i, samples.labels[i], prediction);
  }
  std::printf("accuracy %zu/%zu\n", right, count);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: classify BUNDLE digits.csv\n");
    return 2;
  }
  try {
    return classify(argv[1], argv[2]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
