#include "apps/bench_flags.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "apps/benchmark/product_phase.h"
#include "apps/common/app.h"
#include "apps/common/model_flag.h"
#include "models/decoder_config.h"
#include "models/synthetic/synthetic_shapes.h"

ABSL_FLAG(std::string, shape, "",
          "sizes of a known model, with random weights made in memory, instead "
          "of --model: tinyllama-1.1b, gptj-6b, llama-2-7b, falcon-7b or "
          "gpt-neox-20b; --weights=auto means int4 then");
ABSL_FLAG(std::optional<std::string>, head, std::nullopt,
          "what a shape's output head is held in: bf16 (as quantize leaves "
          "it), f32, int8 or int4; without it bf16");
ABSL_FLAG(std::string, products, "layer",
          "matrix products to measure alone, separated by commas: qkv, "
          "attention, up, down, head, or layer, the first four in turn; empty "
          "for none");
ABSL_FLAG(std::string, rows, "1,2,4,8,128,512,2048",
          "rows of activations in each product");
ABSL_FLAG(std::string, prompt, "128,512,2048",
          "prompt lengths to prefill; empty for none");
ABSL_FLAG(int64_t, decode, 32, "decode steps per repetition; 0 for none");
ABSL_FLAG(std::string, depth, "0,3072", "tokens in the cache before decoding");
ABSL_FLAG(std::string, streams, "1,4,16", "sequences that decode together");
ABSL_FLAG(int64_t, repetitions, 5, "repetitions, of which the median counts");
ABSL_FLAG(std::string, plot, "",
          "HTML file to draw the rows into, against the machine's roofline");
ABSL_FLAG(std::string, output, "text", "text, or json: one object");

namespace nibble {
namespace {

// More activation rows than any prefill chunk, more streams than fit; they keep
// a slip of the finger from taking all memory.
constexpr int64_t kMaxRows = 65536;
constexpr int64_t kMaxStreams = 4096;
constexpr int64_t kMaxSteps = 1 << 20;
constexpr int64_t kMaxRepetitions = 10000;

struct Bounds {
  int64_t min;
  int64_t max;

  bool Contain(int64_t value) const { return value >= min && value <= max; }
  std::string Text() const {
    return absl::StrCat("between ", min, " and ", max);
  }
};

// "1,2,3", each within the bounds and given once.
absl::StatusOr<std::vector<int64_t>> ReadIntegers(absl::string_view flag,
                                                  const std::string& text,
                                                  const Bounds& bounds) {
  std::vector<int64_t> values;
  if (text.empty()) return values;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    int64_t value = 0;
    if (!absl::SimpleAtoi(part, &value) || !bounds.Contain(value)) {
      return FlagError(
          flag, text,
          absl::StrCat("'", part, "' is not a whole number ", bounds.Text()));
    }
    if (absl::c_linear_search(values, value)) {
      return FlagError(flag, text, absl::StrCat(value, " is given twice"));
    }
    values.push_back(value);
  }
  return values;
}

absl::Status ReadList(absl::string_view flag, const std::string& text,
                      const Bounds& bounds, std::vector<int64_t>* values) {
  absl::StatusOr<std::vector<int64_t>> read = ReadIntegers(flag, text, bounds);
  if (!read.ok()) return read.status();
  *values = *std::move(read);
  return absl::OkStatus();
}

absl::Status ReadShape(BenchPlan* plan) {
  plan->shape = absl::GetFlag(FLAGS_shape);
  const std::optional<std::string> head = absl::GetFlag(FLAGS_head);
  if (plan->shape.empty()) {
    if (!head.has_value()) return absl::OkStatus();
    return FlagError("head", *head,
                     "is for --shape; a model's head is as its file has it");
  }
  const absl::Status known = SyntheticShape(plan->shape).status();
  if (!known.ok()) return FlagError("shape", plan->shape, known.message());
  if (!absl::GetFlag(FLAGS_model).empty()) {
    return FlagError("shape", plan->shape, "contradicts --model");
  }
  if (!head.has_value()) return absl::OkStatus();
  const absl::StatusOr<WeightFormat> format = ParseWeightFormat(*head);
  if (!format.ok()) {
    return FlagError("head", *head, "must be f32, bf16, int8 or int4");
  }
  plan->head = *format;
  return absl::OkStatus();
}

absl::Status ReadProducts(BenchPlan* plan) {
  const std::string text = absl::GetFlag(FLAGS_products);
  if (text.empty()) return absl::OkStatus();
  const std::vector<std::string> known = ProductNames();
  for (const absl::string_view name : absl::StrSplit(text, ',')) {
    if (!absl::c_linear_search(known, name)) {
      return FlagError("products", text,
                       absl::StrCat("'", name, "' is not one of ",
                                    absl::StrJoin(known, ", ")));
    }
    if (absl::c_linear_search(plan->products, name)) {
      return FlagError("products", text, absl::StrCat(name, " is given twice"));
    }
    plan->products.emplace_back(name);
  }
  const std::string rows = absl::GetFlag(FLAGS_rows);
  const absl::Status read = ReadList("rows", rows, {1, kMaxRows}, &plan->rows);
  if (!read.ok() || !plan->rows.empty()) return read;
  return FlagError("rows", rows, "names no number; --products= for no rows");
}

absl::Status ReadDecode(DecodePlan* plan) {
  plan->steps = absl::GetFlag(FLAGS_decode);
  const Bounds steps = {0, kMaxSteps};
  if (!steps.Contain(plan->steps)) {
    return FlagError("decode", absl::StrCat(plan->steps),
                     absl::StrCat("must be ", steps.Text()));
  }
  absl::Status read = ReadList("depth", absl::GetFlag(FLAGS_depth),
                               {0, kMaxPositions}, &plan->depths);
  if (!read.ok()) return read;
  read = ReadList("streams", absl::GetFlag(FLAGS_streams), {1, kMaxStreams},
                  &plan->streams);
  if (!read.ok() || plan->steps == 0) return read;
  if (plan->depths.empty()) {
    return FlagError("depth", "", "names no number; --decode=0 for no rows");
  }
  if (plan->streams.empty()) {
    return FlagError("streams", "", "names no number; --decode=0 for no rows");
  }
  return absl::OkStatus();
}

absl::Status ReadOutput(BenchPlan* plan) {
  const int64_t repetitions = absl::GetFlag(FLAGS_repetitions);
  const Bounds bounds = {1, kMaxRepetitions};
  if (!bounds.Contain(repetitions)) {
    return FlagError("repetitions", absl::StrCat(repetitions),
                     absl::StrCat("must be ", bounds.Text()));
  }
  plan->repetitions = static_cast<int>(repetitions);
  plan->plot = absl::GetFlag(FLAGS_plot);
  const std::string output = absl::GetFlag(FLAGS_output);
  if (output != "text" && output != "json") {
    return FlagError("output", output, "must be text or json");
  }
  plan->json = output == "json";
  return absl::OkStatus();
}

}  // namespace

int64_t BenchPlan::MostTokens() const {
  int64_t most = 1;
  for (const int64_t prompt : prompts) most = std::max(most, prompt);
  if (decode.steps == 0) return most;
  for (const int64_t depth : decode.depths) {
    most = std::max(most, depth + decode.steps);
  }
  return most;
}

absl::StatusOr<BenchPlan> BenchPlanFromFlags() {
  BenchPlan plan;
  absl::Status status = ReadShape(&plan);
  if (status.ok()) status = ReadProducts(&plan);
  if (status.ok()) {
    status = ReadList("prompt", absl::GetFlag(FLAGS_prompt), {1, kMaxPositions},
                      &plan.prompts);
  }
  if (status.ok()) status = ReadDecode(&plan.decode);
  if (status.ok()) status = ReadOutput(&plan);
  if (!status.ok()) return status;
  if (plan.products.empty() && plan.prompts.empty() && plan.decode.steps == 0) {
    return absl::InvalidArgumentError(
        "nothing to measure: --products=, --prompt= and --decode=0 leave no "
        "row");
  }
  return plan;
}

}  // namespace nibble
