// What is known of a quantized checkpoint beside its matrices: for reports.
#ifndef NIBBLE_MODELS_QUANTIZED_QUANTIZED_SUMMARY_H_
#define NIBBLE_MODELS_QUANTIZED_QUANTIZED_SUMMARY_H_

#include <cstdint>
#include <string>
#include <vector>

namespace nibble {

struct QuantizedSummary {
  std::string method;  // "gptq", "awq", "auto-round", "compressed-tensors"
  std::string format;  // "gptq", "gptq_v2", "gemm", "gemv", "pack-quantized"
  // As most matrices have them; exceptions are listed below.
  int bits = 0;
  int64_t group_size = 0;  // -1: the whole row
  bool symmetric = false;
  bool act_order = false;  // any matrix has an input order
  int64_t coded_matrices = 0;
  int64_t float_matrices = 0;
  // "lm_head.weight: 8 bits, groups of 128": matrices unlike the above.
  std::vector<std::string> exceptions;
  // What is odd, and how it was read all the same.
  std::vector<std::string> warnings;
};

}  // namespace nibble

#endif  // NIBBLE_MODELS_QUANTIZED_QUANTIZED_SUMMARY_H_
