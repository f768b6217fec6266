#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "apps/common/json.h"
#include "apps/inspect_report.h"

namespace nibble {
namespace {

// A string as it is, anything else as JSON writes it.
std::string Plain(const Json& value) {
  return value.is_string() ? value.get<std::string>() : JsonLine(value);
}

void AppendSection(std::string* text, const char* title, const Json& fields) {
  size_t width = 0;
  for (const auto& [key, value] : fields.items()) {
    width = std::max(width, key.size());
  }
  absl::StrAppend(text, "\n", title, "\n");
  for (const auto& [key, value] : fields.items()) {
    absl::StrAppendFormat(text, "  %-*s  %s\n", static_cast<int>(width), key,
                          Plain(value));
  }
}

void AppendTensors(std::string* text, const Json& tensors) {
  absl::StrAppend(text, "\ntensors\n");
  size_t width = 0;
  for (const Json& tensor : tensors) {
    width =
        std::max(width, tensor["name"].get_ref<const std::string&>().size());
  }
  for (const Json& tensor : tensors) {
    absl::StrAppendFormat(text, "  %-*s  ", static_cast<int>(width),
                          tensor["name"].get<std::string>());
    if (tensor.contains("error")) {
      absl::StrAppend(text, tensor["error"].get<std::string>(), "\n");
      continue;
    }
    absl::StrAppendFormat(
        text, "%-5s %-16s %12d bytes\n", tensor["dtype"].get<std::string>(),
        JsonLine(tensor["shape"]), tensor["bytes"].get<int64_t>());
  }
}

}  // namespace

std::string InspectText(const Json& report) {
  std::string text =
      absl::StrCat(Plain(report["path"]), " (", Plain(report["kind"]), ")\n");
  for (const char* part : {"configuration", "metadata"}) {
    if (report.contains(part)) AppendSection(&text, part, report[part]);
  }
  if (report.contains("tensors")) AppendTensors(&text, report["tensors"]);
  for (const char* part : {"totals", "tokenizer"}) {
    if (report.contains(part)) AppendSection(&text, part, report[part]);
  }
  absl::StrAppend(&text, "\nchecks\n");
  for (const Json& check : report["checks"]) {
    absl::StrAppendFormat(&text, "  %-14s %-6s %s\n", Plain(check["check"]),
                          check["ok"].get<bool>() ? "ok" : "FAILED",
                          Plain(check["detail"]));
  }
  return text;
}

}  // namespace nibble
