// Seeded random values: the same on every machine and standard library.
//
//   RandomValues random(/*seed=*/7);
//   std::vector<float> weights = random.Normal(outputs * inputs, 0.05f);
#ifndef NIBBLE_TESTING_RANDOM_TENSOR_H_
#define NIBBLE_TESTING_RANDOM_TENSOR_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace nibble::testing {

class RandomValues {
 public:
  explicit RandomValues(uint64_t seed) : state_(seed) {}

  // SplitMix64 (Steele, Lea, Flood 2014): every seed is a good one.
  uint64_t Bits() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }

  // In [0, 1).
  double Unit() { return static_cast<double>(Bits() >> 11) * 0x1p-53; }

  // In [0, count). REQUIRES: count >= 1.
  int64_t Below(int64_t count) {
    return static_cast<int64_t>(Bits() % static_cast<uint64_t>(count));
  }

  // In [low, high).
  std::vector<float> Uniform(int64_t count, float low, float high) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) {
      value = low + static_cast<float>(Unit()) * (high - low);
    }
    return values;
  }

  // Of mean 0 (Irwin-Hall with 12 terms, so no library function is involved).
  std::vector<float> Normal(int64_t count, float deviation) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) {
      double sum = -6.0;
      for (int i = 0; i < 12; ++i) sum += Unit();
      value = static_cast<float>(sum) * deviation;
    }
    return values;
  }

  std::vector<int32_t> Tokens(int64_t count, int64_t vocabulary) {
    std::vector<int32_t> tokens(static_cast<size_t>(count));
    for (int32_t& token : tokens) {
      token = static_cast<int32_t>(Below(vocabulary));
    }
    return tokens;
  }

 private:
  uint64_t state_;
};

}  // namespace nibble::testing

#endif  // NIBBLE_TESTING_RANDOM_TENSOR_H_
