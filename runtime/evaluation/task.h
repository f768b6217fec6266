// What can be measured, and how it is asked for.
//
//   absl::StatusOr<std::vector<TaskSpec>> tasks =
//       ParseTasks("perplexity:wiki.test.raw,lambada:lambada_test.jsonl");
#ifndef NIBBLE_RUNTIME_EVALUATION_TASK_H_
#define NIBBLE_RUNTIME_EVALUATION_TASK_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

enum class TaskKind {
  kPerplexity,  // a text, in windows
  kLambada,     // the last word of a passage
  kHellaSwag,   // one of several endings
  kPiqa,        // one of two solutions
  kWinoGrande,  // one of two contexts, by what follows both
};

// "perplexity" and so on.
absl::string_view TaskKindName(TaskKind kind);

struct TaskSpec {
  TaskKind kind = TaskKind::kPerplexity;
  std::string path;
  // Unlike that of any other task in the list: the kind's name, or "kind:path"
  // where the list has several of a kind.
  std::string name;
};

// "KIND:FILE,KIND:FILE"; a FILE holds no comma. InvalidArgument: an unknown
// kind (the error lists the known ones), a missing file name, a task that is
// given twice, an empty list.
absl::StatusOr<std::vector<TaskSpec>> ParseTasks(absl::string_view list);

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_EVALUATION_TASK_H_
