#include "quantization/calibration/text.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "nlohmann/json.hpp"
#include "tensor/io/utf8.h"
#include "tensor/mapped_file.h"

namespace nibble {
namespace {

absl::Status Error(const std::string& path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

// The first bytes of a file, cut behind a whole line where they are not all.
absl::string_view FirstLines(absl::Span<const std::byte> bytes) {
  const absl::string_view all(reinterpret_cast<const char*>(bytes.data()),
                              bytes.size());
  constexpr size_t kMax = kMaxCalibrationBytes;
  if (all.size() <= kMax) return all;
  const size_t end = all.rfind('\n', kMax - 1);
  if (end != absl::string_view::npos) return all.substr(0, end + 1);
  // One line: between two characters.
  size_t cut = kMax;
  while (cut > kMax - 4 && (all[cut] & 0xC0) == 0x80) --cut;
  return all.substr(0, cut);
}

absl::Status CheckIsText(const std::string& path, absl::string_view bytes) {
  const size_t nul = bytes.find('\0');
  if (nul != absl::string_view::npos) {
    return Error(path, absl::StrCat("holds a zero byte (at ", nul,
                                    "), so it is no UTF-8 text; give plain "
                                    "text, or JSON lines with \"text\""));
  }
  if (IsUtf8(bytes)) return absl::OkStatus();
  int64_t line = 1;
  while (!bytes.empty()) {
    const size_t end = std::min(bytes.find('\n'), bytes.size() - 1);
    if (!IsUtf8(bytes.substr(0, end + 1))) break;
    bytes.remove_prefix(end + 1);
    ++line;
  }
  return Error(path, absl::StrCat("line ", line,
                                  " is not UTF-8; convert the file (iconv -t "
                                  "UTF-8)"));
}

bool IsBlank(absl::string_view text) {
  return absl::StripAsciiWhitespace(text).empty();
}

absl::StatusOr<std::vector<std::string>> ReadLines(const std::string& path,
                                                   absl::string_view bytes) {
  std::vector<std::string> texts;
  for (int64_t number = 1; !bytes.empty(); ++number) {
    const size_t end = std::min(bytes.find('\n'), bytes.size() - 1);
    const absl::string_view line = bytes.substr(0, end + 1);
    bytes.remove_prefix(end + 1);
    if (IsBlank(line)) continue;
    const nlohmann::json object =
        nlohmann::json::parse(line.begin(), line.end(), /*cb=*/nullptr,
                              /*allow_exceptions=*/false);
    if (!object.is_object() || !object.contains("text") ||
        !object["text"].is_string()) {
      return Error(path,
                   absl::StrCat("line ", number,
                                ": expected an object with a string \"text\""));
    }
    std::string text = object["text"].get<std::string>();
    if (!IsBlank(text)) texts.push_back(std::move(text));
  }
  return texts;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ReadCalibrationText(
    const std::string& path) {
  const absl::StatusOr<std::shared_ptr<const MappedFile>> file =
      MappedFile::Open(path);
  if (!file.ok()) return file.status();
  absl::string_view bytes = FirstLines((*file)->bytes());
  const absl::Status is_text = CheckIsText(path, bytes);
  if (!is_text.ok()) return is_text;
  absl::ConsumePrefix(&bytes, "\xEF\xBB\xBF");
  std::vector<std::string> texts;
  if (absl::EndsWithIgnoreCase(path, ".jsonl")) {
    absl::StatusOr<std::vector<std::string>> lines = ReadLines(path, bytes);
    if (!lines.ok()) return lines.status();
    texts = *std::move(lines);
  } else if (!IsBlank(bytes)) {
    texts.push_back(std::string(bytes));
  }
  const absl::Status unchanged = (*file)->CheckUnchanged();
  if (!unchanged.ok()) return unchanged;
  if (texts.empty()) {
    return Error(path,
                 "has no text in it; give text to measure activations on");
  }
  return texts;
}

std::vector<int32_t> EncodeTexts(absl::Span<const std::string> texts,
                                 const Tokenizer& tokenizer) {
  Tokenizer::EncodeOptions options;
  options.add_special_tokens = false;
  options.parse_special = false;
  std::vector<int32_t> ids;
  for (const std::string& text : texts) {
    const std::vector<int32_t> more = tokenizer.Encode(text, options);
    ids.insert(ids.end(), more.begin(), more.end());
  }
  return ids;
}

}  // namespace nibble
