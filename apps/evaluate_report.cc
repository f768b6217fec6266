#include "apps/evaluate_report.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "apps/common/json.h"
#include "runtime/evaluation/metrics.h"
#include "runtime/evaluation/task.h"
#include "runtime/evaluation/task_result.h"

namespace nibble {
namespace {

bool HasAccuracyNorm(TaskKind kind) {
  return kind == TaskKind::kHellaSwag || kind == TaskKind::kPiqa;
}

Json MetricsJson(TaskKind kind, const TaskMetrics& metrics) {
  Json json;
  if (kind == TaskKind::kPerplexity) {
    json["perplexity"] = metrics.perplexity;
    json["mean_nll"] = metrics.mean_nll;
    json["stderr"] = metrics.mean_nll_stderr;
    json["word_perplexity"] = metrics.word_perplexity;
    json["top1_accuracy"] = metrics.accuracy;
    json["windows"] = metrics.samples;
    json["tokens"] = metrics.tokens;
    return json;
  }
  json["accuracy"] = metrics.accuracy;
  json["stderr"] = metrics.accuracy_stderr;
  if (HasAccuracyNorm(kind)) {
    json["accuracy_norm"] = metrics.accuracy_norm;
    json["stderr_norm"] = metrics.accuracy_norm_stderr;
  }
  if (kind == TaskKind::kLambada) {
    json["mean_logprob"] = -metrics.mean_nll;
    json["mean_logprob_stderr"] = metrics.mean_nll_stderr;
    json["perplexity"] = metrics.perplexity;
  }
  json["samples"] = metrics.samples;
  json["tokens"] = metrics.tokens;
  return json;
}

void AddComparisonJson(const TaskResult& result, Json& json) {
  const Comparison& c = *result.comparison;
  json["kl_divergence"] = c.kl_divergence;
  json["kl_stderr"] = c.kl_stderr;
  json["greedy_agreement"] = c.greedy_agreement;
  json["right_to_wrong"] = c.right_to_wrong;
  json["wrong_to_right"] = c.wrong_to_right;
  json["flips_p_value"] = c.flips_p_value;
  json["accuracy_difference"] = c.accuracy_difference;
  json["accuracy_difference_stderr"] = c.accuracy_difference_stderr;
  if (result.spec.kind == TaskKind::kPerplexity ||
      result.spec.kind == TaskKind::kLambada) {
    json["nll_difference"] = c.nll_difference;
    json["nll_difference_stderr"] = c.nll_difference_stderr;
  }
  json["against"] = MetricsJson(result.spec.kind, *result.reference);
}

std::string MetricsText(TaskKind kind, const TaskMetrics& m) {
  switch (kind) {
    case TaskKind::kPerplexity:
      return absl::StrFormat(
          "perplexity %.4f, nll %.5f ± %.5f, top-1 %.4f (%d tokens in %d "
          "windows; %.2f a word)",
          m.perplexity, m.mean_nll, m.mean_nll_stderr, m.accuracy, m.tokens,
          m.samples, m.word_perplexity);
    case TaskKind::kLambada:
      return absl::StrFormat(
          "accuracy %.4f ± %.4f, log-probability %.5f, perplexity %.3f (%d "
          "passages)",
          m.accuracy, m.accuracy_stderr, -m.mean_nll, m.perplexity, m.samples);
    case TaskKind::kHellaSwag:
    case TaskKind::kPiqa:
      return absl::StrFormat(
          "accuracy %.4f ± %.4f, by character %.4f ± %.4f (%d items)",
          m.accuracy, m.accuracy_stderr, m.accuracy_norm,
          m.accuracy_norm_stderr, m.samples);
    case TaskKind::kWinoGrande:
      break;
  }
  return absl::StrFormat("accuracy %.4f ± %.4f (%d items)", m.accuracy,
                         m.accuracy_stderr, m.samples);
}

std::string ComparisonText(const TaskResult& result) {
  const Comparison& c = *result.comparison;
  std::string text = absl::StrFormat(
      "  against    %s\n"
      "  KL %.6f ± %.6f nats a token (%d), same first choice %.4f\n"
      "  flips: %d right to wrong, %d wrong to right (p %.3g); accuracy "
      "%+.4f ± %.4f\n",
      MetricsText(result.spec.kind, *result.reference), c.kl_divergence,
      c.kl_stderr, c.kl_tokens, c.greedy_agreement, c.right_to_wrong,
      c.wrong_to_right, c.flips_p_value, c.accuracy_difference,
      c.accuracy_difference_stderr);
  if (result.spec.kind == TaskKind::kPerplexity ||
      result.spec.kind == TaskKind::kLambada) {
    absl::StrAppendFormat(&text, "  nll %+.5f ± %.5f\n", c.nll_difference,
                          c.nll_difference_stderr);
  }
  return text;
}

}  // namespace

Json EvaluateJson(const EvaluateRun& run) {
  Json json;
  json["model"] = run.model;
  if (!run.against.empty()) json["against"] = run.against;
  Json& tasks = json["tasks"] = Json::object();
  for (const TaskResult& result : run.results) {
    Json task = MetricsJson(result.spec.kind, result.metrics);
    if (result.comparison.has_value()) AddComparisonJson(result, task);
    tasks[result.spec.name] = std::move(task);
  }
  json["tokens_read"] = run.tokens;
  json["seconds"] = run.seconds;
  json["peak_rss_bytes"] = run.peak_rss_bytes;
  json["threads"] = run.threads;
  return json;
}

std::string EvaluateText(const EvaluateRun& run) {
  std::string text = absl::StrCat(run.model, "\n");
  if (!run.against.empty())
    absl::StrAppend(&text, "against ", run.against, "\n");
  for (const TaskResult& result : run.results) {
    absl::StrAppendFormat(&text, "%-12s %s\n", result.spec.name,
                          MetricsText(result.spec.kind, result.metrics));
    if (result.comparison.has_value()) text += ComparisonText(result);
  }
  absl::StrAppendFormat(
      &text, "%d tokens in %.1f s, %.0f a second\n", run.tokens, run.seconds,
      run.seconds > 0 ? static_cast<double>(run.tokens) / run.seconds : 0.0);
  return text;
}

}  // namespace nibble
