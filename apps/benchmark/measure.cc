#include "apps/benchmark/measure.h"

#include <chrono>  // NOLINT: wall time is what is measured
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace nibble {
namespace {

using Clock = std::chrono::steady_clock;

// Work at most this long before the limits are looked at again.
constexpr double kSecondsBetweenSamples = 0.02;

// What the repetitions of one work gave.
struct Samples {
  std::vector<double> milliseconds;
  std::vector<double> read_rates;
  std::vector<double> multiply_rates;
};

absl::StatusOr<double> RunUnit(const Work& work,
                               const MeasureOptions& options) {
  if (options.cancelled && options.cancelled()) {
    return absl::CancelledError("interrupted");
  }
  return work.run();
}

// One repetition: units and samples by turns, samples at both ends.
absl::Status Repeat(const Work& work, LimitProbe& probe,
                    const MeasureOptions& options, Samples& samples) {
  double seconds = 0;
  int64_t units = 0;
  const Clock::time_point start = Clock::now();
  const auto finished = [&] {
    if (work.units > 0) return units >= work.units;
    if (seconds >= options.min_seconds) return true;
    const std::chrono::duration<double> elapsed = Clock::now() - start;
    return units > 0 && elapsed.count() >= options.max_seconds;
  };
  probe.Sample();
  while (!finished()) {
    double since_sample = 0;
    for (int64_t i = 0; i < work.units_between_samples && !finished() &&
                        since_sample < kSecondsBetweenSamples;
         ++i) {
      const absl::StatusOr<double> unit = RunUnit(work, options);
      if (!unit.ok()) return unit.status();
      since_sample += *unit;
      seconds += *unit;
      ++units;
    }
    probe.Sample(since_sample);
  }
  const LimitProbe::Rates rates = probe.Take();
  samples.milliseconds.push_back(seconds * 1e3 / static_cast<double>(units));
  samples.read_rates.push_back(rates.read_bytes_per_second);
  samples.multiply_rates.push_back(rates.macs_per_second);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<Measurement>> MeasureInTurn(
    absl::Span<const Work> works, LimitProbe& probe,
    const MeasureOptions& options) {
  for (const Work& work : works) {
    const absl::StatusOr<double> warm_up = RunUnit(work, options);
    if (!warm_up.ok()) return warm_up.status();
  }
  std::vector<Samples> samples(works.size());
  for (int repetition = 0; repetition < options.repetitions; ++repetition) {
    for (size_t i = 0; i < works.size(); ++i) {
      const absl::Status status = Repeat(works[i], probe, options, samples[i]);
      if (!status.ok()) return status;
    }
  }
  std::vector<Measurement> measured;
  for (const Samples& s : samples) {
    Measurement measurement;
    measurement.milliseconds = Summarize(s.milliseconds);
    measurement.read_bytes_per_second = Summarize(s.read_rates).median;
    measurement.macs_per_second = Summarize(s.multiply_rates).median;
    measured.push_back(measurement);
  }
  return measured;
}

}  // namespace nibble
