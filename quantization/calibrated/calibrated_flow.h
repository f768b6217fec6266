// From a float checkpoint to a quantized one by any recipe, block by block:
// load, measure, transform, round, run on, save, free.
//
//   CalibratedOptions options;
//   options.work_folder = "model.nib.work";
//   absl::StatusOr<CalibratedResult> result =
//       QuantizeWithRecipe(*checkpoint, &windows, recipe, options, pool);
//   if (!result.ok()) return result.status();
//   QuantizeOpenCheckpoint(result->checkpoint, "model.nib", keep, pool, ...);
//   result->work.Remove();
//
// Each finished block lies in the work folder, so that a run that was ended, in
// whatever way, goes on behind it with `resume`: the hidden states are computed
// anew from the finished blocks. The result is the same, bit for bit, and for
// any number of threads.
//
// Memory: one block as floats, once more as the products' packed form, the
// hidden states of one or two models (bf16), for training that starts from
// GPTQ's correction (SignRound's default) a third set, of what it aims at, and
// what the method needs for one matrix. docs/quantization.md has the sum for
// 7B.
#ifndef NIBBLE_QUANTIZATION_CALIBRATED_CALIBRATED_FLOW_H_
#define NIBBLE_QUANTIZATION_CALIBRATED_CALIBRATED_FLOW_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/gemm/gemm.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "quantization/calibrated/report.pb.h"
#include "quantization/calibrated/work_folder.h"
#include "quantization/calibration/windows.h"
#include "quantization/recipe/recipe.pb.h"

namespace nibble {

struct CalibratedProgress {
  int64_t block = 0;  // the one being worked on
  int64_t blocks = 0;
  double share = 0;  // of all work, 0 to 1
};

struct CalibratedOptions {
  std::string work_folder;  // made where it is not there; needed
  bool resume = false;
  // Blocks that other recipes have in common with this one are taken from this
  // folder and put there (block_cache.h); empty: none.
  std::string cache_folder;
  std::string program_version;
  // Of the products of all passes and of training.
  GemmPrecision precision = GemmPrecision::kBF16;
  // Measures what each matrix alone does to its block's output
  // (MatrixReport.damage); needs windows, whatever the recipe says.
  bool measure_damage = false;
  // When it becomes true the work ends with Cancelled, resumable. May be null.
  const std::atomic<bool>* cancelled = nullptr;
  // Called on the calling thread. May be null.
  std::function<void(const CalibratedProgress&)> progress;
};

struct CalibratedResult {
  // The quantized model (overlay.h); stays readable when `work` is removed.
  Checkpoint checkpoint;
  // Complete, with the digest of the windows: gives the same result again.
  Recipe recipe;
  CalibratedReport report;
  WorkFolder work;  // to be removed once the model is written
};

// `windows` may be null where the recipe needs no calibration. Errors name the
// file, tensor or field:
//   InvalidArgument     a recipe that contradicts itself or the model, windows
//                       that are missing or not those of its digest, a model
//                       that is packed or whose weights cannot be rounded (of
//                       the embedding and the head: before any block is made)
//   Unimplemented       rows of one tensor belong to several matrices
//   FailedPrecondition  the work folder belongs to other work (work_folder.h)
//   ResourceExhausted   the disk is full; the work can be resumed
//   Cancelled           likewise
//   Aborted             the model changed meanwhile
absl::StatusOr<CalibratedResult> QuantizeWithRecipe(
    const Checkpoint& checkpoint, const CalibrationWindows* windows,
    const Recipe& recipe, const CalibratedOptions& options, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_CALIBRATED_CALIBRATED_FLOW_H_
