#include "models/quantized/quantized_folder.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"
#include "models/quantized/open_module.h"
#include "models/quantized/quantization_settings.h"
#include "models/quantized/stored_codes.h"
#include "models/quantized/zero_points.h"
#include "tensor/coded_matrix.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Counts what holds of several matrices, so that it is said once.
class Tally {
 public:
  void Add(const std::string& text, const std::string& matrix) {
    auto& [count, first] = found_[text];
    if (count++ == 0) first = matrix;
  }

  // "lm_head.weight: TEXT", or "A.weight and 3 more: TEXT".
  std::vector<std::string> Lines() const {
    std::vector<std::string> lines;
    for (const auto& [text, found] : found_) {
      const auto& [count, first] = found;
      lines.push_back(absl::StrCat(
          first, count > 1 ? absl::StrCat(" and ", count - 1, " more") : "",
          ": ", text));
    }
    return lines;
  }

 private:
  std::map<std::string, std::pair<int64_t, std::string>> found_;
};

class Folder : public QuantizedTensors {
 public:
  explicit Folder(std::unique_ptr<TensorSource> stored)
      : stored_(std::move(stored)) {}

  absl::Status Open(const QuantizationSettings& settings);

  const QuantizedSummary& summary() const override { return summary_; }
  const std::vector<std::string>& zero_biases() const override {
    return zero_biases_;
  }
  const std::string& path() const override { return stored_->path(); }
  const std::vector<std::string>& names() const override { return names_; }

  bool Contains(absl::string_view name) const override {
    return std::binary_search(names_.begin(), names_.end(), name);
  }

  absl::StatusOr<TensorView> Find(absl::string_view name) const override {
    if (FindCoded(name) != nullptr) {
      return absl::UnimplementedError(
          absl::StrCat(path(), ": tensor ", name,
                       ": is stored as codes and has no dense form"));
    }
    if (!Contains(name)) {
      return absl::NotFoundError(absl::StrCat(path(), ": no tensor ", name));
    }
    return stored_->Find(name);
  }

  const CodedMatrix* FindCoded(absl::string_view name) const override {
    const auto found = coded_.find(name);
    return found == coded_.end() ? nullptr : found->second.get();
  }

  absl::Status CheckUnchanged() const override {
    return stored_->CheckUnchanged();
  }
  void Release(absl::Span<const std::byte> range) const override {
    stored_->Release(range);
  }

 private:
  absl::Status OpenModules(const QuantizationSettings& settings);
  void JudgeMatrix(const QuantizationSettings& settings,
                   const std::string& module, StoredCodes& codes);

  std::unique_ptr<TensorSource> stored_;
  std::vector<std::string> names_;
  absl::flat_hash_map<std::string, std::unique_ptr<StoredCodes>> coded_;
  std::vector<std::string> zero_biases_;
  QuantizedSummary summary_;
  Tally exceptions_;
  Tally warnings_;
};

// Takes note of what is odd about a matrix, and of what the summary says.
void Folder::JudgeMatrix(const QuantizationSettings& settings,
                         const std::string& module, StoredCodes& codes) {
  const std::string name = module + ".weight";
  const std::vector<ModuleForm> forms = settings.FormsOf(module);
  if (forms.empty()) {
    warnings_.Add(
        "the settings leave it in floating point, but it is stored as codes",
        name);
  }
  const ModuleForm& common = settings.common;
  const bool declared_symmetric =
      forms.empty() ? common.symmetric : forms.front().symmetric;
  const ZeroPoints zeros = JudgeZeros(codes, declared_symmetric);
  if (zeros == ZeroPoints::kMiddle || zeros == ZeroPoints::kMislabelled) {
    codes.SetSymmetric();
  } else {
    summary_.symmetric = false;
  }
  if (zeros == ZeroPoints::kMislabelled) {
    warnings_.Add(
        absl::StrCat("labelled ", settings.format, ", but its zero points are ",
                     codes.matrix().zeros_less_one ? "gptq_v2" : "gptq",
                     "'s: read as symmetric"),
        name);
  } else if (zeros == ZeroPoints::kNotSymmetric) {
    warnings_.Add(
        "the settings say that it is symmetric, but its zero points are not "
        "the middle: they are used",
        name);
  } else if (zeros == ZeroPoints::kAmbiguous) {
    warnings_.Add(
        "has zero points of 0, which gptq (first version) stores ambiguously; "
        "should the text be poor, export it as gptq_v2",
        name);
  }
  const CodedForm& form = codes.form();
  summary_.act_order |= !form.input_order.empty();
  const int64_t common_group = common.group_size < 0
                                   ? form.inputs
                                   : std::min(common.group_size, form.inputs);
  if (form.bits != common.bits || form.group_size != common_group) {
    exceptions_.Add(
        absl::StrCat(form.bits, " bits, groups of ", form.group_size), name);
  }
}

bool HoldsOnlyZeros(const TensorView& tensor) {
  const absl::Span<const std::byte> bytes(tensor.data, tensor.bytes);
  return absl::c_all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
}

// Opens every module of which any part is stored; names_ is what remains.
absl::Status Folder::OpenModules(const QuantizationSettings& settings) {
  std::set<std::string> modules;
  for (const std::string& name : stored_->names()) {
    bool is_part = false;
    for (const absl::string_view part : ModuleParts(settings.layout)) {
      if (!absl::EndsWith(name, part)) continue;
      modules.insert(std::string(absl::StripSuffix(name, part)));
      is_part = true;
    }
    if (is_part) continue;
    names_.push_back(name);
    const absl::StatusOr<TensorView> view = stored_->Find(name);
    summary_.float_matrices += view.ok() && view->shape.rank() == 2;
  }
  for (const std::string& module : modules) {
    absl::StatusOr<std::unique_ptr<StoredCodes>> codes =
        OpenModule(*stored_, module, settings);
    if (!codes.ok()) return codes.status();
    JudgeMatrix(settings, module, **codes);
    names_.push_back(module + ".weight");
    coded_.emplace(names_.back(), *std::move(codes));
    const std::string bias = module + ".bias";
    if (!stored_->Contains(bias)) continue;
    const absl::StatusOr<TensorView> view = stored_->Find(bias);
    if (view.ok() && HoldsOnlyZeros(*view)) zero_biases_.push_back(bias);
  }
  std::sort(names_.begin(), names_.end());
  return absl::OkStatus();
}

absl::Status Folder::Open(const QuantizationSettings& settings) {
  summary_.method = settings.method;
  summary_.format = settings.format;
  summary_.bits = settings.common.bits;
  summary_.group_size = settings.common.group_size;
  summary_.symmetric = true;
  const absl::Status status = OpenModules(settings);
  if (!status.ok()) return status;
  if (coded_.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        path(), ": no tensor ends in \"", ModuleParts(settings.layout)[0],
        "\", although ", settings.source, " says that the weights are ",
        settings.method, ", ", settings.format));
  }
  summary_.coded_matrices = static_cast<int64_t>(coded_.size());
  summary_.exceptions = exceptions_.Lines();
  summary_.warnings = settings.warnings;
  for (std::string& line : warnings_.Lines()) {
    summary_.warnings.push_back(std::move(line));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::optional<ConfigReader>> FindQuantizationConfig(
    const std::string& folder, ConfigReader& config_json) {
  if (config_json.Has("quantization_config")) {
    ConfigReader settings = config_json.Object("quantization_config");
    if (!config_json.status().ok()) return config_json.status();
    return settings;
  }
  // AutoGPTQ's and GPTQModel's, AutoAWQ's, AutoRound's.
  for (const char* name : {"quantize_config.json", "quant_config.json",
                           "quantization_config.json"}) {
    const std::string path = (std::filesystem::path(folder) / name).string();
    std::error_code error;
    if (!std::filesystem::exists(path, error)) continue;
    absl::StatusOr<ConfigReader> settings = ConfigReader::ReadFile(path);
    if (!settings.ok()) return settings.status();
    return *std::move(settings);
  }
  return std::nullopt;
}

absl::Status CheckNotQuantized(const TensorSource& tensors) {
  for (const CodeLayout layout :
       {CodeLayout::kGptq, CodeLayout::kCompressedTensors}) {
    for (const std::string& name : tensors.names()) {
      if (!absl::EndsWith(name, ModuleParts(layout)[0])) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(tensors.path(), ": tensor ", name,
                       " is quantized, but neither config.json "
                       "(\"quantization_config\") nor "
                       "a quantize_config.json beside it says how"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<QuantizedTensors>> OpenQuantizedTensors(
    std::unique_ptr<TensorSource> stored, ConfigReader& json) {
  const absl::StatusOr<QuantizationSettings> settings =
      QuantizationSettings::Read(json);
  if (!settings.ok()) return settings.status();
  auto folder = std::make_unique<Folder>(std::move(stored));
  const absl::Status status = folder->Open(*settings);
  if (!status.ok()) return status;
  return folder;
}

}  // namespace nibble
