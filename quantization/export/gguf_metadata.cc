#include "quantization/export/gguf_metadata.h"

#include <cmath>
#include <cstdint>
#include <iterator>
#include <optional>

#include "absl/log/check.h"
#include "absl/log/log.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/elementwise/activation_type.h"
#include "kernels/elementwise/rope.h"
#include "nlohmann/json.hpp"
#include "quantization/embedded_files.h"
#include "tensor/io/packed_file.h"
#include "tokenizer/gguf_export.h"
#include "tokenizer/gguf_vocabulary.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

// Of the block formats: since ggml changed them last.
constexpr uint32_t kQuantizationVersion = 2;

// general.file_type, as llama.cpp numbers it.
uint32_t FileType(DType weights) {
  switch (weights) {
    case DType::kF32:
      return 0;
    case DType::kF16:
      return 1;
    case DType::kQ4_0:
      return 2;
    case DType::kQ4_1:
      return 3;
    case DType::kQ8_0:
      return 7;
    case DType::kBF16:
      return 32;
    default:
      break;
  }
  LOG(FATAL) << "no file type for " << DTypeName(weights);
}

uint32_t U32Of(int64_t value) {
  CHECK(value >= 0 && value <= UINT32_MAX);
  return static_cast<uint32_t>(value);
}

void AddRope(const DecoderConfig& config, const std::string& arch,
             GgufMetadata* metadata) {
  const RopeConfig& rope = config.rope;
  metadata->U32(arch + ".rope.dimension_count", U32Of(rope.rotary_dims));
  metadata->F32(arch + ".rope.freq_base", static_cast<float>(rope.theta));
  const RopeScaling& scaling = rope.scaling;
  const std::string prefix = arch + ".rope.scaling.";
  if (scaling.type == RopeScaling::kLinear) {
    metadata->String(prefix + "type", "linear");
    metadata->F32(prefix + "factor", scaling.factor);
  }
  if (scaling.type != RopeScaling::kYarn) return;
  metadata->String(prefix + "type", "yarn");
  metadata->F32(prefix + "factor", scaling.factor);
  metadata->U32(
      prefix + "original_context_length",
      U32Of(scaling.original_max_positions > 0 ? scaling.original_max_positions
                                               : config.max_positions));
  metadata->F32(prefix + "yarn_beta_fast", scaling.beta_fast);
  metadata->F32(prefix + "yarn_beta_slow", scaling.beta_slow);
  // Here it multiplies the usual magnitude, in the configuration it is all.
  if (scaling.attention_factor != 0.0f) {
    metadata->F32(prefix + "attn_factor",
                  static_cast<float>(scaling.attention_factor /
                                     (1.0 + 0.1 * std::log(scaling.factor))));
  }
}

void AddModel(const DecoderConfig& config, const std::string& arch,
              GgufMetadata* metadata) {
  const auto set = [&](absl::string_view key, int64_t value) {
    metadata->U32(absl::StrCat(arch, ".", key), U32Of(value));
  };
  set("vocab_size", config.vocabulary);
  set("context_length", config.max_positions);
  set("embedding_length", config.hidden);
  set("block_count", config.layers);
  set("feed_forward_length", config.ffn);
  set("attention.head_count", config.heads);
  set("attention.head_count_kv", config.kv_heads);
  if (config.head_dim * config.heads != config.hidden) {
    set("attention.key_length", config.head_dim);
    set("attention.value_length", config.head_dim);
  }
  if (!config.windows.empty() && config.windows[0] > 0) {
    set("attention.sliding_window", config.windows[0]);
  }
  metadata->F32(absl::StrCat(arch, config.norm == NormKind::kRms
                                       ? ".attention.layer_norm_rms_epsilon"
                                       : ".attention.layer_norm_epsilon"),
                config.norm_eps);
  AddRope(config, arch, metadata);
  // Not llama.cpp's: its graphs compute GELU by tanh, whatever the model wants.
  if (!config.gated) {
    metadata->String(
        arch + ".activation",
        config.activation == Activation::kGelu ? "gelu" : "gelu_new");
  }
  if (arch == "gptneox") {
    metadata->Bool("gptneox.use_parallel_residual",
                   config.residual == Residual::kParallel);
  }
  if (arch == "falcon") {
    metadata->String("falcon.tensor_data_layout", "jploski");
  }
}

// tokenizer_config.json's template: a string, or a list of {"name", "template"}
// of which "default" is the one for conversations.
std::optional<std::string> TemplateIn(absl::string_view tokenizer_config) {
  const Json config = Json::parse(tokenizer_config, nullptr, false);
  if (!config.is_object() || !config.contains("chat_template")) {
    return std::nullopt;
  }
  const Json& found = config["chat_template"];
  if (found.is_string()) return found.get<std::string>();
  if (!found.is_array()) return std::nullopt;
  for (const Json& entry : found) {
    if (entry.is_object() && entry.value("name", Json()) == "default" &&
        entry.contains("template") && entry["template"].is_string()) {
      return entry["template"].get<std::string>();
    }
  }
  return std::nullopt;
}

absl::Status AddSpecialIds(const DecoderConfig& config,
                           const GgufVocabulary& vocabulary,
                           const std::string& path, GgufMetadata* metadata) {
  const auto set = [&](absl::string_view name, int64_t id) {
    metadata->U32(absl::StrCat("tokenizer.ggml.", name, "_token_id"),
                  U32Of(id));
  };
  std::vector<int64_t> ends(config.eos_ids.begin(), config.eos_ids.end());
  if (ends.empty() && vocabulary.eos_id) ends.push_back(*vocabulary.eos_id);
  constexpr absl::string_view kEnds[] = {"eos", "eot", "eom"};
  if (ends.size() > std::size(kEnds)) {
    return absl::UnimplementedError(absl::StrCat(
        path, ": ", ends.size(),
        " tokens end a text; a GGUF file names at most three. Leave the "
        "others out of \"eos_token_id\" of generation_config.json"));
  }
  for (size_t i = 0; i < ends.size(); ++i) set(kEnds[i], ends[i]);
  if (vocabulary.bos_id) {
    set("bos", *vocabulary.bos_id);
  } else if (config.bos_id) {
    set("bos", *config.bos_id);
  }
  if (vocabulary.unknown_id) set("unknown", *vocabulary.unknown_id);
  return absl::OkStatus();
}

void AddVocabulary(const GgufVocabulary& vocabulary, GgufMetadata* metadata) {
  metadata->String("tokenizer.ggml.model", vocabulary.model);
  metadata->String("tokenizer.ggml.pre",
                   vocabulary.pre.empty() ? "default" : vocabulary.pre);
  metadata->Strings("tokenizer.ggml.tokens", vocabulary.tokens);
  if (!vocabulary.scores.empty()) {
    metadata->F32s("tokenizer.ggml.scores", vocabulary.scores);
  }
  metadata->I32s("tokenizer.ggml.token_type", vocabulary.token_types);
  if (!vocabulary.merges.empty()) {
    metadata->Strings("tokenizer.ggml.merges", vocabulary.merges);
  }
  const auto set = [metadata](absl::string_view key,
                              const std::optional<bool>& flag) {
    if (flag.has_value()) {
      metadata->Bool(absl::StrCat("tokenizer.ggml.", key), *flag);
    }
  };
  set("add_bos_token", vocabulary.add_bos);
  set("add_eos_token", vocabulary.add_eos);
  set("add_space_prefix", vocabulary.add_space_prefix);
}

absl::Status AddTokenizer(const Checkpoint& checkpoint,
                          GgufMetadata* metadata) {
  const absl::StatusOr<std::vector<EmbeddedFile>> stored =
      FilesToEmbed(checkpoint);
  if (!stored.ok()) return stored.status();
  const auto find =
      [&stored](absl::string_view name) -> std::optional<absl::string_view> {
    for (const EmbeddedFile& file : *stored) {
      if (file.name == name) return file.bytes;
    }
    return std::nullopt;
  };
  TokenizerFiles files;
  files.source = checkpoint.path;
  files.tokenizer_json = find("tokenizer.json");
  files.tokenizer_model = find("tokenizer.model");
  files.tokenizer_config_json = find("tokenizer_config.json");
  files.tokenizer_bin = find("tokenizer.bin");
  const absl::StatusOr<GgufVocabulary> vocabulary =
      ToGgufVocabulary(files, checkpoint.config.vocabulary);
  if (!vocabulary.ok()) return vocabulary.status();
  AddVocabulary(*vocabulary, metadata);
  const absl::Status status =
      AddSpecialIds(checkpoint.config, *vocabulary, checkpoint.path, metadata);
  if (!status.ok()) return status;
  std::optional<std::string> chat;
  if (const auto jinja = find("chat_template.jinja")) {
    chat = std::string(*jinja);
  } else if (files.tokenizer_config_json.has_value()) {
    chat = TemplateIn(*files.tokenizer_config_json);
  }
  if (chat.has_value()) metadata->String("tokenizer.chat_template", *chat);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GgufMetadata> ExportedMetadata(const Checkpoint& checkpoint,
                                              const std::string& architecture,
                                              DType weights) {
  GgufMetadata metadata;
  if (checkpoint.gguf != nullptr) {
    metadata.CopyOf(*checkpoint.gguf, {"general.file_type", "general.alignment",
                                       "general.quantization_version"});
  } else {
    metadata.String("general.architecture", architecture);
    metadata.String("general.type", "model");
    AddModel(checkpoint.config, architecture, &metadata);
    const absl::Status status = AddTokenizer(checkpoint, &metadata);
    if (!status.ok()) return status;
  }
  metadata.U32("general.file_type", FileType(weights));
  metadata.U32("general.quantization_version", kQuantizationVersion);
  return metadata;
}

std::vector<float> RopeDivisors(const DecoderConfig& config) {
  if (!config.rope_divisors.empty()) return config.rope_divisors;
  if (config.rope.scaling.type != RopeScaling::kLlama3) return {};
  RopeConfig plain = config.rope;
  plain.scaling = RopeScaling();
  const RopeTable before(plain), after(config.rope);
  std::vector<float> divisors(before.frequencies().size());
  for (size_t i = 0; i < divisors.size(); ++i) {
    divisors[i] = before.frequencies()[i] / after.frequencies()[i];
  }
  return divisors;
}

}  // namespace nibble
