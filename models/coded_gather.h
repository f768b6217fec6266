// A decoder's matrix put together from rows of coded tensors
// (tensor/coded_matrix.h), packed for the kernels with the values they have.
//
//   std::optional<CodedGather> gather =
//       CodedGather::Find(*checkpoint.tensors, names.qkv.weight);
//   if (!gather) ...                             // float it
//   absl::StatusOr<std::optional<PackedLayout>> layout = gather->Survey(pool);
//   if (!layout.ok()) return layout.status();    // names file and tensor
//   if (!*layout) ...                            // float it
//   AlignedBuffer memory(static_cast<size_t>((*layout)->bytes()));
//   gather->Pack(**layout, 0, (*layout)->outputs, pool, memory.data());
//
// The tensors may differ in width, offset and group size; one packed layout
// serves them all, and every weight keeps its value, bit for bit (but for the
// sign of a zero):
//
//   codes of at most 4 bits      kInt4: symmetric if all are, with minimums if
//                                any has some, else with zeros
//   one of more bits             kInt8, which has neither zeros of 8 bits nor
//                                minimums
//   groups                       their greatest common divisor, which must be
//                                a multiple of 32; whole rows fit any
//   scales, minimums             f16 where all are 0 or normal there, else f32
//
// Where no layout does that, MatrixGather has the values as floats. AsStored
// has the whole decision.
#ifndef NIBBLE_MODELS_CODED_GATHER_H_
#define NIBBLE_MODELS_CODED_GATHER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "tensor/coded_matrix.h"
#include "tensor/io/tensor_source.h"
#include "tensor/packed_layout.h"

namespace nibble {

// Whether any of the ranges is of a coded tensor.
bool HasCodes(const TensorSource& tensors, absl::Span<const RowRange> rows);

class CodedGather {
 public:
  // Nothing is read. nullopt: a tensor has no codes, their input orders differ,
  // or no layout holds what their forms say. `rows` must have passed
  // CheckTensors, and `tensors` must outlive the result.
  static std::optional<CodedGather> Find(const TensorSource& tensors,
                                         absl::Span<const RowRange> rows);

  // The layout without a word on the width of scales.
  const PackedLayout& layout() const { return layout_; }
  // [inputs] or empty, as in CodedForm; lives as long as the tensors.
  absl::Span<const int32_t> input_order() const {
    return parts_[0].matrix->form().input_order;
  }
  // Bytes that the rows take where they are stored.
  int64_t stored_bytes() const;

  // The layout, after a look at all scales and minimums. nullopt: f32 would
  // have to round one of the values. InvalidArgument, naming file and tensor: a
  // scale or a minimum is NaN or infinite.
  absl::StatusOr<std::optional<PackedLayout>> Survey(ThreadPool& pool) const;

  // Packs rows [first_row, first_row + rows) as a matrix of their own, which
  // `packed` holds: the layout's records of these rows. REQUIRES: `layout` came
  // from Survey; first_row is a multiple of 32, and rows is too or ends the
  // matrix.
  void Pack(const PackedLayout& layout, int64_t first_row, int64_t rows,
            ThreadPool& pool, std::byte* packed) const;

  // The tensors were read and take up no more memory.
  void Release() const;

 private:
  // Rows of one tensor, which begin at row `begin` of the matrix.
  struct Part {
    std::string tensor;
    const CodedMatrix* matrix = nullptr;
    int64_t first_row = 0;  // of the tensor
    int64_t begin = 0;
    int64_t rows = 0;
  };
  class BlockPacker;

  explicit CodedGather(const TensorSource& tensors) : tensors_(&tensors) {}

  // The part that holds a row of the matrix.
  const Part& PartOf(int64_t row) const;

  const TensorSource* tensors_;
  std::vector<Part> parts_;
  PackedLayout layout_;
};

// What a matrix is held as where nobody asks for a format.
struct StoredMatrix {
  PackedLayout layout;
  // Set: the layout holds these codes. Not set: it is a float format.
  std::optional<CodedGather> codes;
};

// Codes where a layout has them exactly. Otherwise floats: f32 if a tensor is
// there as codes alone, whose values are not rounded again, else bf16.
// InvalidArgument as for CodedGather::Survey. `rows` must have passed
// CheckTensors.
absl::StatusOr<StoredMatrix> AsStored(const TensorSource& tensors,
                                      absl::Span<const RowRange> rows,
                                      ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_MODELS_CODED_GATHER_H_
