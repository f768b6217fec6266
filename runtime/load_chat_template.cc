#include <sys/stat.h>

#include <cstdint>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"
#include "runtime/chat_template.h"
#include "tensor/io/gguf.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

// tokenizer_config.json of published models reaches a few hundred kB, for its
// list of added tokens.
constexpr size_t kMaxConfigBytes = 16 << 20;
constexpr absl::string_view kGgufKey = "tokenizer.chat_template";

struct Source {
  std::string text;
  std::string name;  // where it came from
};

absl::Status NoTemplate(const std::string& path) {
  return absl::NotFoundError(absl::StrCat(
      path,
      ": this model has no chat template (it is a base model): give it "
      "text to continue instead"));
}

// nullopt where there is no such file.
absl::StatusOr<std::optional<std::string>> ReadFile(const std::string& path,
                                                    size_t limit) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return std::nullopt;
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a file"));
  }
  if (static_cast<uint64_t>(info.st_size) > limit) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", info.st_size, " bytes; the limit is ", limit));
  }
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) {
    return absl::PermissionDeniedError(absl::StrCat(path, ": cannot read"));
  }
  return text.str();
}

// `chat_template` is a string, or a list of {"name", "template"} of which
// "default" is the one for conversations.
std::optional<std::string> TemplateOf(const Json& config) {
  const auto it = config.find("chat_template");
  if (it == config.end()) return std::nullopt;
  if (it->is_string()) return it->get<std::string>();
  if (!it->is_array()) return std::nullopt;
  for (const Json& entry : *it) {
    if (!entry.is_object()) continue;
    const auto name = entry.find("name"), text = entry.find("template");
    if (name != entry.end() && *name == "default" && text != entry.end() &&
        text->is_string()) {
      return text->get<std::string>();
    }
  }
  return std::nullopt;
}

absl::StatusOr<Source> FindInFolder(const std::string& folder) {
  const std::string jinja = folder + "/chat_template.jinja";
  absl::StatusOr<std::optional<std::string>> text =
      ReadFile(jinja, kMaxChatTemplateBytes);
  if (!text.ok()) return text.status();
  if (text->has_value()) return Source{**text, jinja};

  const std::string config_path = folder + "/tokenizer_config.json";
  text = ReadFile(config_path, kMaxConfigBytes);
  if (!text.ok()) return text.status();
  if (!text->has_value()) return NoTemplate(folder);
  const Json config = Json::parse(**text, /*cb=*/nullptr,
                                  /*allow_exceptions=*/false);
  if (!config.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(config_path, ": not a JSON object"));
  }
  std::optional<std::string> found = TemplateOf(config);
  if (!found.has_value()) return NoTemplate(folder);
  return Source{*std::move(found), config_path};
}

absl::StatusOr<Source> FindInGguf(const std::string& path) {
  absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::Open(path);
  if (!file.ok()) return file.status();
  if (!(*file)->HasKey(kGgufKey)) return NoTemplate(path);
  absl::StatusOr<std::string> text = (*file)->GetString(kGgufKey);
  if (!text.ok()) return text.status();
  return Source{*std::move(text), path};
}

bool IsGguf(const std::string& path) {
  char magic[4] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof(magic));
  return absl::string_view(magic, sizeof(magic)) == "GGUF";
}

absl::StatusOr<Source> FindTemplate(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
    return FindInFolder(path);
  }
  if (IsGguf(path)) return FindInGguf(path);
  return NoTemplate(path);
}

std::string TextOf(std::optional<int32_t> id, const Tokenizer& tokenizer) {
  return id.has_value() ? std::string(tokenizer.TokenText(*id)) : "";
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChatTemplate>> LoadChatTemplate(
    const std::string& model_path, const Tokenizer& tokenizer) {
  absl::StatusOr<Source> source = FindTemplate(model_path);
  if (!source.ok()) return source.status();
  return ChatTemplate::Create(
      source->text, TextOf(tokenizer.bos_id(), tokenizer),
      TextOf(tokenizer.eos_id(), tokenizer), source->name);
}

}  // namespace nibble
