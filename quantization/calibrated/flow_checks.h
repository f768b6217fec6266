// What the calibrated flow asks of its arguments before it does any work.
//
//   absl::Status status =
//       CheckWindows(recipe, windows, NeedsCalibration(recipe), 2048);
//   if (status.ok()) status = CheckGrids(grids, checkpoint.config);
//
// The checkpoint's own part is CheckOverlay (overlay.h).
#ifndef NIBBLE_QUANTIZATION_CALIBRATED_FLOW_CHECKS_H_
#define NIBBLE_QUANTIZATION_CALIBRATED_FLOW_CHECKS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "models/decoder_config.h"
#include "quantization/calibration/windows.h"
#include "quantization/recipe/matrix_grids.h"
#include "quantization/recipe/recipe.pb.h"

namespace nibble {

// InvalidArgument: there are no windows (null) although they are needed, they
// are longer than the model's positions, or not those of the recipe's digest.
absl::Status CheckWindows(const Recipe& recipe,
                          const CalibrationWindows* windows, bool needed,
                          int64_t max_positions);

// Of the layers' matrices, as in a .nib file.
std::vector<std::string> MatrixNames(const DecoderConfig& config);

// InvalidArgument: a pattern matches none of the model's matrices, or a
// matrix's grid is none (rounding/grid.h).
absl::Status CheckGrids(const MatrixGrids& grids, const DecoderConfig& config);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_CALIBRATED_FLOW_CHECKS_H_
