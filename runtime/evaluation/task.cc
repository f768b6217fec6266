#include "runtime/evaluation/task.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace nibble {
namespace {

constexpr TaskKind kKinds[] = {TaskKind::kPerplexity, TaskKind::kLambada,
                               TaskKind::kHellaSwag, TaskKind::kPiqa,
                               TaskKind::kWinoGrande};

std::string KnownTasks() {
  return absl::StrJoin(kKinds, ", ", [](std::string* out, TaskKind kind) {
    absl::StrAppend(out, TaskKindName(kind), ":FILE");
  });
}

absl::StatusOr<TaskSpec> ParseTask(absl::string_view text) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits(':', 1));
  for (const TaskKind kind : kKinds) {
    if (TaskKindName(kind) != parts.first) continue;
    if (parts.second.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "task ", parts.first, " has no file; give ", parts.first, ":FILE"));
    }
    return TaskSpec{kind, std::string(parts.second), std::string(parts.first)};
  }
  return absl::InvalidArgumentError(
      absl::StrCat("there is no task \"", parts.first, "\"; known tasks are ",
                   KnownTasks()));
}

}  // namespace

absl::string_view TaskKindName(TaskKind kind) {
  switch (kind) {
    case TaskKind::kPerplexity:
      return "perplexity";
    case TaskKind::kLambada:
      return "lambada";
    case TaskKind::kHellaSwag:
      return "hellaswag";
    case TaskKind::kPiqa:
      return "piqa";
    case TaskKind::kWinoGrande:
      return "winogrande";
  }
  return "";
}

absl::StatusOr<std::vector<TaskSpec>> ParseTasks(absl::string_view list) {
  if (absl::StripAsciiWhitespace(list).empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("there is no task; known tasks are ", KnownTasks()));
  }
  std::vector<TaskSpec> tasks;
  for (absl::string_view text : absl::StrSplit(list, ',')) {
    absl::StatusOr<TaskSpec> task = ParseTask(absl::StripAsciiWhitespace(text));
    if (!task.ok()) return task.status();
    for (TaskSpec& other : tasks) {
      if (other.kind != task->kind) continue;
      if (other.path == task->path) {
        return absl::InvalidArgumentError(
            absl::StrCat("task ", text, " is given twice"));
      }
      for (TaskSpec* spec : {&other, &*task}) {
        spec->name = absl::StrCat(TaskKindName(spec->kind), ":", spec->path);
      }
    }
    tasks.push_back(*std::move(task));
  }
  return tasks;
}

}  // namespace nibble
