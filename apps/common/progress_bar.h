// A progress bar for the eye: on a terminal only, on one line that it erases
// when done.
//
//   ProgressBar bar("loading", stderr);
//   for (...) bar.Update(done, total);
//   bar.Finish();
#ifndef NIBBLE_APPS_COMMON_PROGRESS_BAR_H_
#define NIBBLE_APPS_COMMON_PROGRESS_BAR_H_

#include <cstdint>
#include <cstdio>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace nibble {

// Not thread-safe.
class ProgressBar {
 public:
  // Draws on `stream` if that is a terminal, else stays silent.
  ProgressBar(absl::string_view label, std::FILE* stream);
  // Draws whether or not `stream` is a terminal, at every call; for tests.
  static ProgressBar AlwaysDrawn(absl::string_view label, std::FILE* stream);

  // `done` of `total` units. Draws at most ten times a second, and nothing in
  // the first 200 ms: what is over at once needs no bar.
  void Update(int64_t done, int64_t total);

  // Stands behind the bar from the next Update on.
  void SetNote(absl::string_view note) { note_ = std::string(note); }

  // Erases the line, if one was drawn.
  void Finish();

 private:
  std::string label_;
  std::string note_;
  std::FILE* stream_;
  bool visible_;
  bool drawn_ = false;
  absl::Duration interval_;
  absl::Time next_draw_;
};

}  // namespace nibble

#endif  // NIBBLE_APPS_COMMON_PROGRESS_BAR_H_
