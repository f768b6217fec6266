// Task files as texts: what is to be continued, and by what.
//
//   absl::StatusOr<std::vector<TextItem>> items =
//       ReadTaskFile({TaskKind::kPiqa, "piqa_dev.jsonl", "piqa"}, /*limit=*/0);
//   items->front().requests[0].context;     // "Question: ...\nAnswer:"
//
// Texts are built as lm-evaluation-harness builds them:
// - LAMBADA, {"text"}: the context is all before the last space; the
//   continuation a space and the last word.
// - HellaSwag, {"activity_label", "ctx_a", "ctx_b", "endings", "label"}:
//   "label: ctx_a Ctx_b", cleaned of WikiHow's marks, and each ending.
// - PIQA, {"goal", "sol1", "sol2"}: "Question: goal\nAnswer:", and each
//   solution. The right one's number stands in the line ("label") or, a line
//   for each, in a file beside it: x.jsonl has x-labels.lst.
// - WinoGrande, {"sentence", "option1", "option2", "answer"}: the sentence up
//   to its blank "_" and each option, continued by what follows the blank; or
//   {"context_options", "continuation", "gold"}, which is the same made ready.
// A continuation begins with the space that parts it from its context.
#ifndef NIBBLE_RUNTIME_EVALUATION_TASK_FILE_H_
#define NIBBLE_RUNTIME_EVALUATION_TASK_FILE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/evaluation/task.h"

namespace nibble {

struct TextRequest {
  std::string context;
  std::string continuation;
};

struct TextItem {
  std::string where;                  // "piqa_dev.jsonl:7", for errors
  std::vector<TextRequest> requests;  // one per choice
  int64_t gold = 0;                   // the right one
};

// The first `limit` lines of a task file other than perplexity's; 0: all. Blank
// lines do not count. Errors name the file, the line and the field.
absl::StatusOr<std::vector<TextItem>> ReadTaskFile(const TaskSpec& spec,
                                                   int64_t limit);

// A whole text. InvalidArgument, naming the file: nothing but white space,
// bytes that are not UTF-8, a NUL (a binary file), more than 1 GiB.
absl::StatusOr<std::string> ReadText(const std::string& path);

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_EVALUATION_TASK_FILE_H_
