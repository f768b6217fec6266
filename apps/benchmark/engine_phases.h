// Prefill and decode through the whole engine.
//
//   absl::Status status = MeasurePrefill(session, {128, 512});
//   DecodePlan plan{/*steps=*/32, /*depths=*/{0, 3072}, /*streams=*/{1, 4}};
//   if (status.ok()) status = MeasureDecode(session, plan);
//
// What does not fit into the context or into memory is left out, and said so in
// the report.
#ifndef NIBBLE_APPS_BENCHMARK_ENGINE_PHASES_H_
#define NIBBLE_APPS_BENCHMARK_ENGINE_PHASES_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "apps/benchmark/bench_session.h"
#include "models/decoder_config.h"
#include "runtime/engine.h"
#include "runtime/sequence.h"

namespace nibble {

// Random tokens into an empty sequence, each prompt length in turn with the
// layer products at as many rows as a prefill chunk has.
absl::Status MeasurePrefill(BenchSession& session,
                            absl::Span<const int64_t> prompts);

struct DecodePlan {
  int64_t steps = 0;  // of each repetition; the cache grows by as many tokens
  std::vector<int64_t> depths;   // tokens in the cache before the first step
  std::vector<int64_t> streams;  // sequences that take each step together
};

// One row for each depth and number of streams.
absl::Status MeasureDecode(BenchSession& session, const DecodePlan& plan);

// Makes `sequence`, which is empty, hold `tokens` tokens whose keys and values
// are random, of the scale that real ones have: the cost of reading them does
// not depend on what they are, and writing them takes a hundredth of a prefill.
absl::Status FillCache(Engine& engine, int64_t tokens, Sequence& sequence);

// Bytes of keys and values that one step reads with `tokens` tokens in the
// cache, the new one among them; of windowed layers only the window.
double CacheBytesRead(const Engine& engine, double tokens);

// Multiply-accumulates with weights for one token, and for its logits.
double LayerMacs(const DecoderConfig& config);
double HeadMacs(const DecoderConfig& config);

}  // namespace nibble

#endif  // NIBBLE_APPS_BENCHMARK_ENGINE_PHASES_H_
