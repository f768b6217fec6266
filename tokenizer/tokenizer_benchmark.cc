// Encoding and decoding speed, one thread, and loading time.
//
// With the reference data beside the checkout: War and Peace through the four
// families' tokenizers.  Always: synthetic English-like text through the
// bundled model's tokenizer, and runs of one character, whose time per byte
// must not depend on their length.

#include <cmath>
#include <fstream>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/log/check.h"
#include "benchmark/benchmark.h"
#include "testing/shared_data.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

using ::nibble::testing::RunfilePath;
using ::nibble::testing::SharedDataPath;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string{std::istreambuf_iterator<char>(file), {}};
}

std::unique_ptr<Tokenizer> Load(const std::string& path) {
  auto tokenizer = LoadTokenizerJson(path);
  CHECK_OK(tokenizer.status());
  return *std::move(tokenizer);
}

std::unique_ptr<Tokenizer> LoadBundled() {
  return Load(RunfilePath("apps/bundled_model/tokenizer.json"));
}

// Words of 2 to 9 letters, the short ones often repeated, with commas.
std::string SyntheticText(size_t bytes) {
  std::mt19937 random(1);
  std::vector<std::string> words;
  for (int i = 0; i < 20000; ++i) {
    std::string word;
    const int length = 2 + static_cast<int>(random() % 8);
    for (int k = 0; k < length; ++k) {
      word += "etaoinshrdlucmfwypvbgkjqxz"[random() % (1 + random() % 26)];
    }
    words.push_back(word);
  }
  std::string text;
  while (text.size() < bytes) {
    // The word of rank r appears about 1/r as often, as in natural text.
    const double u = std::generate_canonical<double, 32>(random);
    text += words[static_cast<size_t>(std::pow(words.size(), u)) - 1];
    text += random() % 9 == 0 ? ", " : " ";
  }
  return text;
}

void Report(benchmark::State& state, size_t bytes, size_t tokens) {
  state.SetBytesProcessed(state.iterations() * bytes);
  state.counters["tokens"] = static_cast<double>(tokens);
}

void EncodeText(benchmark::State& state, const Tokenizer& tokenizer,
                const std::string& text) {
  size_t tokens = 0;
  for (auto _ : state) tokens = tokenizer.Encode(text).size();
  Report(state, text.size(), tokens);
}

void BM_EncodeWarAndPeace(benchmark::State& state, const char* name) {
  const auto folder = SharedDataPath(name);
  const auto text = SharedDataPath("text/war-and-peace.txt");
  if (!folder.has_value() || !text.has_value()) {
    state.SkipWithError("no reference data beside the checkout");
    return;
  }
  EncodeText(state, *Load(*folder + "/tokenizer.json"), ReadFile(*text));
}
BENCHMARK_CAPTURE(BM_EncodeWarAndPeace, llama2, "tok-llama2")
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_EncodeWarAndPeace, gptj, "tok-gptj")
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_EncodeWarAndPeace, gptneox, "tok-gptneox")
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_EncodeWarAndPeace, falcon, "tok-falcon")
    ->Unit(benchmark::kMillisecond);

void BM_Load(benchmark::State& state, const char* name) {
  const auto folder = SharedDataPath(name);
  if (!folder.has_value()) {
    state.SkipWithError("no reference data beside the checkout");
    return;
  }
  for (auto _ : state) Load(*folder + "/tokenizer.json");
}
BENCHMARK_CAPTURE(BM_Load, llama2, "tok-llama2")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_Load, falcon, "tok-falcon")->Unit(benchmark::kMillisecond);

void BM_EncodeSynthetic(benchmark::State& state) {
  EncodeText(state, *LoadBundled(),
             SyntheticText(static_cast<size_t>(state.range(0))));
}
BENCHMARK(BM_EncodeSynthetic)
    ->Arg(100)
    ->Arg(4096)
    ->Arg(1 << 20)
    ->Unit(benchmark::kMicrosecond);

void BM_DecodeSynthetic(benchmark::State& state) {
  const auto tokenizer = LoadBundled();
  const std::string text = SyntheticText(1 << 20);
  const std::vector<int32_t> ids = tokenizer->Encode(text);
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer->Decode(ids));
  Report(state, text.size(), ids.size());
}
BENCHMARK(BM_DecodeSynthetic)->Unit(benchmark::kMillisecond);

void BM_EncodeRunOfOneCharacter(benchmark::State& state, const char* name,
                                char character) {
  const auto folder = SharedDataPath(name);
  const auto tokenizer =
      folder.has_value() ? Load(*folder + "/tokenizer.json") : LoadBundled();
  EncodeText(state, *tokenizer,
             std::string(static_cast<size_t>(state.range(0)), character));
}
BENCHMARK_CAPTURE(BM_EncodeRunOfOneCharacter, llama2_letter, "tok-llama2", 'a')
    ->Arg(100'000)
    ->Arg(10'000'000)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_EncodeRunOfOneCharacter, gptj_letter, "tok-gptj", 'a')
    ->Arg(100'000)
    ->Arg(10'000'000)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_EncodeRunOfOneCharacter, gptneox_space, "tok-gptneox", ' ')
    ->Arg(100'000)
    ->Arg(10'000'000)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_EncodeRunOfOneCharacter, falcon_digit, "tok-falcon", '1')
    ->Arg(100'000)
    ->Arg(10'000'000)
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace nibble
