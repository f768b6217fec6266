#include <sys/stat.h>

#include <cstddef>
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
#include "absl/types/span.h"
#include "nlohmann/json.hpp"
#include "runtime/chat_template.h"
#include "tensor/io/gguf.h"
#include "tensor/io/packed_file.h"
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

// The template of a tokenizer_config.json called `name`; nullopt without one.
absl::StatusOr<std::optional<Source>> FindInConfig(absl::string_view text,
                                                   const std::string& name) {
  const Json config = Json::parse(text, /*cb=*/nullptr,
                                  /*allow_exceptions=*/false);
  if (!config.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": not a JSON object"));
  }
  std::optional<std::string> found = TemplateOf(config);
  if (!found.has_value()) return std::nullopt;
  return Source{*std::move(found), name};
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
  absl::StatusOr<std::optional<Source>> found =
      FindInConfig(**text, config_path);
  if (!found.ok()) return found.status();
  if (!found->has_value()) return NoTemplate(folder);
  return **std::move(found);
}

absl::StatusOr<Source> FindInGguf(const GgufFile& file,
                                  const std::string& path) {
  if (!file.HasKey(kGgufKey)) return NoTemplate(path);
  absl::StatusOr<std::string> text = file.GetString(kGgufKey);
  if (!text.ok()) return text.status();
  return Source{*std::move(text), path};
}

// Among the embedded files, by the same names as in a folder.
absl::StatusOr<Source> FindInPacked(const PackedFile& file) {
  const std::string& path = file.path();
  const auto jinja = file.FindFile("chat_template.jinja");
  if (jinja.ok()) {
    if (jinja->size() > kMaxChatTemplateBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, "/chat_template.jinja: ", jinja->size(),
                       " bytes; the limit is ", kMaxChatTemplateBytes));
    }
    return Source{std::string(*jinja), path + "/chat_template.jinja"};
  }
  const auto config = file.FindFile("tokenizer_config.json");
  if (config.ok()) {
    absl::StatusOr<std::optional<Source>> found =
        FindInConfig(*config, path + "/tokenizer_config.json");
    if (!found.ok()) return found.status();
    if (found->has_value()) return **std::move(found);
  }
  const auto metadata = file.FindFile("metadata.gguf");
  if (!metadata.ok()) return NoTemplate(path);
  const absl::StatusOr<std::unique_ptr<GgufFile>> gguf = GgufFile::Parse(
      path + "/metadata.gguf",
      absl::MakeConstSpan(reinterpret_cast<const std::byte*>(metadata->data()),
                          metadata->size()));
  if (!gguf.ok()) return gguf.status();
  return FindInGguf(**gguf, path);
}

std::string MagicOf(const std::string& path) {
  std::string magic(4, '\0');
  std::ifstream(path, std::ios::binary).read(magic.data(), 4);
  return magic;
}

absl::StatusOr<Source> FindTemplate(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
    return FindInFolder(path);
  }
  const std::string magic = MagicOf(path);
  if (magic == "GGUF") {
    absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::Open(path);
    if (!file.ok()) return file.status();
    return FindInGguf(**file, path);
  }
  if (magic == "NIBB") {
    absl::StatusOr<std::shared_ptr<const PackedFile>> file =
        PackedFile::Open(path);
    if (!file.ok()) return file.status();
    return FindInPacked(**file);
  }
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
