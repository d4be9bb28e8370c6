// Which optimization profile takes which shapes: SIZE x SIZE of one input, one line for each.
#include "adaptor/tensors.h"

#include <cstdio>

namespace {

nvinfer1::Dims square(std::int64_t size) {
  const std::int64_t shape[] = {1, 3, size, size};
  return infc::tensorrt::dims_of(shape, 4);
}

infc::tensorrt::Profile profile(std::int64_t low, std::int64_t typical, std::int64_t high) {
  return {{square(low)}, {square(typical)}, {square(high)}};
}

}  // namespace

int main() {
  const std::vector<infc::tensorrt::Profile> profiles = {
      profile(32, 64, 256), profile(128, 224, 256), profile(512, 512, 512)};
  for (const std::int64_t size : {31, 32, 64, 127, 128, 150, 224, 256, 257, 511, 512, 513}) {
    std::printf("%d %d\n", static_cast<int>(size),
                infc::tensorrt::nearest(profiles, {square(size)}));
  }
}
