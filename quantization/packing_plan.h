// What becomes of each tensor of a checkpoint in a .nib file.
//
//   absl::StatusOr<std::vector<PlannedTensor>> plan =
//       PlanTensors(checkpoint, rounding, keep_float);
#ifndef NIBBLE_QUANTIZATION_PACKING_PLAN_H_
#define NIBBLE_QUANTIZATION_PACKING_PLAN_H_

#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "models/checkpoint.h"
#include "quantization/round_to_nearest.h"
#include "tensor/io/packed_file.h"
#include "tensor/packed_layout.h"

namespace nibble {

struct PlannedTensor {
  std::string name;  // in the .nib file
  // Where it comes from: rows of matrices, or elements of vectors.
  std::vector<RowRange> rows;
  // A packed matrix; or plain: a vector of floats, or the embedding.
  std::variant<PackedLayout, PlainTensor> what;

  // Null for a plain tensor.
  PackedLayout* layout() { return std::get_if<PackedLayout>(&what); }
  const PackedLayout* layout() const {
    return std::get_if<PackedLayout>(&what);
  }
};

// In the order of the file. Matrices whose .nib name the regular expression
// `keep_float` (RE2 syntax, searched for; empty: none) matches are packed as
// bf16, the others as integers without wide scales. The embedding of a model
// whose head is not tied becomes bf16 if it is f32, and else stays as it is
// stored, byte for byte.
// InvalidArgument: bad rounding options, a bad regular expression, or one that
// matches no matrix.
absl::StatusOr<std::vector<PlannedTensor>> PlanTensors(
    const Checkpoint& checkpoint, const RoundingOptions& rounding,
    const std::string& keep_float);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_PACKING_PLAN_H_
