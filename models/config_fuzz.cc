// Fuzz target: any bytes as config.json and as generation_config.json. Readers
// may refuse, but must not crash, and what they accept must be consistent.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/elementwise/rope.h"
#include "models/config_reader.h"
#include "models/decoder_config.h"
#include "models/families/falcon.h"
#include "models/families/family.h"
#include "models/families/gpt_neox.h"
#include "models/families/gptj.h"
#include "models/families/hf_fields.h"
#include "models/families/llama.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// A checkpoint without tensors.
class NoTensors : public TensorSource {
 public:
  const std::string& path() const override { return path_; }
  const std::vector<std::string>& names() const override { return names_; }
  bool Contains(absl::string_view) const override { return false; }
  absl::StatusOr<TensorView> Find(absl::string_view name) const override {
    return absl::NotFoundError(name);
  }

 private:
  std::string path_ = "fuzz";
  std::vector<std::string> names_;
};

void CheckModel(const absl::StatusOr<FamilyModel>& model) {
  if (!model.ok()) {
    CHECK(!model.status().message().empty());
    CHECK_LT(model.status().message().size(), 4096u);
    return;
  }
  const DecoderConfig& config = model->config;
  CHECK(ValidateDecoderConfig(config, "fuzz").ok());
  CHECK_EQ(static_cast<int64_t>(model->names.layers.size()), config.layers);
  CHECK_EQ(static_cast<int64_t>(config.windows.size()), config.layers);
  for (const int32_t id : config.eos_ids) CHECK_LT(id, config.vocabulary);
  if (config.rope.style == RopeStyle::kNone) return;
  const RopeTable table(RopeOf(config));
  CHECK_EQ(table.pairs(), config.rope.rotary_dims / 2);
}

void ReadAll(absl::string_view text) {
  using Reading =
      absl::StatusOr<FamilyModel> (*)(ConfigReader&, const TensorSource&);
  const NoTensors tensors;
  for (const Reading read :
       {Reading{ReadLlama}, Reading{ReadMistral}, Reading{ReadQwen2},
        Reading{ReadGptJ}, Reading{ReadGptNeoX}, Reading{ReadFalcon},
        Reading{ReadRefinedWeb}}) {
    absl::StatusOr<ConfigReader> reader = ConfigReader::Parse(text, "fuzz");
    if (!reader.ok()) return;
    CheckModel(read(*reader, tensors));
  }
  absl::StatusOr<ConfigReader> generation = ConfigReader::Parse(text, "fuzz");
  DecoderConfig config;
  config.vocabulary = 320;
  ReadSpecialIds(*generation, {}, config);
}

}  // namespace
}  // namespace nibble

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  nibble::ReadAll({reinterpret_cast<const char*>(data), size});
  return 0;
}
