#include "quantization/calibration/windows.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "quantization/calibration/digest.h"

namespace nibble {
namespace {

// Bounds that keep the hidden states of a small model within memory and every
// product of sizes far inside int64.
constexpr int64_t kMaxSamples = 1 << 20;
constexpr int64_t kMaxLength = 1 << 20;

// SplitMix64 (Steele, Lea, Flood 2014): the same numbers everywhere, which the
// standard library's distributions do not promise.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  // Below `bound`. The bias of a remainder of 64 bits is of no account here.
  uint64_t Below(uint64_t bound) { return Next() % bound; }

 private:
  uint64_t Next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
  }

  uint64_t state_;
};

// `count` of [0, total), ascending.
std::vector<int64_t> Draw(int64_t total, int64_t count, uint64_t seed) {
  std::vector<int64_t> all(static_cast<size_t>(total));
  std::iota(all.begin(), all.end(), 0);
  Random random(seed);
  for (int64_t i = 0; i < count; ++i) {
    const auto left = static_cast<uint64_t>(total - i);
    std::swap(all[static_cast<size_t>(i)],
              all[static_cast<size_t>(i) + random.Below(left)]);
  }
  all.resize(static_cast<size_t>(count));
  std::sort(all.begin(), all.end());
  return all;
}

absl::Status CheckOptions(const CalibrationOptions& options) {
  if (options.samples < 1 || options.samples > kMaxSamples) {
    return absl::InvalidArgumentError(
        absl::StrCat("samples is ", options.samples, "; it must be between 1 ",
                     "and ", kMaxSamples));
  }
  if (options.length < 2 || options.length > kMaxLength) {
    return absl::InvalidArgumentError(
        absl::StrCat("length is ", options.length, "; it must be between 2 ",
                     "and ", kMaxLength, " tokens"));
  }
  return absl::OkStatus();
}

std::string DigestOf(const CalibrationWindows& windows) {
  Digest digest;
  digest.Add(windows.length);
  for (const std::vector<int32_t>& window : windows.windows) {
    for (const int32_t id : window) digest.Add(int64_t{id});
  }
  return digest.Hex();
}

}  // namespace

absl::StatusOr<CalibrationWindows> ChooseWindows(
    absl::Span<const int32_t> text, const CalibrationOptions& options) {
  const absl::Status checked = CheckOptions(options);
  if (!checked.ok()) return checked;
  const int64_t tokens = static_cast<int64_t>(text.size());
  const int64_t taken = options.length - (options.bos.has_value() ? 1 : 0);
  const int64_t total = tokens / taken;
  if (total == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "has ", tokens, " tokens, too few for one window of ", options.length,
        "; give a text of at least ", taken, " tokens, better of ",
        taken * options.samples, ", or a smaller length"));
  }
  CalibrationWindows result;
  result.length = options.length;
  result.text_tokens = tokens;
  for (const int64_t window :
       Draw(total, std::min(total, options.samples), options.seed)) {
    std::vector<int32_t> ids;
    ids.reserve(static_cast<size_t>(options.length));
    if (options.bos.has_value()) ids.push_back(*options.bos);
    const absl::Span<const int32_t> piece = text.subspan(
        static_cast<size_t>(window * taken), static_cast<size_t>(taken));
    ids.insert(ids.end(), piece.begin(), piece.end());
    result.windows.push_back(std::move(ids));
  }
  result.digest = DigestOf(result);
  return result;
}

}  // namespace nibble
