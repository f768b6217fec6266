// Speed of whole forward passes on random weights of real models' shapes.
//
//   bazel run //models:decoder_benchmark --
//       --benchmark_filter='smollm2.*decode'
//
// A decode step reads every weight once: share_of_bandwidth compares its bytes
// per second with plain reads of memory, timed in turn with it. Prefill is
// bound by multiplies and is given in multiply-accumulates per second. Other
// processes only ever add time, so rates are taken at the 10th percentile of
// times, of both sides alike.
#include <algorithm>
#include <chrono>  // NOLINT: wall time is what is measured
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "benchmark/benchmark.h"
#include "kernels/cpu.h"
#include "kernels/machine_limits.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder.h"
#include "models/decoder_config.h"
#include "models/decoder_workspace.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/view.h"
#include "testing/kv_pages.h"
#include "testing/random_checkpoint.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kCapacity = 2048;

DecoderConfig LlamaShape(int64_t layers, int64_t hidden, int64_t heads,
                         int64_t kv_heads, int64_t ffn, int64_t vocabulary) {
  DecoderConfig config = testing::TinyDecoderConfig();
  config.layers = layers;
  config.hidden = hidden;
  config.heads = heads;
  config.kv_heads = kv_heads;
  config.head_dim = hidden / heads;
  config.ffn = ffn;
  config.vocabulary = vocabulary;
  config.max_positions = kCapacity;
  config.rope.rotary_dims = config.head_dim;
  config.rope.max_positions = kCapacity;
  config.windows.assign(static_cast<size_t>(layers), 0);
  config.tied_head = true;
  return config;
}

DecoderConfig ConfigOf(const std::string& model) {
  if (model == "tolstoy") return LlamaShape(6, 256, 8, 4, 768, 4096);
  CHECK_EQ(model, "smollm2-135m");
  return LlamaShape(30, 576, 9, 3, 1536, 49152);
}

double Seconds(Clock::time_point since) {
  return std::chrono::duration<double>(Clock::now() - since).count();
}

// The 10th percentile.
double Typical(std::vector<double> seconds) {
  const auto at = seconds.begin() + seconds.size() / 10;
  std::nth_element(seconds.begin(), at, seconds.end());
  return *at;
}

// One sequence of a model with random weights.
class Session {
 public:
  Session(const std::string& model, int threads)
      : pool_(threads), config_(ConfigOf(model)) {
    DecoderOptions options;
    absl::StatusOr<std::unique_ptr<Decoder>> decoder = Decoder::Load(
        testing::RandomCheckpoint(config_, /*seed=*/1), options, pool_);
    CHECK(decoder.ok()) << decoder.status();
    decoder_ = *std::move(decoder);
    cache_ = std::make_unique<testing::KvPages>(config_, DType::kBF16,
                                                kCapacity, /*page_tokens=*/64);
    logits_ = Array<float>(static_cast<size_t>(config_.vocabulary));
    tokens_ = testing::RandomValues(2).Tokens(kCapacity, config_.vocabulary);
  }

  // Seconds for `count` tokens at `position`.
  double Forward(int64_t position, int64_t count) {
    SequenceSlice slice;
    slice.tokens = absl::MakeConstSpan(tokens_).subspan(
        static_cast<size_t>(position), static_cast<size_t>(count));
    slice.first_position = position;
    slice.layers = cache_->layers();
    const MatrixView<float> logits(logits_.data(), 1, config_.vocabulary);
    const Clock::time_point start = Clock::now();
    const absl::Status status =
        decoder_->Forward({&slice, 1}, work_, logits, pool_);
    const double seconds = Seconds(start);
    CHECK(status.ok()) << status;
    return seconds;
  }

  size_t weight_bytes() const { return decoder_->weight_bytes(); }
  ThreadPool& pool() { return pool_; }

 private:
  ThreadPool pool_;
  DecoderConfig config_;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<testing::KvPages> cache_;
  DecoderWorkspace work_;
  Array<float> logits_;  // [1, vocabulary]
  std::vector<int32_t> tokens_;
};

void Decode(benchmark::State& state, const std::string& model, int threads,
            int64_t depth) {
  Session session(model, threads);
  session.Forward(0, depth);
  // As many bytes again, from memory that no cache holds.
  const AlignedBuffer other(std::max<size_t>(session.weight_bytes(), 256 << 20),
                            AlignedBuffer::Fill::kZero);
  const absl::Span<const std::byte> bytes(other.data(), session.weight_bytes());
  std::vector<double> steps, reads;
  for (auto _ : state) {
    steps.push_back(session.Forward(depth, 1));
    state.PauseTiming();
    reads.push_back(TimeRead(bytes, session.pool()));
    state.ResumeTiming();
  }
  const double step = Typical(steps);
  state.counters["ms_per_token"] = step * 1e3;
  state.counters["gigabytes_per_second"] =
      static_cast<double>(session.weight_bytes()) / step * 1e-9;
  state.counters["share_of_bandwidth"] = Typical(reads) / step;
}

void Prefill(benchmark::State& state, const std::string& model, int threads,
             int64_t tokens) {
  Session session(model, threads);
  std::vector<double> passes;
  for (auto _ : state) passes.push_back(session.Forward(0, tokens));
  const double pass = Typical(passes);
  state.counters["tokens_per_second"] = static_cast<double>(tokens) / pass;
  // bf16: two bytes a weight. The head runs for one token only, and counts as
  // if it did not: the figure is a lower bound.
  const DecoderConfig config = ConfigOf(model);
  const double weights = static_cast<double>(session.weight_bytes()) / 2 -
                         static_cast<double>(config.vocabulary * config.hidden);
  state.counters["gigamacs_per_second"] =
      weights * static_cast<double>(tokens) / pass * 1e-9;
}

void RegisterAll() {
  std::vector<int> thread_counts = {1};
  if (AvailableCores() > 1) thread_counts.push_back(AvailableCores());
  for (const std::string model : {"tolstoy", "smollm2-135m"}) {
    for (const int threads : thread_counts) {
      const std::string suffix = absl::StrCat("/threads:", threads);
      for (const int64_t depth : {16, 1024}) {
        benchmark::RegisterBenchmark(
            absl::StrCat(model, "/decode/depth:", depth, suffix).c_str(),
            [=](benchmark::State& state) {
              Decode(state, model, threads, depth);
            })
            ->UseRealTime();
      }
      benchmark::RegisterBenchmark(
          absl::StrCat(model, "/prefill/tokens:512", suffix).c_str(),
          [=](benchmark::State& state) { Prefill(state, model, threads, 512); })
          ->UseRealTime();
    }
  }
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  nibble::RegisterAll();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
