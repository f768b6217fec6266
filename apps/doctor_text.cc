#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "apps/doctor_report.h"
#include "runtime/memory.h"

namespace nibble {
namespace {

void AppendLine(absl::string_view name, absl::string_view value,
                std::string* text) {
  absl::StrAppendFormat(text, "%-15s%s\n", name, value);
}

std::string Counted(int64_t count, absl::string_view noun) {
  return absl::StrCat(count, " ", noun, count == 1 ? "" : "s");
}

// A power of two as it is called.
std::string CacheSize(int64_t bytes) {
  if (bytes >= 1 << 20 && bytes % (1 << 20) == 0) {
    return absl::StrCat(bytes >> 20, " MiB");
  }
  return absl::StrCat(bytes >> 10, " KiB");
}

void AppendIsas(const DoctorReport& report, std::string* text) {
  AppendLine("ISA", absl::StrCat(report.isa, ", ", report.isa_why), text);
  for (const IsaFinding& isa : report.isas) {
    AppendLine(absl::StrCat("  ", isa.name),
               isa.supported ? "supported" : absl::StrCat("no: ", isa.reason),
               text);
  }
}

std::string CoresLine(const DoctorReport& report) {
  std::string line = absl::StrCat(
      report.cores,
      " to compute on: ", Counted(report.system.online_cpus, "CPU"),
      " online, ", report.affinity_cpus, " in the affinity mask, ");
  if (report.quota.has_value()) {
    absl::StrAppend(&line, "a control group's quota of ", *report.quota);
  } else {
    absl::StrAppend(&line, "no quota of a control group");
  }
  return line;
}

void AppendSystem(const SystemInfo& system, std::string* text) {
  for (const CacheInfo& cache : system.caches) {
    const char* kind = cache.type == "Data"          ? "d"
                       : cache.type == "Instruction" ? "i"
                                                     : "";
    AppendLine(absl::StrCat("Cache L", cache.level, kind),
               absl::StrCat(CacheSize(cache.bytes), ", CPUs ", cache.shared_by),
               text);
  }
  for (const NumaNode& node : system.nodes) {
    AppendLine(
        absl::StrCat("NUMA node ", node.number),
        absl::StrCat("CPUs ", node.cpus, ", ", FormatBytes(node.memory_bytes)),
        text);
  }
  std::string pages = system.huge_pages;
  if (pages == "always" || pages == "madvise") {
    absl::StrAppend(&pages, ": weights and caches get them");
  } else if (pages == "never") {
    absl::StrAppend(&pages, ": large reads pay for more TLB misses");
  } else {
    pages = "unknown";
  }
  AppendLine("Huge pages", pages, text);
}

void AppendMeasured(const DoctorReport& report, std::string* text) {
  std::string read =
      absl::StrFormat("%.1f GB/s with %s", report.read_bytes_per_second / 1e9,
                      Counted(report.threads, "thread"));
  if (report.threads > 1) {
    absl::StrAppendFormat(&read, ", %.1f with one",
                          report.one_thread_read_bytes_per_second / 1e9);
  }
  AppendLine("Reads", read, text);
  for (const MultiplyPeak& peak : report.peaks) {
    AppendLine("Multiplies",
               absl::StrFormat("%.0f GMAC/s, %s", peak.macs_per_second / 1e9,
                               peak.name),
               text);
  }
  const ModelForecast& forecast = report.forecast;
  absl::StrAppendFormat(
      text,
      "\nAt these limits %s in INT4 (groups of %d, bf16 head, %s) would take\n"
      "  %.1f ms a token, %.1f tokens/s (its bytes by the bandwidth), and\n"
      "  read a prompt at %.0f tokens/s (its multiplies by their peak).\n"
      "No engine does better here; bench measures how close this one comes.\n",
      forecast.shape, forecast.group_size, FormatBytes(forecast.weight_bytes),
      forecast.decode_milliseconds, 1e3 / forecast.decode_milliseconds,
      forecast.prefill_tokens_per_second);
  if (forecast.weight_bytes > report.available_bytes) {
    absl::StrAppend(text, "It would not fit into the memory that is free.\n");
  }
}

Json SystemJson(const SystemInfo& system) {
  Json caches = Json::array();
  for (const CacheInfo& cache : system.caches) {
    caches.push_back({{"level", cache.level},
                      {"type", cache.type},
                      {"bytes", cache.bytes},
                      {"cpus", cache.shared_by}});
  }
  Json nodes = Json::array();
  for (const NumaNode& node : system.nodes) {
    nodes.push_back({{"node", node.number},
                     {"cpus", node.cpus},
                     {"memory_bytes", node.memory_bytes}});
  }
  return {{"online_cpus", system.online_cpus},
          {"caches", caches},
          {"numa_nodes", nodes},
          {"huge_pages", system.huge_pages},
          {"memory_bytes", system.memory_bytes}};
}

Json MeasuredJson(const DoctorReport& report) {
  Json peaks = Json::object();
  for (const MultiplyPeak& peak : report.peaks) {
    peaks[peak.name] = peak.macs_per_second / 1e9;
  }
  return {{"threads", report.threads},
          {"read_gigabytes_per_second", report.read_bytes_per_second / 1e9},
          {"one_thread_read_gigabytes_per_second",
           report.one_thread_read_bytes_per_second / 1e9},
          {"peak_gigamacs_per_second", report.peaks[0].macs_per_second / 1e9},
          {"multiply", report.peaks[0].name},
          {"peaks", peaks}};
}

}  // namespace

std::string DoctorText(const DoctorReport& report) {
  std::string text;
  AppendLine("CPU", report.cpu, &text);
  AppendIsas(report, &text);
  AppendLine("Cores", CoresLine(report), &text);
  AppendSystem(report.system, &text);
  AppendLine("Memory",
             absl::StrCat(FormatBytes(report.available_bytes), " free of ",
                          FormatBytes(report.system.memory_bytes)),
             &text);
  AppendMeasured(report, &text);
  return text;
}

Json DoctorJson(const DoctorReport& report) {
  Json isas = Json::object();
  for (const IsaFinding& isa : report.isas) {
    isas[isa.name] = {{"supported", isa.supported}, {"reason", isa.reason}};
  }
  const ModelForecast& forecast = report.forecast;
  return {
      {"cpu", report.cpu},
      {"isa", report.isa},
      {"isa_why", report.isa_why},
      {"isas", isas},
      {"cores", report.cores},
      {"affinity_cpus", report.affinity_cpus},
      {"cgroup_quota",
       report.quota.has_value() ? Json(*report.quota) : Json(nullptr)},
      {"system", SystemJson(report.system)},
      {"available_bytes", report.available_bytes},
      {"measured", MeasuredJson(report)},
      {"forecast",
       {{"shape", forecast.shape},
        {"weights", "int4"},
        {"group_size", forecast.group_size},
        {"weight_bytes", forecast.weight_bytes},
        {"decode_ms_per_token", forecast.decode_milliseconds},
        {"prefill_tokens_per_second", forecast.prefill_tokens_per_second}}}};
}

}  // namespace nibble
