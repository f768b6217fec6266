// bench: how fast a model runs, beside what the machine can do at most.

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "apps/bench_engine.h"
#include "apps/bench_flags.h"
#include "apps/benchmark/bench_page.h"
#include "apps/benchmark/bench_session.h"
#include "apps/benchmark/engine_phases.h"
#include "apps/benchmark/limit_probe.h"
#include "apps/benchmark/product_phase.h"
#include "apps/benchmark/report.h"
#include "apps/benchmark/statistics.h"
#include "apps/benchmark/system_info.h"
#include "apps/common/app.h"
#include "apps/common/interrupt.h"
#include "apps/common/json.h"
#include "apps/common/model_flag.h"
#include "kernels/cpu.h"
#include "kernels/machine_limits.h"
#include "kernels/thread_pool.h"
#include "runtime/engine.h"
#include "runtime/memory.h"
#include "tensor/io/atomic_file.h"

namespace nibble {
namespace {

// On a terminal, what is being measured, on a line of its own that is erased.
void ShowProgress(const std::string& what) {
  if (isatty(fileno(stderr)) == 0) return;
  std::fprintf(stderr, "\r\033[K%s", what.c_str());
  std::fflush(stderr);
}

// Before any row: what is known of the machine.
BenchMachine DescribeMachine(const SystemInfo& system, const LimitProbe& probe,
                             ThreadPool& pool) {
  BenchMachine machine;
  machine.cpu = CpuModelName();
  machine.isa = std::string(IsaName(ActiveIsa()));
  machine.threads = pool.threads();
  machine.multiply = MultiplyName(probe.kind());
  machine.last_level_cache_bytes = LastLevelCacheBytes(system);
  machine.read_buffer_bytes = probe.read_bytes();
  machine.huge_pages = system.huge_pages;
  machine.peaks = MeasurePeaks(pool);
  return machine;
}

// The machine's limits from those that rows measured beside them.
void SummarizeLimits(BenchReport& report) {
  std::vector<double> read, peak;
  for (const BenchRow& row : report.rows) {
    read.push_back(row.read_bytes_per_second);
    peak.push_back(row.peak_macs_per_second);
  }
  BenchMachine& machine = report.machine;
  machine.read_bytes_per_second = Summarize(read).median;
  machine.peak_macs_per_second = Summarize(peak).median;
  for (MultiplyPeak& multiply : machine.peaks) {
    if (multiply.name == machine.multiply) {
      multiply.macs_per_second = machine.peak_macs_per_second;
    }
  }
}

absl::Status RunPhases(const BenchPlan& plan, BenchSession& session) {
  absl::Status status = MeasureProducts(session, plan.products, plan.rows);
  if (status.ok()) status = MeasurePrefill(session, plan.prompts);
  if (status.ok() && plan.decode.steps > 0) {
    status = MeasureDecode(session, plan.decode);
  }
  ShowProgress("");
  if (!absl::IsCancelled(status)) return status;
  // What was measured until then is as good as ever.
  session.report.skipped.push_back("interrupted: what would have come next");
  return absl::OkStatus();
}

absl::StatusOr<BenchReport> Measure(const BenchPlan& plan, Engine& engine) {
  const InterruptScope interrupt;
  const SystemInfo system = ReadSystemInfo("/");
  LimitProbe probe(MultiplyOf(engine.decoder()),
                   ReadBufferBytes(system, AvailableMemoryBytes()),
                   engine.pool());
  BenchReport report;
  report.machine = DescribeMachine(system, probe, engine.pool());
  report.model = DescribeModel(
      engine, plan.shape.empty() ? ModelNameFromFlag() : plan.shape);
  BenchSession session = {engine, probe,  LastLevelCacheBytes(system),
                          {},     report, ShowProgress};
  session.measure.repetitions = plan.repetitions;
  session.measure.cancelled = [&] { return interrupt.interrupted(); };
  const absl::Status status = RunPhases(plan, session);
  if (!status.ok()) return status;
  if (report.rows.empty()) {
    return absl::FailedPreconditionError(
        "nothing was measured: " + (report.skipped.empty()
                                        ? std::string("no row was asked for")
                                        : report.skipped[0]));
  }
  SummarizeLimits(report);
  return report;
}

absl::Status BenchMain(absl::Span<const std::string>) {
  const absl::StatusOr<BenchPlan> plan = BenchPlanFromFlags();
  if (!plan.ok()) return plan.status();
  // Now, since a plot that cannot be written is known only minutes later.
  std::optional<AtomicFile> plot;
  if (!plan->plot.empty()) {
    absl::StatusOr<AtomicFile> file = AtomicFile::Create(plan->plot);
    if (!file.ok()) return file.status();
    plot.emplace(*std::move(file));
  }
  ShowProgress(plan->shape.empty() ? "loading" : "making weights");
  const absl::StatusOr<std::unique_ptr<Engine>> engine = OpenBenchEngine(*plan);
  ShowProgress("");
  if (!engine.ok()) return engine.status();
  const absl::StatusOr<BenchReport> report = Measure(*plan, **engine);
  if (!report.ok()) return report.status();
  if (plan->json) {
    PrintJsonLine(ReportJson(*report));
  } else {
    std::fputs(ReportText(*report).c_str(), stdout);
  }
  if (!plot.has_value()) return absl::OkStatus();
  const absl::Status written = plot->Append(BenchPage(*report));
  return written.ok() ? plot->Commit() : written;
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  return nibble::RunApp(
      argc, argv,
      {"bench",
       "how fast a model runs, as shares of what the machine can do at most, "
       "measured in the same run."},
      nibble::BenchMain);
}
