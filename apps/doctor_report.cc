#include "apps/doctor_report.h"

#include <sched.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "apps/benchmark/limit_probe.h"
#include "apps/benchmark/statistics.h"
#include "kernels/cpu.h"
#include "kernels/cpu_quota.h"
#include "kernels/machine_limits.h"
#include "models/decoder_config.h"
#include "models/synthetic/synthetic_model.h"
#include "models/synthetic/synthetic_shapes.h"
#include "runtime/memory.h"
#include "tensor/buffer.h"

namespace nibble {
namespace {

constexpr char kForecastShape[] = "llama-2-7b";

// Under emulation, some seconds: a buffer that first has to be touched, and
// multiplies of which each may take a microsecond.
constexpr int64_t kQuickReadBytes = int64_t{32} << 20;
constexpr MultiplyEffort kQuickEffort = {/*seconds=*/1e-4,
                                         /*most_macs=*/50'000'000};

int AffinityCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 0;
}

std::vector<IsaFinding> FindIsas() {
  std::vector<IsaFinding> found;
  for (const Isa isa : kAllIsas) {
    IsaFinding finding;
    finding.name = std::string(IsaName(isa));
    finding.supported = CpuSupports(isa);
    finding.reason = WhyUnsupported(isa);
    found.push_back(finding);
  }
  return found;
}

// The best rate of reading `buffer` with all threads of `pool`.
double ReadRate(absl::Span<const std::byte> buffer, int runs,
                ThreadPool& pool) {
  std::vector<double> rates;
  for (int run = 0; run < runs; ++run) {
    rates.push_back(static_cast<double>(buffer.size()) /
                    TimeRead(buffer, pool));
  }
  return Summarize(rates).max;
}

ModelForecast Forecast(double read_bytes_per_second, double macs_per_second) {
  const DecoderConfig config = *SyntheticShape(kForecastShape);
  const SyntheticOptions options;
  ModelForecast forecast;
  forecast.shape = kForecastShape;
  forecast.group_size = options.group_size;
  forecast.weight_bytes = *SyntheticMatrixBytes(config, options);
  forecast.decode_milliseconds =
      static_cast<double>(forecast.weight_bytes) * 1e3 / read_bytes_per_second;
  forecast.prefill_tokens_per_second =
      macs_per_second /
      static_cast<double>(config.layers * LayerWeightCount(config));
  return forecast;
}

}  // namespace

DoctorReport Examine(const std::string& root) {
  DoctorReport report;
  report.cpu = CpuModelName();
  report.isas = FindIsas();
  report.isa = std::string(IsaName(ActiveIsa()));
  report.isa_why = ActiveIsa() == BestIsa() ? "the best that is supported"
                                            : "what --isa limits it to";
  report.affinity_cpus = AffinityCpus();
  report.quota =
      CgroupCpuQuota(root + "proc/self/cgroup", root + "sys/fs/cgroup");
  report.cores = AvailableCores();
  report.system = ReadSystemInfo(root);
  report.available_bytes = AvailableMemoryBytes();
  return report;
}

void MeasureLimits(ThreadPool& pool, bool quick, DoctorReport* report) {
  int64_t bytes = ReadBufferBytes(report->system, report->available_bytes);
  if (quick) bytes = std::min(bytes, kQuickReadBytes);
  const int runs = quick ? 2 : 15;
  const AlignedBuffer buffer(static_cast<size_t>(bytes),
                             AlignedBuffer::Fill::kZero);
  const absl::Span<const std::byte> span(buffer.data(), buffer.size());
  report->threads = pool.threads();
  report->read_bytes_per_second = ReadRate(span, runs, pool);
  report->one_thread_read_bytes_per_second = report->read_bytes_per_second;
  if (pool.threads() > 1) {
    ThreadPool one(1);
    report->one_thread_read_bytes_per_second = ReadRate(span, runs, one);
  }
  report->peaks = MeasurePeaks(pool, quick ? kQuickEffort : MultiplyEffort());
  report->forecast =
      Forecast(report->read_bytes_per_second, report->peaks[0].macs_per_second);
}

}  // namespace nibble
