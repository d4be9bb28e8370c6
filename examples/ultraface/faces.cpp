// Finds faces through the generated C++ loader: `faces BUNDLE PREPARED`, where PREPARED is what
// prepare.py wrote. Prints: photo x1 y1 x2 y2 score, the corners in whole pixels of the photo, best
// score first.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "version_rfb_320.hpp"

namespace {

constexpr double kScoreThreshold = 0.7;
constexpr double kIouThreshold = 0.3;

// Corners as fractions of the photo's width and height.
struct Face {
  double x1, y1, x2, y2, score;
};

double area(const Face& face) { return (face.x2 - face.x1) * (face.y2 - face.y1); }

// Intersection over union.
double overlap(const Face& a, const Face& b) {
  const double width = std::min(a.x2, b.x2) - std::max(a.x1, b.x1);
  const double height = std::min(a.y2, b.y2) - std::max(a.y1, b.y1);
  const double shared = std::max(width, 0.0) * std::max(height, 0.0);
  return shared / (area(a) + area(b) - shared);
}

std::vector<Face> candidates(const std::vector<float>& scores, const std::vector<float>& boxes) {
  std::vector<Face> found;
  for (std::size_t row = 0; row < scores.size() / 2; ++row) {
    const double score = static_cast<double>(scores[2 * row + 1]);
    const float* box = boxes.data() + 4 * row;
    if (score > kScoreThreshold) found.push_back({box[0], box[1], box[2], box[3], score});
  }
  return found;
}

// Greedy non-maximum suppression, best score first.
std::vector<Face> keep_best(std::vector<Face> faces) {
  std::stable_sort(faces.begin(), faces.end(),
                   [](const Face& a, const Face& b) { return a.score > b.score; });
  std::vector<Face> kept;
  for (const Face& face : faces) {
    if (std::all_of(kept.begin(), kept.end(),
                    [&](const Face& better) { return overlap(better, face) <= kIouThreshold; })) {
      kept.push_back(face);
    }
  }
  return kept;
}

long pixel(double value) { return static_cast<long>(std::floor(value + 0.5)); }

// Rounds in integers: the languages' own formats round ties apart.
void print(const std::string& photo, int width, int height, const Face& face) {
  const long thousandths = pixel(face.score * 1000);
  std::printf("%s %ld %ld %ld %ld %ld.%03ld\n", photo.c_str(), pixel(face.x1 * width),
              pixel(face.y1 * height), pixel(face.x2 * width), pixel(face.y2 * height),
              thousandths / 1000, thousandths % 1000);
}

void read(const std::string& path, std::vector<float>& into) {
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(into.data()),
            static_cast<std::streamsize>(into.size() * sizeof(float)));
  if (!file) throw std::runtime_error(path + " cannot be read, or is too short");
}

void find_faces(const std::string& bundle, const std::string& prepared) {
  std::vector<float> image(VERSION_RFB_320_INPUT_INPUT_COUNT);
  std::vector<float> scores(VERSION_RFB_320_OUTPUT_SCORES_COUNT);
  std::vector<float> boxes(VERSION_RFB_320_OUTPUT_BOXES_COUNT);
  version_rfb_320::Model model(bundle);
  std::ifstream index(prepared + "/photos.txt");
  if (!index) throw std::runtime_error(prepared + "/photos.txt cannot be read");
  std::string photo;
  int width = 0;
  int height = 0;
  while (index >> photo >> width >> height) {
    read(prepared + "/" + photo + ".f32", image);
    model.run(image, scores, boxes);
    for (const Face& face : keep_best(candidates(scores, boxes))) {
      print(photo, width, height, face);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: faces BUNDLE PREPARED\n");
    return 2;
  }
  try {
    find_faces(argv[1], argv[2]);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
