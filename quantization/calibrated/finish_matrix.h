// What the roundings of a block share: a matrix's codes on their way into the
// finished block, and its line of the report.
//
//   AddReports(work);
//   Keep(work, LinearId::kQkv, std::move(matrix), start);
#ifndef NIBBLE_QUANTIZATION_CALIBRATED_FINISH_MATRIX_H_
#define NIBBLE_QUANTIZATION_CALIBRATED_FINISH_MATRIX_H_

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "quantization/block/block_weights.h"
#include "quantization/calibrated/block_work.h"
#include "quantization/calibrated/report.pb.h"
#include "quantization/rounding/quantized_matrix.h"

namespace nibble {

// One report for each matrix, in the order of LinearId.
void AddReports(BlockWork& work);
MatrixReport& ReportOf(BlockWork& work, LinearId id);

// `status` with the matrix's name in front.
absl::Status Named(const BlockWork& work, LinearId id,
                   const absl::Status& status);

// The matrix's codes, made since `start`. Replaces those that were kept before.
void Keep(BlockWork& work, LinearId id, QuantizedMatrix matrix,
          absl::Time start);

// Whether the recipe's method of calibration rounds the matrix: it becomes
// integers, and not by an exception that is rounded to nearest.
bool IsCalibrated(const BlockWork& work, LinearId id);

// Rounds a matrix that has a grid to nearest, and keeps it. InvalidArgument
// names a weight that cannot be rounded.
absl::Status RoundToNearest(BlockWork& work, LinearId id);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_CALIBRATED_FINISH_MATRIX_H_
