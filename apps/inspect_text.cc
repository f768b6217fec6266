#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "apps/common/json.h"
#include "apps/inspect_report.h"

namespace nibble {
namespace {

// `text` with control characters escaped: what a file says must not move the
// cursor or add lines to the report.
std::string Printable(absl::string_view text) {
  std::string printable;
  for (const char c : text) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) {
      absl::StrAppend(&printable, absl::CHexEscape(absl::string_view(&c, 1)));
    } else {
      printable.push_back(c);
    }
  }
  return printable;
}

// A string as it is, anything else as JSON writes it.
std::string Plain(const Json& value) {
  return Printable(value.is_string() ? value.get<std::string>()
                                     : JsonLine(value));
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

// How the scales of an integer matrix are shared.
std::string GroupText(const Json& tensor) {
  if (!tensor.contains("group_size")) return "";
  return absl::StrCat("  groups of ", tensor["group_size"].get<int64_t>(),
                      tensor["symmetric"].get<bool>()  ? ", symmetric"
                      : tensor["minimums"].get<bool>() ? ", minimums"
                                                       : ", zero points",
                      tensor["wide_scales"].get<bool>() ? ", f32 scales" : "");
}

void AppendFiles(std::string* text, const Json& files) {
  absl::StrAppend(text, "\nembedded files\n");
  for (const Json& file : files) {
    absl::StrAppendFormat(text, "  %12d bytes  %s\n",
                          file["bytes"].get<int64_t>(), Plain(file["name"]));
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
                          Plain(tensor["name"]));
    if (tensor.contains("error")) {
      absl::StrAppend(text, Plain(tensor["error"]), "\n");
      continue;
    }
    absl::StrAppendFormat(text, "%-5s %-16s %12d bytes%s\n",
                          tensor["dtype"].get<std::string>(),
                          JsonLine(tensor["shape"]),
                          tensor["bytes"].get<int64_t>(), GroupText(tensor));
  }
}

}  // namespace

std::string InspectText(const Json& report) {
  std::string text =
      absl::StrCat(Plain(report["path"]), " (", Plain(report["kind"]), ")\n");
  for (const char* part : {"configuration", "quantization", "metadata"}) {
    if (report.contains(part)) AppendSection(&text, part, report[part]);
  }
  if (report.contains("tensors")) AppendTensors(&text, report["tensors"]);
  if (report.contains("files")) AppendFiles(&text, report["files"]);
  for (const char* part : {"types", "totals", "tokenizer"}) {
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
