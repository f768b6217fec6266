#include "models/registry.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "models/checkpoint.h"
#include "models/config_reader.h"
#include "models/decoder_config.h"
#include "models/families/falcon.h"
#include "models/families/falcon_gguf.h"
#include "models/families/family.h"
#include "models/families/gpt_neox.h"
#include "models/families/gpt_neox_gguf.h"
#include "models/families/gptj.h"
#include "models/families/gptj_gguf.h"
#include "models/families/hf_fields.h"
#include "models/families/llama.h"
#include "models/families/llama_gguf.h"
#include "models/manifest_config.h"
#include "models/packed_names.h"
#include "models/quantized/quantized_folder.h"
#include "models/quantized/quantized_summary.h"
#include "tensor/io/gguf.h"
#include "tensor/io/llama2c.h"
#include "tensor/io/packed_file.h"
#include "tensor/io/safetensors.h"
#include "tensor/io/tensor_source.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

// A family as Hugging Face names it. Sorted by model_type.
struct HuggingFaceFamily {
  absl::string_view model_type;
  absl::string_view architecture;
  absl::StatusOr<FamilyModel> (*read)(ConfigReader&, const TensorSource&);
};

constexpr HuggingFaceFamily kHuggingFaceFamilies[] = {
    {"RefinedWeb", "RWForCausalLM", ReadRefinedWeb},
    {"RefinedWebModel", "RWForCausalLM", ReadRefinedWeb},
    {"falcon", "FalconForCausalLM", ReadFalcon},
    {"gpt_neox", "GPTNeoXForCausalLM", ReadGptNeoX},
    {"gptj", "GPTJForCausalLM", ReadGptJ},
    {"llama", "LlamaForCausalLM", ReadLlama},
    {"mistral", "MistralForCausalLM", ReadMistral},
    {"qwen2", "Qwen2ForCausalLM", ReadQwen2},
};

struct GgufFamily {
  absl::string_view architecture;
  absl::StatusOr<FamilyModel> (*read)(const GgufFile&);
};

constexpr GgufFamily kGgufFamilies[] = {
    {"falcon", ReadFalconGguf},   {"gptj", ReadGptJGguf},
    {"gptneox", ReadGptNeoXGguf}, {"llama", ReadLlamaGguf},
    {"qwen2", ReadLlamaGguf},
};

// The family that config.json names, by model_type or, in files without one,
// by its architecture. The architecture must be the causal language model: a
// classifier of the same family has other tensors on top.
const HuggingFaceFamily* FindFamily(ConfigReader& json) {
  const std::string model_type = json.StringOr("model_type", "");
  std::vector<std::string> architectures = json.StringList("architectures");
  for (std::string& name : architectures) {
    // The first converted Llama checkpoints spelled it so.
    if (name == "LLaMAForCausalLM") name = "LlamaForCausalLM";
  }
  std::vector<absl::string_view> types, names;
  for (const HuggingFaceFamily& family : kHuggingFaceFamilies) {
    types.push_back(family.model_type);
    names.push_back(family.architecture);
    bool named = architectures.empty();
    for (const std::string& name : architectures) {
      named |= name == family.architecture;
    }
    if (named && (model_type.empty() ? !architectures.empty()
                                     : model_type == family.model_type)) {
      return &family;
    }
  }
  json.Fail("model_type",
            absl::StrCat("is \"", model_type, "\" and \"architectures\" is \"",
                         absl::StrJoin(architectures, ", "),
                         "\", which is not supported; supported: ",
                         ListOf(types), " as ", ListOf(names)));
  return nullptr;
}

// generation_config.json knows the end-of-text ids best, where it is there.
absl::Status ReadGenerationConfig(const fs::path& path, DecoderConfig& config) {
  std::error_code error;
  if (!fs::exists(path, error)) return absl::OkStatus();
  absl::StatusOr<ConfigReader> json = ConfigReader::ReadFile(path.string());
  if (!json.ok()) return json.status();
  DecoderConfig overrides = config;
  ReadSpecialIds(*json, {}, overrides);
  if (!json->status().ok()) return json->status();
  if (json->Has("bos_token_id")) config.bos_id = overrides.bos_id;
  if (json->Has("eos_token_id")) config.eos_ids = overrides.eos_ids;
  return absl::OkStatus();
}

// The folder's tensors, quantized ones as codes.
absl::Status OpenFolderTensors(const std::string& path, ConfigReader& json,
                               Checkpoint& checkpoint) {
  absl::StatusOr<std::unique_ptr<TensorSource>> stored =
      OpenSafetensorsFolder(path);
  if (!stored.ok()) return stored.status();
  absl::StatusOr<std::optional<ConfigReader>> settings =
      FindQuantizationConfig(path, json);
  if (!settings.ok()) return settings.status();
  if (!settings->has_value()) {
    checkpoint.tensors = *std::move(stored);
    return CheckNotQuantized(*checkpoint.tensors);
  }
  absl::StatusOr<std::unique_ptr<QuantizedTensors>> tensors =
      OpenQuantizedTensors(*std::move(stored), **settings);
  if (!tensors.ok()) return tensors.status();
  checkpoint.quantized =
      std::make_shared<const QuantizedSummary>((*tensors)->summary());
  checkpoint.names.ignored = (*tensors)->zero_biases();
  checkpoint.tensors = *std::move(tensors);
  return absl::OkStatus();
}

absl::StatusOr<Checkpoint> OpenFolder(const std::string& path) {
  const fs::path folder(path);
  absl::StatusOr<ConfigReader> json =
      ConfigReader::ReadFile((folder / "config.json").string());
  if (!json.ok()) {
    return absl::Status(
        json.status().code(),
        absl::StrCat(json.status().message(), " (a model folder holds ",
                     "config.json and model.safetensors)"));
  }
  const HuggingFaceFamily* family = FindFamily(*json);
  if (family == nullptr) return json->status();
  Checkpoint checkpoint;
  checkpoint.format = "safetensors";
  absl::Status status = OpenFolderTensors(path, *json, checkpoint);
  if (!status.ok()) return status;
  absl::StatusOr<FamilyModel> model = family->read(*json, *checkpoint.tensors);
  if (!model.ok()) return model.status();
  status =
      ReadGenerationConfig(folder / "generation_config.json", model->config);
  if (!status.ok()) return status;
  std::vector<std::string>& ignored = model->names.ignored;
  ignored.insert(ignored.end(), checkpoint.names.ignored.begin(),
                 checkpoint.names.ignored.end());
  checkpoint.config = std::move(model->config);
  checkpoint.names = std::move(model->names);
  return checkpoint;
}

absl::StatusOr<Checkpoint> OpenGguf(const std::string& path) {
  absl::StatusOr<std::unique_ptr<GgufFile>> opened = GgufFile::Open(path);
  if (!opened.ok()) return opened.status();
  const std::shared_ptr<const GgufFile> file = *std::move(opened);
  const absl::StatusOr<std::string> architecture =
      file->GetString("general.architecture");
  if (!architecture.ok()) return architecture.status();
  std::vector<absl::string_view> supported;
  for (const GgufFamily& family : kGgufFamilies) {
    supported.push_back(family.architecture);
    if (family.architecture != *architecture) continue;
    absl::StatusOr<FamilyModel> model = family.read(*file);
    if (!model.ok()) return model.status();
    Checkpoint checkpoint;
    checkpoint.format = "gguf";
    checkpoint.config = std::move(model->config);
    checkpoint.names = std::move(model->names);
    checkpoint.tensors = file;
    checkpoint.gguf = file;
    return checkpoint;
  }
  return absl::UnimplementedError(absl::StrCat(
      path, ": general.architecture is \"", *architecture,
      "\", which is not supported; supported: ", ListOf(supported)));
}

absl::StatusOr<Checkpoint> OpenLlama2c(const std::string& path) {
  absl::StatusOr<std::unique_ptr<Llama2cFile>> file = Llama2cFile::Open(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<FamilyModel> model = ReadLlama2c(**file);
  if (!model.ok()) return model.status();
  Checkpoint checkpoint;
  checkpoint.format = "llama2.c";
  checkpoint.config = std::move(model->config);
  checkpoint.names = std::move(model->names);
  checkpoint.tensors = *std::move(file);
  return checkpoint;
}

absl::StatusOr<Checkpoint> OpenPacked(const std::string& path) {
  absl::StatusOr<std::shared_ptr<const PackedFile>> file =
      PackedFile::Open(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<DecoderConfig> config =
      FromManifest((*file)->manifest().config(), path);
  if (!config.ok()) return config.status();
  Checkpoint checkpoint;
  checkpoint.format = "nib";
  checkpoint.names = PackedTensorNames(*config);
  checkpoint.config = *std::move(config);
  checkpoint.tensors = *file;
  checkpoint.packed = *std::move(file);
  return checkpoint;
}

// The first four bytes; fewer where the file has fewer.
std::string MagicOf(const std::string& path) {
  std::string magic(4, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(magic.data(), static_cast<std::streamsize>(magic.size()));
  magic.resize(static_cast<size_t>(file.gcount()));
  return magic;
}

absl::StatusOr<Checkpoint> OpenAny(const std::string& path) {
  std::error_code error;
  const fs::file_type type = fs::status(path, error).type();
  if (type == fs::file_type::not_found) {
    return absl::NotFoundError(absl::StrCat(path, ": no such file or folder"));
  }
  if (type == fs::file_type::directory) return OpenFolder(path);
  // Reading the first bytes of a FIFO would wait for a writer.
  if (type != fs::file_type::regular) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": neither a regular file nor a folder"));
  }
  const std::string magic = MagicOf(path);
  if (absl::EndsWith(path, ".nib") || magic == "NIBB") {
    return OpenPacked(path);
  }
  if (absl::EndsWith(path, ".gguf") || magic == "GGUF") return OpenGguf(path);
  if (absl::EndsWith(path, ".bin")) return OpenLlama2c(path);
  if (absl::EndsWith(path, ".safetensors")) {
    return absl::InvalidArgumentError(absl::StrCat(
        path,
        ": weights alone are not a model; give the folder that holds "
        "them and config.json"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat(path,
                   ": not a model; supported: a folder with config.json and "
                   "safetensors, a .gguf file, a packed .nib file, a llama2.c "
                   ".bin file"));
}

}  // namespace

absl::StatusOr<Checkpoint> OpenCheckpoint(const std::string& path) {
  absl::StatusOr<Checkpoint> checkpoint = OpenAny(path);
  if (!checkpoint.ok()) return checkpoint;
  checkpoint->path = path;
  const absl::Status complete = CheckTensors(*checkpoint);
  if (!complete.ok()) return complete;
  return checkpoint;
}

std::vector<std::string> SupportedModelTypes() {
  std::vector<std::string> result;
  for (const HuggingFaceFamily& family : kHuggingFaceFamilies) {
    result.emplace_back(family.model_type);
  }
  return result;
}

}  // namespace nibble
