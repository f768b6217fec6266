// A finished block on disk: the codes of its matrices, and what a transform
// changed beside them.
//
//   FinishedBlock block;
//   block.codes[0] = std::move(matrix);               // of LinearId::kQkv
//   absl::Status written = WriteBlock("work/block-3.nib", block);
//   auto file = BlockFile::Open("work/block-3.nib");
//   if (absl::IsDataLoss(file.status())) ...          // damaged
//   const CodedMatrix* qkv = (*file)->codes(LinearId::kQkv);
//
// The file is a .nib container (docs/packed_format.md) of plain tensors, whose
// checksums Open compares; it appears whole or not at all. Codes take 4 bits
// where they fit, else 8:
//
//   qkv.codes        u8  [outputs, row bytes], two codes a byte, low one first
//   qkv.scales       f32 [outputs, groups]
//   qkv.offsets      f32 [outputs, groups]     unless symmetric
//   qkv.form         i32 [4]     bits, group size, CodeOffset, inputs
//   qkv.input_order  i32 [inputs]              with act-order
//   qkv.weight       bf16 [outputs, inputs]    of one that stays a float, where
//   qkv.bias         f32 [outputs]             a transform changed it
//   attention_norm.weight, .bias, mlp_norm...  f32 [hidden], likewise
#ifndef NIBBLE_QUANTIZATION_CALIBRATED_BLOCK_FILE_H_
#define NIBBLE_QUANTIZATION_CALIBRATED_BLOCK_FILE_H_

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "quantization/block/block_weights.h"
#include "quantization/calibrated/report.pb.h"
#include "quantization/rounding/quantized_matrix.h"
#include "tensor/bf16.h"
#include "tensor/coded_matrix.h"
#include "tensor/io/packed_file.h"

namespace nibble {

// "qkv", "attention", "up", "down", as in the names of a .nib file.
const char* LinearName(LinearId id);

struct FinishedBlock {
  // In the order of LinearId. Not set: the matrix stays a float.
  std::array<std::optional<QuantizedMatrix>, kLinearCount> codes;
  // Not null: a transform made these of the block's weights. Norms, biases and
  // the matrices without codes are kept.
  const BlockWeights<float>* transformed = nullptr;
  BlockReport report;
};

// Errors name the file; ResourceExhausted when the disk is full.
absl::Status WriteBlock(const std::string& path, const FinishedBlock& block);

class BlockFile {
 public:
  // DataLoss: the file is damaged. NotFound.
  static absl::StatusOr<std::shared_ptr<const BlockFile>> Open(
      const std::string& path);

  // Null where the matrix stays a float.
  const CodedMatrix* codes(LinearId id) const {
    return codes_[static_cast<size_t>(id)].get();
  }
  // [outputs, inputs], or empty where the checkpoint's own is meant.
  absl::Span<const BF16> floats(LinearId id) const;
  // Whether norms and biases are other than the checkpoint's.
  bool transformed() const { return transformed_; }
  // Each empty where the block has none, or the checkpoint's own is meant.
  absl::Span<const float> bias(LinearId id) const;
  absl::Span<const float> norm(const char* name) const;  // "mlp_norm.bias"

  const BlockReport& report() const { return report_; }

 private:
  BlockFile() = default;
  absl::Status ReadLinear(LinearId id);

  std::shared_ptr<const PackedFile> file_;
  std::array<std::unique_ptr<const CodedMatrix>, kLinearCount> codes_;
  bool transformed_ = false;
  BlockReport report_;
};

// What a finished block computes with takes the place of the checkpoint's
// weights, which `weights` are.
void ApplyBlock(const BlockFile& block, BlockWeights<float>& weights,
                ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_CALIBRATED_BLOCK_FILE_H_
