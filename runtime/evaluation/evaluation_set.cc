#include "runtime/evaluation/evaluation_set.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "runtime/evaluation/request.h"
#include "runtime/evaluation/task.h"
#include "runtime/evaluation/task_file.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

// Code points of a valid UTF-8 text.
int64_t CountCharacters(absl::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (c & 0xC0) != 0x80; });
}

int64_t CountWords(absl::string_view text) {
  int64_t words = 0;
  bool inside = false;
  for (const char c : text) {
    const bool space = absl::ascii_isspace(static_cast<unsigned char>(c));
    words += !space && !inside;
    inside = !space;
  }
  return words;
}

absl::Status CheckWindow(const EvaluationSetOptions& options, bool bos) {
  const int64_t least = bos ? 1 : 2;
  const int64_t most = bos ? options.context : options.context + 1;
  if (options.window >= least && options.window <= most) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("window: ", options.window, " tokens; must be between ",
                   least, " and ", most, ", what the model's context holds"));
}

absl::StatusOr<EvaluationTask> PerplexityTask(
    const TaskSpec& spec, const Tokenizer& tokenizer,
    const EvaluationSetOptions& options) {
  const bool bos = tokenizer.adds_bos() && tokenizer.bos_id().has_value();
  const int32_t bos_id = tokenizer.bos_id().value_or(0);
  const absl::Status valid = CheckWindow(options, bos);
  if (!valid.ok()) return valid;
  absl::StatusOr<std::string> text = ReadText(spec.path);
  if (!text.ok()) return text.status();
  const std::vector<int32_t> tokens = EncodePlain(*text, tokenizer);
  EvaluationTask task;
  task.spec = spec;
  task.tokens_per_word = static_cast<double>(tokens.size()) /
                         static_cast<double>(CountWords(*text));
  const size_t window = static_cast<size_t>(options.window);
  for (size_t begin = 0; begin < tokens.size(); begin += window) {
    if (options.limit > 0 &&
        static_cast<int64_t>(task.items.size()) == options.limit) {
      break;
    }
    const size_t end = std::min(begin + window, tokens.size());
    ScoredSequence sequence;
    sequence.tokens.assign(tokens.begin() + static_cast<ptrdiff_t>(begin),
                           tokens.begin() + static_cast<ptrdiff_t>(end));
    if (bos) sequence.tokens.insert(sequence.tokens.begin(), bos_id);
    // Nothing predicts a single token.
    if (sequence.scored() < 1) break;
    EvaluationItem item;
    item.sequences.push_back(std::move(sequence));
    task.items.push_back(std::move(item));
  }
  if (task.items.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(spec.path, ": too short: it has ", tokens.size(),
                     " tokens, and nothing predicts the first"));
  }
  return task;
}

absl::StatusOr<EvaluationTask> ItemTask(const TaskSpec& spec,
                                        const Tokenizer& tokenizer,
                                        const EvaluationSetOptions& options) {
  absl::StatusOr<std::vector<TextItem>> texts =
      ReadTaskFile(spec, options.limit);
  if (!texts.ok()) return texts.status();
  EvaluationTask task;
  task.spec = spec;
  for (const TextItem& text : *texts) {
    EvaluationItem item;
    item.gold = text.gold;
    for (const TextRequest& request : text.requests) {
      absl::StatusOr<ScoredSequence> sequence = MakeSequence(
          request.context, request.continuation, tokenizer, options.context);
      if (!sequence.ok()) {
        return absl::Status(
            sequence.status().code(),
            absl::StrCat(text.where, ": ", sequence.status().message()));
      }
      sequence->characters = CountCharacters(request.continuation) - 1;
      item.sequences.push_back(*std::move(sequence));
    }
    task.items.push_back(std::move(item));
  }
  return task;
}

}  // namespace

absl::StatusOr<EvaluationSet> LoadEvaluationSet(
    absl::Span<const TaskSpec> specs, const Tokenizer& tokenizer,
    const EvaluationSetOptions& options) {
  if (options.limit < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("limit: ", options.limit, " items; must not be negative"));
  }
  EvaluationSet set;
  for (const TaskSpec& spec : specs) {
    absl::StatusOr<EvaluationTask> task =
        spec.kind == TaskKind::kPerplexity
            ? PerplexityTask(spec, tokenizer, options)
            : ItemTask(spec, tokenizer, options);
    if (!task.ok()) return task.status();
    set.tasks.push_back(*std::move(task));
  }
  return set;
}

}  // namespace nibble
