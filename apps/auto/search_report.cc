#include "apps/auto/search_report.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "apps/common/json.h"
#include "quantization/recipe/recipe.h"
#include "quantization/search/search.h"
#include "quantization/search/tolerance.h"

namespace nibble {
namespace {

using Row = std::vector<std::string>;

std::string Loss(double loss, ToleranceMode mode) {
  return mode == ToleranceMode::kRelative
             ? absl::StrFormat("%+.2f%%", 100 * loss)
             : absl::StrFormat("%+.5f", loss);
}

std::string Number(const std::optional<double>& value, double factor,
                   const char* unit, int digits) {
  if (!value.has_value()) return "";
  return absl::StrFormat("%.*f%s", digits, factor * *value, unit);
}

std::string VerdictText(const Trial& trial) {
  if (trial.verdict != Verdict::kError) return VerdictName(trial.verdict);
  // One line of it.
  const std::string message(trial.error.message());
  return absl::StrCat("error: ", message.substr(0, message.find('\n')));
}

Row Header(const std::vector<Metric>& baseline) {
  Row row = {"", "recipe", "bits", "MB"};
  for (const Metric& metric : baseline) {
    row.push_back(metric.name);
    row.push_back("loss");
  }
  for (const char* name : {"KL", "agree", "quantize", "measure", "verdict"}) {
    row.push_back(name);
  }
  return row;
}

Row BaselineRow(const SearchResult& result) {
  Row row = {"", "float", "", ""};
  for (const Metric& metric : result.baseline) {
    row.push_back(absl::StrFormat("%.4f", metric.value));
    row.push_back("");
  }
  row.insert(row.end(),
             {"", "", "", absl::StrFormat("%.1f s", result.baseline_seconds)});
  return row;
}

Row TrialRow(size_t number, const Trial& trial,
             const std::vector<Metric>& baseline, ToleranceMode mode) {
  const bool quantized = trial.model.bytes > 0;
  Row row = {
      absl::StrCat(number + 1), RecipeName(trial.recipe),
      quantized ? absl::StrFormat("%.2f", trial.model.bits_per_weight) : "",
      quantized ? absl::StrFormat("%.1f",
                                  static_cast<double>(trial.model.bytes) / 1e6)
                : ""};
  for (size_t i = 0; i < baseline.size(); ++i) {
    if (trial.metrics.empty()) {
      row.insert(row.end(), {"", ""});
      continue;
    }
    row.push_back(absl::StrFormat("%.4f", trial.metrics[i].value));
    row.push_back(Loss(MetricLoss(baseline[i], trial.metrics[i], mode), mode));
  }
  row.push_back(Number(trial.model.kl_divergence, 1, "", 5));
  row.push_back(Number(trial.model.agreement, 100, "%", 1));
  row.push_back(absl::StrFormat("%.1f s", trial.quantize_seconds));
  row.push_back(absl::StrFormat("%.1f s", trial.measure_seconds));
  row.push_back(VerdictText(trial));
  return row;
}

// Words to the left, numbers to the right.
std::string Table(const std::vector<Row>& rows) {
  std::vector<size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  std::string text;
  for (const Row& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const bool words = i == 1 || i + 1 == widths.size();
      const std::string space(widths[i] - row[i].size(), ' ');
      absl::StrAppend(&line, i > 0 ? "  " : "", words ? "" : space, row[i],
                      words ? space : "");
    }
    line.erase(line.find_last_not_of(' ') + 1);
    absl::StrAppend(&text, line, "\n");
  }
  return text;
}

// A line for each reason, with all recipes that it kept from being tried.
std::string Skipped(const std::vector<SkippedRecipe>& skipped) {
  std::vector<std::pair<std::string, std::vector<std::string>>> reasons;
  for (const SkippedRecipe& one : skipped) {
    auto it = absl::c_find_if(
        reasons, [&](const auto& known) { return known.first == one.reason; });
    if (it == reasons.end()) it = reasons.insert(it, {one.reason, {}});
    it->second.push_back(RecipeName(one.recipe));
  }
  std::string text;
  for (const auto& [reason, names] : reasons) {
    absl::StrAppend(&text, "skipped, ", reason, ": ",
                    absl::StrJoin(names, "; "), "\n");
  }
  return text;
}

std::string Tolerance(const RecipeSearchOptions& options) {
  return options.mode == ToleranceMode::kRelative
             ? absl::StrCat(100 * options.tolerance, "% of the float model")
             : absl::StrCat(options.tolerance, " of the float model's value");
}

std::string Choice(const SearchRun& run) {
  const SearchResult& result = run.result;
  const Trial& chosen = result.trials[result.chosen];
  return absl::StrFormat(
      "%s: %s, %s %s, in %d trials and %.0f s (%s)\nrecipe: %s\n",
      result.within_tolerance ? "chosen" : "NOT within tolerance; the best",
      RecipeName(chosen.recipe),
      result.within_tolerance
          ? "within"
          : absl::StrCat("loses ", Loss(chosen.loss, run.options.mode),
                         ", not"),
      Tolerance(run.options), result.trials.size(), result.seconds,
      result.ended, run.recipe_file);
}

// JSON has no NaN.
Json Finite(double value) {
  return std::isfinite(value) ? Json(value) : Json();
}

Json Optional(const std::optional<double>& value) {
  return value.has_value() ? Finite(*value) : Json();
}

Json MetricsJson(const std::vector<Metric>& metrics) {
  Json json = Json::array();
  for (const Metric& metric : metrics) {
    json.push_back({{"name", metric.name},
                    {"value", Finite(metric.value)},
                    {"higher_is_better", metric.higher_is_better}});
  }
  return json;
}

Json TrialJson(const Trial& trial) {
  Json json;
  json["recipe"] = RecipeName(trial.recipe);
  json["recipe_text"] = RecipeText(trial.recipe);
  json["verdict"] = VerdictName(trial.verdict);
  if (!trial.error.ok()) json["error"] = std::string(trial.error.message());
  json["bits_per_weight"] = trial.model.bits_per_weight;
  json["bytes"] = trial.model.bytes;
  json["metrics"] = MetricsJson(trial.metrics);
  json["loss"] = Finite(trial.loss);
  json["kl_divergence"] = Optional(trial.model.kl_divergence);
  json["greedy_agreement"] = Optional(trial.model.agreement);
  json["quantize_seconds"] = trial.quantize_seconds;
  json["measure_seconds"] = trial.measure_seconds;
  json["damage"] = Json::array();
  for (const MatrixDamage& matrix : trial.model.damage) {
    json["damage"].push_back(
        {{"name", matrix.name}, {"damage", Finite(matrix.damage)}});
  }
  return json;
}

}  // namespace

std::string TrialLine(size_t number, const Trial& trial) {
  std::string line =
      absl::StrCat("trial ", number + 1, ": ", RecipeName(trial.recipe));
  for (const Metric& metric : trial.metrics) {
    absl::StrAppendFormat(&line, ", %s %.4f", metric.name, metric.value);
  }
  if (trial.model.kl_divergence) {
    absl::StrAppendFormat(&line, ", KL %.5f", *trial.model.kl_divergence);
  }
  absl::StrAppendFormat(&line, ", %.0f s: %s\n",
                        trial.quantize_seconds + trial.measure_seconds,
                        VerdictText(trial));
  return line;
}

std::string SearchText(const SearchRun& run) {
  const SearchResult& result = run.result;
  std::vector<Row> rows = {Header(result.baseline), BaselineRow(result)};
  for (size_t i = 0; i < result.trials.size(); ++i) {
    rows.push_back(
        TrialRow(i, result.trials[i], result.baseline, run.options.mode));
  }
  std::string text = Table(rows);
  return absl::StrCat(text, Skipped(result.skipped), Choice(run));
}

Json SearchJson(const SearchRun& run) {
  const SearchResult& result = run.result;
  Json json;
  json["tolerance"] = run.options.tolerance;
  json["tolerance_mode"] =
      run.options.mode == ToleranceMode::kRelative ? "relative" : "absolute";
  json["within_tolerance"] = result.within_tolerance;
  json["chosen"] = result.chosen;
  json["recipe"] = run.recipe;
  json["recipe_file"] = run.recipe_file;
  json["ended"] = result.ended;
  json["baseline"] = MetricsJson(result.baseline);
  json["baseline_seconds"] = result.baseline_seconds;
  json["trials"] = Json::array();
  for (const Trial& trial : result.trials) {
    json["trials"].push_back(TrialJson(trial));
  }
  json["skipped"] = Json::array();
  for (const SkippedRecipe& skipped : result.skipped) {
    json["skipped"].push_back(
        {{"recipe", RecipeName(skipped.recipe)}, {"reason", skipped.reason}});
  }
  json["seconds"] = result.seconds;
  return json;
}

}  // namespace nibble
