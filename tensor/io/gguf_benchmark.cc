// Time to open a GGUF file with a large vocabulary, and to get its tokens.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"
#include "tensor/io/gguf.h"
#include "tensor/io/test_files.h"

namespace nibble {
namespace {

// 150,000 tokens and as many merges, as in the largest vocabularies in use.
const testing::AlignedBytes& VocabularyFile() {
  static const testing::AlignedBytes* const bytes = [] {
    std::vector<std::string> tokens, merges;
    for (int i = 0; i < 150000; ++i) {
      tokens.push_back(absl::StrCat("token", i));
      merges.push_back(absl::StrCat("tok en", i));
    }
    return new testing::AlignedBytes(
        testing::RawGguf()
            .String("general.architecture", "llama")
            .Strings("tokenizer.ggml.tokens", tokens)
            .Numbers("tokenizer.ggml.token_type", 5,
                     std::vector<int32_t>(tokens.size(), 1))
            .Strings("tokenizer.ggml.merges", merges)
            .Build());
  }();
  return *bytes;
}

void BM_Open(benchmark::State& state) {
  const auto bytes = VocabularyFile().span();
  for (auto _ : state) {
    auto file = GgufFile::Parse("vocabulary", bytes);
    benchmark::DoNotOptimize(file);
  }
  state.SetBytesProcessed(state.iterations() * bytes.size());
}
BENCHMARK(BM_Open)->Unit(benchmark::kMillisecond);

void BM_GetTokens(benchmark::State& state) {
  const auto file = *GgufFile::Parse("vocabulary", VocabularyFile().span());
  for (auto _ : state) {
    auto tokens = file->GetStringArray("tokenizer.ggml.tokens");
    benchmark::DoNotOptimize(tokens);
  }
}
BENCHMARK(BM_GetTokens)->Unit(benchmark::kMillisecond);

void BM_GetTokenViews(benchmark::State& state) {
  const auto file = *GgufFile::Parse("vocabulary", VocabularyFile().span());
  for (auto _ : state) {
    auto tokens = file->GetStringViews("tokenizer.ggml.tokens");
    benchmark::DoNotOptimize(tokens);
  }
}
BENCHMARK(BM_GetTokenViews)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace nibble
