#include "apps/common/progress_bar.h"

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace nibble {
namespace {

constexpr int kWidth = 30;  // of the bar, in characters
constexpr absl::Duration kPatience = absl::Milliseconds(200);
constexpr absl::Duration kInterval = absl::Milliseconds(100);

}  // namespace

ProgressBar::ProgressBar(absl::string_view label, std::FILE* stream)
    : label_(label),
      stream_(stream),
      visible_(isatty(fileno(stream)) == 1),
      interval_(kInterval),
      next_draw_(absl::Now() + kPatience) {}

ProgressBar ProgressBar::AlwaysDrawn(absl::string_view label,
                                     std::FILE* stream) {
  ProgressBar bar(label, stream);
  bar.visible_ = true;
  bar.interval_ = absl::ZeroDuration();
  bar.next_draw_ = absl::InfinitePast();
  return bar;
}

void ProgressBar::Update(int64_t done, int64_t total) {
  if (!visible_ || total <= 0) return;
  const absl::Time now = absl::Now();
  if (now < next_draw_) return;
  next_draw_ = now + interval_;
  drawn_ = true;
  const double share = std::clamp(
      static_cast<double>(done) / static_cast<double>(total), 0., 1.);
  const int filled = static_cast<int>(share * kWidth);
  const std::string bar =
      std::string(filled, '#') + std::string(kWidth - filled, '.');
  std::fprintf(stream_, "\r%s [%s] %3d%%", label_.c_str(), bar.c_str(),
               static_cast<int>(share * 100));
  // Behind it what an earlier note has left is cleared (ECMA-48 EL).
  if (!note_.empty()) std::fprintf(stream_, "  %s\x1b[K", note_.c_str());
  std::fflush(stream_);
}

void ProgressBar::Finish() {
  if (!drawn_) return;
  // Back to the line's start, and clear to its end (ECMA-48 EL).
  std::fputs("\r\x1b[K", stream_);
  std::fflush(stream_);
  drawn_ = false;
}

}  // namespace nibble
