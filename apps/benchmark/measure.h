// Repeated measurements of several kinds of work in turn, with the machine's
// limits sampled in between.
//
//   Work step;
//   step.run = [&]() -> absl::StatusOr<double> { ...; return seconds; };
//   auto measured = MeasureInTurn({step, other}, probe, {});
//   double ms = (*measured)[0].milliseconds.median;
//
// Each repetition visits every work, so that all of them see the same weather.
#ifndef NIBBLE_APPS_BENCHMARK_MEASURE_H_
#define NIBBLE_APPS_BENCHMARK_MEASURE_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "apps/benchmark/limit_probe.h"
#include "apps/benchmark/statistics.h"

namespace nibble {

struct Work {
  // Does one unit and returns the seconds that count.
  std::function<absl::StatusOr<double>()> run;
  // Units of a repetition; 0: as many as take MeasureOptions::min_seconds, or
  // as fit into max_seconds together with the samples between them.
  int64_t units = 0;
  // Most units between two samples of the limits. A sample also reads so much
  // memory that nothing of the work stays in a cache.
  int64_t units_between_samples = 8;
};

struct MeasureOptions {
  int repetitions = 5;
  // Long against the clock's and the scheduler's grain.
  double min_seconds = 0.05;
  // For work so short that a repetition is mostly samples.
  double max_seconds = 0.2;
  // Asked before each unit: true ends with a Cancelled error.
  std::function<bool()> cancelled;
};

struct Measurement {
  Summary milliseconds;  // of one unit: over repetitions, of their mean units
  double read_bytes_per_second = 0;  // medians over repetitions
  double macs_per_second = 0;
};

// After one unit of each that does not count. The first error of a `run` ends
// it. REQUIRES: repetitions >= 1.
absl::StatusOr<std::vector<Measurement>> MeasureInTurn(
    absl::Span<const Work> works, LimitProbe& probe,
    const MeasureOptions& options);

}  // namespace nibble

#endif  // NIBBLE_APPS_BENCHMARK_MEASURE_H_
