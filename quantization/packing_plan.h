// What becomes of each tensor of a checkpoint in a .nib file.
//
//   absl::StatusOr<PackingPlan> plan =
//       PlanRounded(checkpoint, rounding, keep_float);
//   absl::StatusOr<PackingPlan> plan = PlanKept(checkpoint, pool);
#ifndef NIBBLE_QUANTIZATION_PACKING_PLAN_H_
#define NIBBLE_QUANTIZATION_PACKING_PLAN_H_

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/coded_gather.h"
#include "models/decoder_config.h"
#include "quantization/round_to_nearest.h"
#include "tensor/io/packed_file.h"
#include "tensor/packed_layout.h"

namespace nibble {

struct PlannedTensor {
  std::string name;  // in the .nib file
  // Where it comes from: rows of matrices, or elements of vectors.
  std::vector<RowRange> rows;
  // A packed matrix; or plain: a vector, or the embedding.
  std::variant<PackedLayout, PlainTensor> what;
  // Of a matrix that keeps its codes.
  std::optional<CodedGather> codes;
  // Of an input order: its values, in place of `rows`.
  absl::Span<const int32_t> input_order;
  // Of a matrix unlike the others: why. For the file's record.
  std::string reason;

  // Null for a plain tensor.
  PackedLayout* layout() { return std::get_if<PackedLayout>(&what); }
  const PackedLayout* layout() const {
    return std::get_if<PackedLayout>(&what);
  }
};

struct PackingPlan {
  DecoderConfig config;                // of the .nib file
  std::vector<PlannedTensor> tensors;  // in the order of the file
};

// Matrices whose .nib name the regular expression `keep_float` (RE2 syntax,
// searched for; empty: none) matches are packed as bf16, the others as integers
// without wide scales. The embedding of a model whose head is not tied becomes
// bf16 if it is f32, and else stays as it is stored, byte for byte.
// InvalidArgument: bad rounding options, a bad regular expression, or one that
// matches no matrix.
absl::StatusOr<PackingPlan> PlanRounded(const Checkpoint& checkpoint,
                                        const RoundingOptions& rounding,
                                        const std::string& keep_float);

// Every matrix becomes what a decoder holds it as when it runs the checkpoint
// as it is: AsStored in models/coded_gather.h, after a look at all scales. The
// embedding stays as it is stored. Where a tied head does not have its exact
// values, for it is bf16 and they are not, the file has both.
// InvalidArgument: a checkpoint without a quantized matrix.
absl::StatusOr<PackingPlan> PlanKept(const Checkpoint& checkpoint,
                                     ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_PACKING_PLAN_H_
