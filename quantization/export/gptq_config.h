// The files beside the weights of a GPTQ folder: what the model is and how it
// was quantized.
#ifndef NIBBLE_QUANTIZATION_EXPORT_GPTQ_CONFIG_H_
#define NIBBLE_QUANTIZATION_EXPORT_GPTQ_CONFIG_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "tensor/dtype.h"

namespace nibble {

struct GptqSettings {
  int bits = 4;
  int64_t group_size = -1;  // -1: the whole row
  bool symmetric = false;
  bool act_order = false;
  // Whether zeros are stored minus 1 (checkpoint_format "gptq"). That has no
  // word for a zero of 0, so it is for symmetric matrices.
  bool v1() const { return symmetric; }
};

// Writes config.json of folder `from` with quantization_config in place of any
// it had, and "dtype" as given (f16 or bf16), and quantize_config.json into
// folder `to`; copies the tokenizer's and generation's files.
absl::Status WriteGptqConfig(const std::string& from, const std::string& to,
                             const GptqSettings& settings, DType dtype,
                             const std::string& program_version);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_EXPORT_GPTQ_CONFIG_H_
