#include "apps/auto/auto_flags.h"

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "apps/common/app.h"
#include "quantization/search/search.h"
#include "quantization/search/tolerance.h"
#include "runtime/evaluation/task.h"

ABSL_FLAG(bool, auto, false,
          "search for the cheapest recipe that loses no more of --task than "
          "--tolerance; --group_size, --symmetric, --offset, --bits, "
          "--keep_float and --head_bits narrow the search");
ABSL_FLAG(std::string, task, "",
          "what --auto judges by: TASK:FILE, and more of them after commas, "
          "each of which must be within tolerance; tasks are perplexity (a "
          "text), lambada, hellaswag, piqa and winogrande (JSON lines)");
ABSL_FLAG(std::optional<int64_t>, limit, std::nullopt,
          "most items of each task of --auto, from its start; without it, all");
ABSL_FLAG(std::optional<double>, tolerance, std::nullopt,
          "loss that --auto accepts; default 0.01, which is one percent");
ABSL_FLAG(std::optional<std::string>, tolerance_mode, std::nullopt,
          "whether --tolerance is relative to the float model (the default) or "
          "absolute");
ABSL_FLAG(std::optional<int>, trials, std::nullopt,
          "recipes that --auto tries at most; default 100");
ABSL_FLAG(std::optional<double>, hours, std::nullopt,
          "time that --auto takes; default 0: until the first recipe within "
          "tolerance");
ABSL_FLAG(std::optional<std::string>, search_space, std::nullopt,
          "file with the recipes that --auto tries, in its order: recipes { "
          "... } for each");

namespace nibble {
namespace {

// A century: beyond it, absl::Duration is no help either.
constexpr double kMostHours = 24.0 * 365 * 100;

absl::Status CheckNoneGiven() {
  const auto refuse = [](const char* flag) {
    return absl::InvalidArgumentError(
        absl::StrCat("--", flag, ": has no effect without --auto"));
  };
  if (!absl::GetFlag(FLAGS_task).empty()) return refuse("task");
  if (absl::GetFlag(FLAGS_limit)) return refuse("limit");
  if (absl::GetFlag(FLAGS_tolerance)) return refuse("tolerance");
  if (absl::GetFlag(FLAGS_tolerance_mode)) return refuse("tolerance_mode");
  if (absl::GetFlag(FLAGS_trials)) return refuse("trials");
  if (absl::GetFlag(FLAGS_hours)) return refuse("hours");
  if (absl::GetFlag(FLAGS_search_space)) return refuse("search_space");
  return absl::OkStatus();
}

absl::Status ReadTolerance(RecipeSearchOptions* search) {
  const double tolerance = absl::GetFlag(FLAGS_tolerance).value_or(0.01);
  // Also NaN.
  if (!(tolerance > 0) || !std::isfinite(tolerance)) {
    return FlagError("tolerance", absl::StrCat(tolerance),
                     "must be above 0, such as 0.01 for one percent");
  }
  search->tolerance = tolerance;
  const std::string name =
      absl::GetFlag(FLAGS_tolerance_mode).value_or("relative");
  const absl::StatusOr<ToleranceMode> mode = ParseToleranceMode(name);
  if (!mode.ok()) {
    return FlagError("tolerance_mode", name, mode.status().message());
  }
  search->mode = *mode;
  return absl::OkStatus();
}

absl::Status ReadBudget(RecipeSearchOptions* search) {
  const int trials = absl::GetFlag(FLAGS_trials).value_or(search->trials);
  if (trials < 1) {
    return FlagError("trials", absl::StrCat(trials), "must be at least 1");
  }
  search->trials = trials;
  const double hours = absl::GetFlag(FLAGS_hours).value_or(0);
  if (!(hours >= 0 && hours <= kMostHours)) {
    return FlagError("hours", absl::StrCat(hours),
                     "must be 0 (until the first success) or more");
  }
  search->time = absl::Hours(hours);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<AutoFlags> AutoFlagsFromFlags() {
  AutoFlags flags;
  flags.given = absl::GetFlag(FLAGS_auto);
  if (!flags.given) {
    const absl::Status status = CheckNoneGiven();
    if (!status.ok()) return status;
    return flags;
  }
  const std::string task = absl::GetFlag(FLAGS_task);
  if (task.empty()) {
    return absl::InvalidArgumentError(
        "--auto: needs --task=TASK:FILE to judge recipes by, such as "
        "--task=perplexity:text.txt");
  }
  absl::StatusOr<std::vector<TaskSpec>> tasks = ParseTasks(task);
  if (!tasks.ok()) return FlagError("task", task, tasks.status().message());
  flags.tasks = *std::move(tasks);
  flags.limit = absl::GetFlag(FLAGS_limit).value_or(0);
  if (absl::GetFlag(FLAGS_limit).has_value() && flags.limit < 1) {
    return FlagError("limit", absl::StrCat(flags.limit), "must be at least 1");
  }
  absl::Status status = ReadTolerance(&flags.search);
  if (status.ok()) status = ReadBudget(&flags.search);
  if (!status.ok()) return status;
  flags.search_space = absl::GetFlag(FLAGS_search_space).value_or("");
  return flags;
}

}  // namespace nibble
