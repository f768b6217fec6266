// Quantized matrices in memory, as importers of quantized files give them.
//
//   CodedTensors tensors;
//   tensors.Add("w", RandomCodes({/*outputs=*/40, /*inputs=*/96, /*bits=*/4,
//                                 /*group_size=*/32, CodeOffset::kZeros},
//                                random));
//   tensors.FindCoded("w")->Read(...);
//
//   // A model of such matrices:
//   Checkpoint coded = CodedCheckpoint(RandomCheckpoint(config, 3), {}, 4);
#ifndef NIBBLE_TESTING_CODED_TENSORS_H_
#define NIBBLE_TESTING_CODED_TENSORS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "models/checkpoint.h"
#include "tensor/coded_matrix.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"
#include "testing/random_tensor.h"

namespace nibble::testing {

struct MemoryCodes : public CodedMatrix {
  const CodedForm& form() const override { return shape; }
  int64_t stored_bytes() const override {
    return static_cast<int64_t>(codes.size() + scales.size());
  }
  void Read(int64_t first_row, int64_t rows,
            const CodedRowsBuffer& out) const override;

  // The weight of code `k` (not input) of a row.
  float Value(int64_t row, int64_t k) const;
  // Gives the matrix a random input order.
  void Shuffle(RandomValues& random);

  CodedForm shape;
  std::vector<uint8_t> codes;  // [outputs, inputs]
  std::vector<float> scales;   // [outputs, groups]
  std::vector<float> offsets;  // [outputs, groups] or empty
  std::vector<int32_t> order;  // [inputs] or empty
};

// All codes, zeros over their whole range, and scales and minimums that f16
// holds, of either sign and around `scale`.
std::unique_ptr<MemoryCodes> RandomCodes(const CodedForm& form,
                                         RandomValues& random,
                                         float scale = 0.02f);

// Some tensors of another source, which may be null, replaced by codes.
class CodedTensors : public TensorSource {
 public:
  explicit CodedTensors(std::shared_ptr<const TensorSource> others = nullptr);

  void Add(const std::string& name, std::unique_ptr<MemoryCodes> matrix);

  const std::string& path() const override { return path_; }
  const std::vector<std::string>& names() const override { return names_; }
  bool Contains(absl::string_view name) const override;
  absl::StatusOr<TensorView> Find(absl::string_view name) const override;
  const CodedMatrix* FindCoded(absl::string_view name) const override;

 private:
  const std::string path_ = "coded";
  const std::shared_ptr<const TensorSource> others_;
  std::vector<std::string> names_;
  std::map<std::string, std::unique_ptr<MemoryCodes>, std::less<>> coded_;
};

struct CodedCheckpointOptions {
  // Sizes do not matter; a group size of 0 is the whole row.
  CodedForm form = {0, 0, 4, 32, CodeOffset::kZeros, {}};
  bool act_order = false;
  bool head = false;  // REQUIRES: it is not the embedding
};

// The model with random codes in place of each layer's matrices and, if asked
// for, of the head's. Weights have a deviation of about 0.1.
Checkpoint CodedCheckpoint(const Checkpoint& floats,
                           const CodedCheckpointOptions& options,
                           uint64_t seed);

}  // namespace nibble::testing

#endif  // NIBBLE_TESTING_CODED_TENSORS_H_
