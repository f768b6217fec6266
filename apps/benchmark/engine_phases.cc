#include "apps/benchmark/engine_phases.h"

#include <algorithm>
#include <chrono>  // NOLINT: wall time is what is measured
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "apps/benchmark/measure.h"
#include "apps/benchmark/product_phase.h"
#include "kernels/attention/kv_view.h"
#include "models/synthetic/synthetic_matrix.h"
#include "models/synthetic/synthetic_shapes.h"
#include "runtime/kv_cache.h"
#include "runtime/memory.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Any tokens will do, but not the same one: [count].
std::vector<int32_t> RandomTokens(int64_t count, int64_t vocabulary) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  uint32_t state = 2024;
  for (int32_t& token : tokens) {
    state = state * 1664525u + 1013904223u;  // Numerical Recipes
    token = static_cast<int32_t>((state >> 8) % vocabulary);
  }
  return tokens;
}

// The rate that a row reaches, of what the products of `products` reach.
double ShareOfProducts(const BenchRow& row, double product_macs,
                       const Measurement& products) {
  const double rate = product_macs * 1e3 / products.milliseconds.median;
  return row.MacsPerSecond() / rate;
}

// One prompt length: prefill, and the products to compare it with.
absl::Status MeasurePrompt(BenchSession& session, int64_t prompt) {
  Engine& engine = session.engine;
  const std::vector<int32_t> tokens = RandomTokens(prompt, engine.vocabulary());
  std::vector<float> logits(static_cast<size_t>(engine.vocabulary()));
  Work prefill;
  prefill.units = 1;
  prefill.run = [&]() -> absl::StatusOr<double> {
    absl::StatusOr<std::unique_ptr<Sequence>> sequence = engine.NewSequence();
    if (!sequence.ok()) return sequence.status();
    const Clock::time_point start = Clock::now();
    const absl::Status status =
        engine.Prefill(**sequence, tokens, absl::MakeSpan(logits));
    const double seconds = SecondsSince(start);
    if (!status.ok()) return status;
    return seconds;
  };
  const int64_t chunk = std::min(engine.prefill_chunk(), prompt);
  ProductRotation products("layer", chunk, engine.decoder(), engine.pool());
  const absl::StatusOr<std::vector<Measurement>> measured =
      MeasureInTurn({prefill, products.AsWork(session.last_level_cache_bytes)},
                    session.probe, session.measure);
  if (!measured.ok()) return measured.status();

  const Measurement& result = (*measured)[0];
  BenchRow row;
  row.phase = BenchPhase::kPrefill;
  row.prompt_tokens = prompt;
  row.milliseconds = result.milliseconds;
  row.tokens = static_cast<double>(prompt);
  // Each chunk reads the layers; the last one also the head.
  const double chunks = static_cast<double>((prompt + chunk - 1) / chunk);
  const double head_bytes =
      static_cast<double>(engine.decoder().weights().head.matrix.bytes());
  row.bytes =
      chunks * (static_cast<double>(engine.weight_bytes()) - head_bytes) +
      head_bytes;
  row.macs = LayerMacs(engine.config()) * static_cast<double>(prompt) +
             HeadMacs(engine.config());
  row.read_bytes_per_second = result.read_bytes_per_second;
  row.peak_macs_per_second = result.macs_per_second;
  row.share_of_products = ShareOfProducts(row, products.macs(), (*measured)[1]);
  session.report.rows.push_back(row);
  return absl::OkStatus();
}

// Sequences of one depth that step together.
class Streams {
 public:
  Streams(Engine& engine, int64_t depth, int64_t steps)
      : engine_(engine), depth_(depth), steps_(steps) {}

  // Adds sequences until there are `count`.
  absl::Status Grow(int64_t count) {
    while (static_cast<int64_t>(owned_.size()) < count) {
      absl::StatusOr<std::unique_ptr<Sequence>> sequence =
          engine_.NewSequence();
      if (!sequence.ok()) return sequence.status();
      const absl::Status filled = FillCache(engine_, depth_, **sequence);
      if (!filled.ok()) return filled;
      owned_.push_back(*std::move(sequence));
      pointers_.push_back(owned_.back().get());
    }
    tokens_ = RandomTokens(count, engine_.vocabulary());
    logits_ = Array<float>(static_cast<size_t>(count * engine_.vocabulary()));
    return absl::OkStatus();
  }

  // Seconds of one step of all.
  absl::StatusOr<double> Step() {
    if (pointers_[0]->position() >= depth_ + steps_) {
      for (Sequence* sequence : pointers_) sequence->Truncate(depth_);
    }
    const int64_t count = static_cast<int64_t>(pointers_.size());
    const MatrixView<float> logits(logits_.data(), count, engine_.vocabulary());
    const Clock::time_point start = Clock::now();
    const absl::Status status = engine_.DecodeBatch(pointers_, tokens_, logits);
    const double seconds = SecondsSince(start);
    if (!status.ok()) return status;
    return seconds;
  }

  // Back to the depth.
  void Rewind() {
    for (Sequence* sequence : pointers_) sequence->Truncate(depth_);
  }

 private:
  Engine& engine_;
  const int64_t depth_;
  const int64_t steps_;
  std::vector<std::unique_ptr<Sequence>> owned_;
  std::vector<Sequence*> pointers_;
  std::vector<int32_t> tokens_;  // [streams]
  Array<float> logits_;          // [streams, vocabulary]
};

absl::Status MeasureStreams(BenchSession& session, const BenchRow& plan,
                            int64_t steps, Streams& streams) {
  BenchRow row = plan;
  const int64_t count = *row.streams;
  const absl::Status grown = streams.Grow(count);
  if (!grown.ok()) return grown;
  streams.Rewind();
  Work work;
  work.units = steps;
  work.run = [&] { return streams.Step(); };
  const absl::StatusOr<std::vector<Measurement>> measured =
      MeasureInTurn({work}, session.probe, session.measure);
  if (!measured.ok()) return measured.status();
  const Measurement& result = (*measured)[0];
  const double many = static_cast<double>(count);
  // The tokens that a step attends to, its own among them, on average.
  const double tokens =
      static_cast<double>(*row.depth) + static_cast<double>(steps - 1) / 2 + 1;
  row.milliseconds = result.milliseconds;
  row.tokens = many;
  row.bytes = static_cast<double>(session.engine.weight_bytes()) +
              many * CacheBytesRead(session.engine, tokens);
  row.macs = many * (LayerMacs(session.engine.config()) +
                     HeadMacs(session.engine.config()));
  row.read_bytes_per_second = result.read_bytes_per_second;
  row.peak_macs_per_second = result.macs_per_second;
  session.report.rows.push_back(row);
  return absl::OkStatus();
}

// Why a row cannot be measured; empty if it can.
std::string WhyNot(const Engine& engine, int64_t tokens, int64_t streams) {
  if (tokens > engine.context()) {
    return absl::StrCat(tokens, " tokens are more than the context of ",
                        engine.context());
  }
  const KvBlockPool& pool = engine.kv_pool();
  const int64_t bytes = pool.layout().BytesFor(tokens);
  if (bytes > pool.max_bytes() / streams) {
    return absl::StrCat("keys and values of ", streams, " x ", tokens,
                        " tokens take ", streams, " x ", FormatBytes(bytes),
                        ", and there is room for ",
                        FormatBytes(pool.max_bytes()));
  }
  return "";
}

// Whether to measure `row`; if not, the report says why.
bool Fits(BenchSession& session, const BenchRow& row, int64_t tokens) {
  session.progress(RowName(row));
  const std::string reason =
      WhyNot(session.engine, tokens, row.streams.value_or(1));
  if (reason.empty()) return true;
  session.report.skipped.push_back(absl::StrCat(RowName(row), ": ", reason));
  return false;
}

}  // namespace

double LayerMacs(const DecoderConfig& config) {
  return static_cast<double>(config.layers * LayerWeightCount(config));
}

double HeadMacs(const DecoderConfig& config) {
  return static_cast<double>(HeadWeightCount(config));
}

double CacheBytesRead(const Engine& engine, double tokens) {
  const double per_token =
      2.0 * static_cast<double>(engine.kv_pool().layout().page_bytes()) /
      static_cast<double>(kPageTokens);
  double bytes = 0;
  for (const int64_t window : engine.config().windows) {
    const double seen =
        window > 0 ? std::min(tokens, static_cast<double>(window)) : tokens;
    bytes += seen * per_token;
  }
  return bytes;
}

absl::Status FillCache(Engine& engine, int64_t tokens, Sequence& sequence) {
  if (tokens == 0) return absl::OkStatus();
  const absl::Status reserved = sequence.Reserve(tokens);
  if (!reserved.ok()) return reserved;
  // A page of keys or values at a time, from a window into more of them.
  const int64_t width = engine.config().kv_dim();
  constexpr int64_t kSpare = 37;
  const Array<float> values = SyntheticMatrices(1).Normal(
      (kPageTokens + kSpare) * width, /*deviation=*/1.0f);
  const absl::Span<const KvView> layers = sequence.layers();
  engine.pool().ParallelFor(
      static_cast<int64_t>(layers.size()),
      [&](int64_t begin, int64_t end, int /*thread*/) {
        for (int64_t layer = begin; layer < end; ++layer) {
          for (int64_t first = 0; first < tokens; first += kPageTokens) {
            const int64_t count = std::min(kPageTokens, tokens - first);
            const int64_t offset = (layer * 11 + first / kPageTokens) % kSpare;
            const MatrixView<const float> rows(values.data() + offset * width,
                                               count, width);
            StoreKv(rows, rows, first, layers[static_cast<size_t>(layer)]);
          }
        }
      });
  sequence.Advance(tokens);
  return absl::OkStatus();
}

absl::Status MeasurePrefill(BenchSession& session,
                            absl::Span<const int64_t> prompts) {
  for (const int64_t prompt : prompts) {
    BenchRow row;
    row.phase = BenchPhase::kPrefill;
    row.prompt_tokens = prompt;
    if (!Fits(session, row, prompt)) continue;
    const absl::Status status = MeasurePrompt(session, prompt);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status MeasureDecode(BenchSession& session, const DecodePlan& plan) {
  std::vector<int64_t> counts = plan.streams;
  std::sort(counts.begin(), counts.end());
  for (const int64_t depth : plan.depths) {
    Streams streams(session.engine, depth, plan.steps);
    for (const int64_t count : counts) {
      BenchRow row;
      row.phase = BenchPhase::kDecode;
      row.depth = depth;
      row.streams = count;
      if (!Fits(session, row, depth + plan.steps)) continue;
      const absl::Status status =
          MeasureStreams(session, row, plan.steps, streams);
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace nibble
