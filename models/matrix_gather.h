// Reads the tensors of a checkpoint as the decoder wants them: a matrix put
// together from row ranges of stored tensors, a norm or a bias as floats, every
// value checked to be finite.
//
//   MatrixGather gather(*checkpoint.tensors, pool);
//   absl::StatusOr<GatheredMatrix> qkv = gather.Matrix(layer.qkv.weight);
//   if (!qkv.ok()) return qkv.status();          // names the file and tensor
//   Use(qkv->view);                              // [outputs, inputs]
//
// A NaN or an infinity, in a value or in the scale of a block, would silently
// spoil every text. Each stored tensor is checked once per MatrixGather.
//
// A tensor that is there as codes alone (tensor/coded_matrix.h) is read as the
// floats that they stand for, exactly.
//
// The tensors' names and shapes must have passed CheckTensors.
#ifndef NIBBLE_MODELS_MATRIX_GATHER_H_
#define NIBBLE_MODELS_MATRIX_GATHER_H_

#include <cstdint>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"

namespace nibble {

struct GatheredMatrix {
  TensorView view;       // [outputs, inputs], in `memory` or in the file
  AlignedBuffer memory;  // empty where the rows are a whole stored tensor
};

class MatrixGather {
 public:
  // What a matrix's values must fit into, beside being finite.
  enum class Range { kF32, kBF16 };

  // Both must outlive the object, and `tensors` also the views it hands out.
  MatrixGather(const TensorSource& tensors, ThreadPool& pool,
               Range range = Range::kF32)
      : tensors_(tensors), pool_(pool), range_(range) {}

  // The rows, one range below the other: in place when they are a whole tensor
  // with dense bytes, in their stored form when all have one dtype, else as
  // floats.
  // InvalidArgument: a value is NaN or infinite. OutOfRange: it would round to
  // infinity in bf16, with Range::kBF16.
  absl::StatusOr<GatheredMatrix> Matrix(absl::Span<const RowRange> rows);

  // A whole matrix with dense bytes, in place.
  absl::StatusOr<TensorView> Stored(const std::string& name);

  // A stored tensor of one dimension as floats; an empty name gives none.
  absl::StatusOr<Array<float>> Vector(const std::string& name);

  // The elements, one range after the other; no ranges give none.
  absl::StatusOr<Array<float>> Bias(absl::Span<const RowRange> elements);

  // `status` with the file and the tensor named.
  absl::Status Error(const std::string& tensor,
                     const absl::Status& status) const;

 private:
  struct Source;  // of one range

  absl::StatusOr<Source> Open(const RowRange& range);
  absl::Status ReadCodes(const Source& source, const RowRange& range,
                         float* out) const;
  // OK when all values, stored as a dtype, are finite and in range_. The error
  // does not name the tensor.
  absl::Status CheckValues(absl::Span<const float> values, DType stored) const;

  const TensorSource& tensors_;
  ThreadPool& pool_;
  const Range range_;
  absl::flat_hash_set<std::string> checked_;  // by Stored
};

}  // namespace nibble

#endif  // NIBBLE_MODELS_MATRIX_GATHER_H_
