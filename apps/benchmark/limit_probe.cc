#include "apps/benchmark/limit_probe.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/log/check.h"
#include "absl/types/span.h"
#include "apps/benchmark/statistics.h"

namespace nibble {
namespace {

// Of multiplies in a sample: their median leaves out a piece whose threads had
// to wait for their cores.
constexpr int kLeastPieces = 3;

constexpr int64_t kMinReadBytes = int64_t{256} << 20;

// How many multiplies all threads do in effort.seconds; at most
// effort.most_macs.
int64_t Calibrate(MultiplyKind kind, const MultiplyEffort& effort,
                  ThreadPool& pool) {
  // The shortest of a few: a thread that had to wait for its core makes any
  // amount of work look slow.
  constexpr int kTries = 4;
  for (int64_t macs = 100'000;; macs *= 4) {
    int64_t done = 0;
    double seconds = TimeMultiplies(kind, macs, pool, done);
    for (int i = 1; i < kTries; ++i) {
      seconds = std::min(seconds, TimeMultiplies(kind, macs, pool, done));
    }
    // What was long enough to be timed is scaled to what is wanted.
    if (seconds > effort.seconds / 4) {
      const double wanted =
          static_cast<double>(done) * effort.seconds / seconds;
      return std::min(static_cast<int64_t>(wanted), effort.most_macs);
    }
    if (macs >= effort.most_macs / 4) return effort.most_macs;
  }
}

}  // namespace

int64_t ReadBufferBytes(const SystemInfo& system, int64_t available_bytes) {
  const int64_t wanted =
      std::max(kMinReadBytes, 8 * LastLevelCacheBytes(system));
  const int64_t most = std::max<int64_t>(available_bytes / 4, 1 << 20);
  return std::min(wanted, most) / 64 * 64;
}

std::vector<MultiplyPeak> MeasurePeaks(ThreadPool& pool,
                                       const MultiplyEffort& effort) {
  constexpr int kRuns = 9;
  std::vector<MultiplyPeak> peaks;
  for (const MultiplyKind kind :
       {MultiplyKind::kInt8Dot, MultiplyKind::kBF16Dot, MultiplyKind::kF32}) {
    if (!HasMultiply(kind)) continue;
    const int64_t macs = Calibrate(kind, effort, pool);
    std::vector<double> rates;
    for (int run = 0; run < kRuns; ++run) {
      int64_t done = 0;
      const double seconds = TimeMultiplies(kind, macs, pool, done);
      rates.push_back(static_cast<double>(done) / seconds);
    }
    peaks.push_back({MultiplyName(kind), Summarize(rates).max});
  }
  return peaks;
}

LimitProbe::LimitProbe(MultiplyKind kind, int64_t read_bytes, ThreadPool& pool)
    : kind_(kind),
      pool_(pool),
      buffer_(static_cast<size_t>(read_bytes), AlignedBuffer::Fill::kZero),
      macs_(Calibrate(kind, {}, pool)) {}

void LimitProbe::Sample(double work_seconds) {
  const double read_seconds =
      TimeRead(absl::MakeConstSpan(buffer_.data(), buffer_.size()), pool_);
  read_rates_.push_back(static_cast<double>(read_bytes()) / read_seconds);
  // In short pieces, as they were calibrated.
  double multiplied_seconds = 0;
  for (int pieces = 0;
       pieces < kLeastPieces || multiplied_seconds < work_seconds / 10;
       ++pieces) {
    int64_t done = 0;
    const double seconds = TimeMultiplies(kind_, macs_, pool_, done);
    multiply_rates_.push_back(static_cast<double>(done) / seconds);
    multiplied_seconds += seconds;
  }
}

LimitProbe::Rates LimitProbe::Take() {
  CHECK(!read_rates_.empty()) << "no sample was taken";
  Rates rates;
  rates.read_bytes_per_second = Summarize(read_rates_).median;
  rates.macs_per_second = Summarize(multiply_rates_).median;
  read_rates_.clear();
  multiply_rates_.clear();
  return rates;
}

}  // namespace nibble
