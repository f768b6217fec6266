#include "apps/generate_report.h"

#include <sys/resource.h>

#include <cstdint>
#include <string>

#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "apps/common/json.h"
#include "runtime/text_generator.h"

namespace nibble {
namespace {

double PerSecond(int64_t count, absl::Duration time) {
  const double seconds = absl::ToDoubleSeconds(time);
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

double MillisecondsPer(absl::Duration time, int64_t count) {
  return count > 0 ? absl::ToDoubleMilliseconds(time) / count : 0;
}

}  // namespace

Json GenerateJson(const GenerateRun& run) {
  const Generation& made = *run.generation;
  const GenerationTimings& timings = made.timings;
  const int64_t prompt_tokens = static_cast<int64_t>(run.prompt.size());
  Json json;
  json["model"] = run.model;
  json["prompt_token_ids"] = run.prompt;
  json["token_ids"] = made.token_ids;
  json["text"] = made.text;
  json["finish_reason"] = std::string(FinishReasonName(made.finish_reason));
  json["usage"] = {{"prompt_tokens", prompt_tokens},
                   {"completion_tokens", made.token_ids.size()}};
  json["timing"] = {
      {"load_ms", absl::ToDoubleMilliseconds(run.load_time)},
      {"prefill_ms", absl::ToDoubleMilliseconds(timings.prefill)},
      {"prefill_tokens_per_second", PerSecond(prompt_tokens, timings.prefill)},
      {"decode_ms_per_token",
       MillisecondsPer(timings.decode, timings.decode_steps)},
      {"decode_tokens_per_second",
       PerSecond(timings.decode_steps, timings.decode)}};
  json["peak_rss_bytes"] = run.peak_rss_bytes;
  json["isa"] = run.isa;
  json["threads"] = run.threads;
  return json;
}

std::string GenerateSummary(const GenerateRun& run) {
  const GenerationTimings& timings = run.generation->timings;
  return absl::StrFormat(
      "[%d prompt tokens in %.1f ms, %d tokens at %.2f ms each; %s, %d %s]",
      run.prompt.size(), absl::ToDoubleMilliseconds(timings.prefill),
      run.generation->token_ids.size(),
      MillisecondsPer(timings.decode, timings.decode_steps), run.isa,
      run.threads, run.threads == 1 ? "thread" : "threads");
}

int64_t PeakRssBytes() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;  // given in kB
}

}  // namespace nibble
