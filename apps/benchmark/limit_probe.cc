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
  constexpr int kRuns = 5;
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
    peaks.push_back({MultiplyName(kind), Summarize(rates).median});
  }
  return peaks;
}

LimitProbe::LimitProbe(MultiplyKind kind, int64_t read_bytes, ThreadPool& pool)
    : kind_(kind),
      pool_(pool),
      buffer_(static_cast<size_t>(read_bytes), AlignedBuffer::Fill::kZero),
      macs_(Calibrate(kind, {}, pool)) {}

void LimitProbe::Sample(double work_seconds) {
  read_seconds_ +=
      TimeRead(absl::MakeConstSpan(buffer_.data(), buffer_.size()), pool_);
  ++reads_;
  // In short pieces, as they were calibrated.
  const double enough = multiply_seconds_ + work_seconds / 10;
  do {
    int64_t done = 0;
    multiply_seconds_ += TimeMultiplies(kind_, macs_, pool_, done);
    multiplied_ += done;
  } while (multiply_seconds_ < enough);
}

LimitProbe::Rates LimitProbe::Take() {
  CHECK_GT(reads_, 0);
  Rates rates;
  rates.read_bytes_per_second =
      static_cast<double>(reads_ * read_bytes()) / read_seconds_;
  rates.macs_per_second = static_cast<double>(multiplied_) / multiply_seconds_;
  read_seconds_ = multiply_seconds_ = 0;
  reads_ = multiplied_ = 0;
  return rates;
}

}  // namespace nibble
