#include "quantization/export/gptq_config.h"

#include <filesystem>
#include <memory>
#include <system_error>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"
#include "tensor/io/atomic_file.h"
#include "tensor/mapped_file.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

using Json = nlohmann::ordered_json;

constexpr const char* kCopied[] = {
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
};

Json SettingsJson(const GptqSettings& settings,
                  const std::string& program_version) {
  const char* format = settings.v1() ? "gptq" : "gptq_v2";
  Json json;
  json["bits"] = settings.bits;
  json["group_size"] = settings.group_size;
  json["sym"] = settings.symmetric;
  json["desc_act"] = settings.act_order;
  json["lm_head"] = false;
  json["quant_method"] = "gptq";
  json["checkpoint_format"] = format;
  json["format"] = format;
  json["pack_dtype"] = "int32";
  json["meta"] = {{"quantizer", {absl::StrCat("nibble:", program_version)}}};
  return json;
}

absl::Status Write(const std::string& path, absl::string_view text) {
  absl::StatusOr<AtomicFile> file = AtomicFile::Create(path);
  if (!file.ok()) return file.status();
  const absl::Status status = file->Append(text);
  return status.ok() ? file->Commit() : status;
}

absl::StatusOr<std::shared_ptr<const MappedFile>> Read(
    const std::string& path) {
  return MappedFile::Open(path);
}

absl::string_view TextOf(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()),
          file.bytes().size()};
}

}  // namespace

absl::Status WriteGptqConfig(const std::string& from, const std::string& to,
                             const GptqSettings& settings, DType dtype,
                             const std::string& program_version) {
  const std::string path = absl::StrCat(from, "/config.json");
  const auto stored = Read(path);
  if (!stored.ok()) return stored.status();
  Json config = Json::parse(TextOf(**stored), nullptr, false);
  if (!config.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not a JSON object"));
  }
  const char* name = dtype == DType::kBF16 ? "bfloat16" : "float16";
  config[config.contains("dtype") ? "dtype" : "torch_dtype"] = name;
  config.erase("compression_config");
  const Json quantization = SettingsJson(settings, program_version);
  config["quantization_config"] = quantization;
  absl::Status status = Write(absl::StrCat(to, "/config.json"),
                              absl::StrCat(config.dump(2), "\n"));
  if (status.ok()) {
    status = Write(absl::StrCat(to, "/quantize_config.json"),
                   absl::StrCat(quantization.dump(2), "\n"));
  }
  for (const char* file : kCopied) {
    const std::string source = absl::StrCat(from, "/", file);
    std::error_code error;
    if (!status.ok() || !fs::exists(source, error)) continue;
    const auto bytes = Read(source);
    if (!bytes.ok()) return bytes.status();
    status = Write(absl::StrCat(to, "/", file), TextOf(**bytes));
  }
  return status;
}

}  // namespace nibble
