// The main function of a fuzz target outside --config=fuzz: runs the entry
// point over the files named on the command line and over mutations of them,
// the same ones every time.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Input = std::vector<uint8_t>;

// Few enough that a test stays under a second; libFuzzer does the searching.
constexpr int kMutationsPerSeed = 200;

void Run(const Input& input) {
  // A copy of the exact size, so that asan sees a read past the end.
  const Input copy(input.begin(), input.end());
  LLVMFuzzerTestOneInput(copy.data(), copy.size());
}

Input RandomBytes(size_t size, std::mt19937& random) {
  Input bytes(size);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

// Flips bytes, cuts the end off, or repeats a stretch.
Input Mutate(Input input, std::mt19937& random) {
  if (input.empty()) return RandomBytes(random() % 16, random);
  const size_t at = random() % input.size();
  switch (random() % 4) {
    case 0:
      input[at] = static_cast<uint8_t>(random());
      break;
    case 1:
      input[at] ^= static_cast<uint8_t>(1u << (random() % 8));
      break;
    case 2:
      input.resize(at);
      break;
    default: {
      const size_t length = random() % (input.size() - at) + 1;
      const Input stretch(input.begin() + at, input.begin() + at + length);
      input.insert(input.begin() + at, stretch.begin(), stretch.end());
    }
  }
  return input;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<Input> seeds = {{}};
  std::mt19937 random(20111);
  for (size_t size : {1, 8, 64, 1000}) {
    seeds.push_back(RandomBytes(size, random));
  }
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "cannot read the seed %s\n", argv[i]);
      return 1;
    }
    seeds.emplace_back(std::istreambuf_iterator<char>(file),
                       std::istreambuf_iterator<char>());
  }
  size_t runs = 0;
  for (const Input& seed : seeds) {
    Run(seed);
    ++runs;
    Input mutated = seed;
    for (int i = 0; i < kMutationsPerSeed; ++i, ++runs) {
      // Every eighth mutation starts from the seed again.
      mutated = Mutate(i % 8 == 0 ? seed : mutated, random);
      Run(mutated);
    }
  }
  std::printf("%zu inputs from %zu seeds\n", runs, seeds.size());
  return 0;
}
