#include "apps/inspect_report.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "apps/common/json.h"
#include "apps/inspect_check.h"
#include "apps/inspect_nib.h"
#include "apps/inspect_quantized.h"
#include "apps/inspect_types.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "models/registry.h"
#include "re2/re2.h"
#include "runtime/chat_template.h"
#include "runtime/load_tokenizer.h"
#include "tensor/dtype.h"
#include "tensor/io/gguf.h"
#include "tensor/io/safetensors.h"
#include "tensor/io/tensor_source.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

Json ConfigurationOf(const Checkpoint& checkpoint) {
  const DecoderConfig& config = checkpoint.config;
  Json json;
  json["family"] = config.family;
  json["vocabulary"] = config.vocabulary;
  json["hidden"] = config.hidden;
  json["layers"] = config.layers;
  json["heads"] = config.heads;
  json["kv_heads"] = config.kv_heads;
  json["head_dim"] = config.head_dim;
  json["ffn"] = config.ffn;
  json["max_positions"] = config.max_positions;
  json["norm"] = config.norm == NormKind::kRms ? "rms" : "layer";
  json["norm_eps"] = config.norm_eps;
  json["residual"] =
      config.residual == Residual::kSequential ? "sequential" : "parallel";
  json["rope_dims"] = config.rope.rotary_dims;
  json["rope_theta"] = config.rope.theta;
  json["alibi"] = config.alibi;
  json["tied_head"] = config.tied_head;
  int64_t windowed = 0;
  for (const int64_t window : config.windows) windowed += window > 0;
  json["windowed_layers"] = windowed;
  json["bos_id"] = config.bos_id.has_value() ? Json(*config.bos_id) : Json();
  json["eos_ids"] = config.eos_ids;
  return json;
}

// The tensor as far as it can be read.
Json TensorEntry(const TensorSource& source, const std::string& name) {
  const absl::StatusOr<TensorView> view = source.Find(name);
  if (!view.ok()) {
    return {{"name", name}, {"error", std::string(view.status().message())}};
  }
  return {{"name", name},
          {"dtype", std::string(DTypeName(view->dtype))},
          {"shape", view->shape.dims()},
          {"bytes", view->bytes}};
}

void AddTensors(Json& report, const TensorSource& source, const RE2* filter) {
  Json listed = Json::array();
  int64_t parameters = 0, bytes = 0;
  absl::Status status = absl::OkStatus();
  for (const std::string& name : source.names()) {
    const absl::StatusOr<TensorView> view = source.Find(name);
    if (view.ok()) {
      parameters += view->shape.elements();
      bytes += static_cast<int64_t>(view->bytes);
    } else {
      status.Update(view.status());
    }
    if (filter == nullptr || RE2::PartialMatch(name, *filter)) {
      listed.push_back(TensorEntry(source, name));
    }
  }
  report["types"] = TensorTypes(source);
  report["tensors"] = std::move(listed);
  report["totals"] = {{"tensors", source.names().size()},
                      {"parameters", parameters},
                      {"bytes", bytes}};
  AddCheck(report, "tensors", status, "all can be read");
}

Json TokenizerSummary(const Tokenizer& tokenizer) {
  int64_t special = 0;
  for (int64_t id = 0; id < tokenizer.vocabulary_size(); ++id) {
    special += tokenizer.IsSpecial(static_cast<int32_t>(id));
  }
  const auto id_or_null = [](std::optional<int32_t> id) {
    return id.has_value() ? Json(*id) : Json();
  };
  return {{"tokens", tokenizer.vocabulary_size()},
          {"special_tokens", special},
          {"bos_id", id_or_null(tokenizer.bos_id())},
          {"eos_id", id_or_null(tokenizer.eos_id())},
          {"adds_bos", tokenizer.adds_bos()}};
}

absl::Status FitsModel(const Tokenizer& tokenizer,
                       const DecoderConfig& config) {
  if (tokenizer.vocabulary_size() <= config.vocabulary) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the tokenizer has ", tokenizer.vocabulary_size(),
                   " tokens, the model only ", config.vocabulary,
                   ": they do not belong together"));
}

void AddChatTemplateCheck(Json& report, const std::string& path,
                          const Tokenizer& tokenizer) {
  const auto chat = LoadChatTemplate(path, tokenizer);
  if (absl::IsNotFound(chat.status())) {
    AddCheck(report, "chat template", absl::OkStatus(), "none: a base model");
  } else {
    AddCheck(report, "chat template", chat.status(), "present");
  }
}

// Everything but the tensors of something that ought to be a whole model.
void AddModelChecks(Json& report, const std::string& path) {
  const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(path);
  AddCheck(report, "model", checkpoint.status(), "the engine takes it");
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      checkpoint.ok() ? LoadTokenizer(*checkpoint) : OpenTokenizer(path);
  if (checkpoint.ok()) {
    report["configuration"] = ConfigurationOf(*checkpoint);
    AddQuantized(report, *checkpoint);
  }
  if (!tokenizer.ok()) {
    AddCheck(report, "tokenizer", tokenizer.status(), "");
    return;
  }
  if (*tokenizer == nullptr) {
    AddCheck(report, "tokenizer", absl::OkStatus(),
             "none: only token ids can be run");
    return;
  }
  report["tokenizer"] = TokenizerSummary(**tokenizer);
  AddCheck(report, "tokenizer",
           checkpoint.ok() ? FitsModel(**tokenizer, checkpoint->config)
                           : absl::OkStatus(),
           "can be read");
  AddChatTemplateCheck(report, path, **tokenizer);
}

void InspectFolder(Json& report, const std::string& path, const RE2* filter) {
  const auto source = OpenSafetensorsFolder(path);
  if (source.ok()) {
    AddTensors(report, **source, filter);
  } else {
    AddCheck(report, "tensors", source.status(), "");
  }
  AddModelChecks(report, path);
}

void InspectGguf(Json& report, const std::string& path, const RE2* filter) {
  const auto file = GgufFile::Open(path);
  if (!file.ok()) {
    AddCheck(report, "file", file.status(), "");
    return;
  }
  Json metadata = Json::object();
  metadata["version"] = absl::StrCat((*file)->version());
  for (const std::string& key : (*file)->keys()) {
    metadata[key] = (*file)->ValueSummary(key);
  }
  report["metadata"] = std::move(metadata);
  AddTensors(report, **file, filter);
  AddModelChecks(report, path);
}

void InspectSafetensors(Json& report, const std::string& path,
                        const RE2* filter) {
  const auto source = OpenSafetensors(path);
  if (source.ok()) {
    AddTensors(report, **source, filter);
  } else {
    AddCheck(report, "file", source.status(), "");
  }
}

void InspectLlama2c(Json& report, const std::string& path, const RE2* filter) {
  const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(path);
  if (checkpoint.ok()) AddTensors(report, *checkpoint->tensors, filter);
  AddModelChecks(report, path);
}

void InspectTokenizer(Json& report, const std::string& path) {
  const auto tokenizer = OpenTokenizer(path);
  AddCheck(report, "tokenizer", tokenizer.status(), "can be read");
  if (tokenizer.ok()) report["tokenizer"] = TokenizerSummary(**tokenizer);
}

// The first four bytes, with zeros where the file has fewer.
std::string MagicOf(const std::string& path) {
  std::string magic(4, '\0');
  std::ifstream(path, std::ios::binary).read(magic.data(), 4);
  return magic;
}

// "" for a file of no known kind.
std::string KindOf(const std::string& path, const struct stat& info) {
  if (S_ISDIR(info.st_mode)) return "folder";
  if (!S_ISREG(info.st_mode)) return "";
  const std::string magic = MagicOf(path);
  if (magic == "NIBB" || absl::EndsWith(path, ".nib")) return "nib";
  if (magic == "GGUF" || absl::EndsWith(path, ".gguf")) return "gguf";
  if (absl::EndsWith(path, ".safetensors")) return "safetensors";
  if (absl::EndsWith(path, ".bin")) return "llama2.c";
  if (absl::EndsWith(path, ".json") || absl::EndsWith(path, ".model")) {
    return "tokenizer";
  }
  return "";
}

}  // namespace

absl::StatusOr<Json> InspectPath(const std::string& path, const RE2* filter) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    return absl::NotFoundError(absl::StrCat(path, ": ", std::strerror(errno)));
  }
  const std::string kind = KindOf(path, info);
  Json report;
  report["path"] = path;
  report["kind"] = kind;
  report["checks"] = Json::array();
  if (kind == "folder") {
    InspectFolder(report, path, filter);
  } else if (kind == "nib") {
    if (InspectNib(report, path, filter)) AddModelChecks(report, path);
  } else if (kind == "gguf") {
    InspectGguf(report, path, filter);
  } else if (kind == "safetensors") {
    InspectSafetensors(report, path, filter);
  } else if (kind == "llama2.c") {
    InspectLlama2c(report, path, filter);
  } else if (kind == "tokenizer") {
    InspectTokenizer(report, path);
  } else {
    return absl::InvalidArgumentError(absl::StrCat(
        path,
        ": not a file that inspect knows: a Hugging Face folder, .nib, "
        ".gguf, .safetensors, a llama2.c .bin, tokenizer.json or "
        "tokenizer.model"));
  }
  return report;
}

bool ReportIsSound(const Json& report) {
  for (const Json& check : report["checks"]) {
    if (!check["ok"].get<bool>()) return false;
  }
  return true;
}

}  // namespace nibble
