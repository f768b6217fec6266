// The folder of finished blocks beside an output that is being made, from
// which a run that was killed goes on.
//
//   absl::StatusOr<WorkFolder> work =
//       WorkFolder::Open("out.nib.work", identity, /*resume=*/true);
//   absl::StatusOr<std::vector<std::shared_ptr<const BlockFile>>> done =
//       work->FinishedBlocks(layers, &notes);
//   WriteBlock(work->BlockPath(done->size()), block);
//   absl::Status removed = work->Remove();
//
//   begun         text: what the blocks belong to
//   block-0.nib   block_file.h; and so on
#ifndef NIBBLE_QUANTIZATION_CALIBRATED_WORK_FOLDER_H_
#define NIBBLE_QUANTIZATION_CALIBRATED_WORK_FOLDER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "quantization/calibrated/block_file.h"

namespace nibble {

// What finished blocks depend on.
struct WorkIdentity {
  std::string recipe;       // as text, of any number of lines
  std::string model;        // model_digest.h
  std::string calibration;  // CalibrationWindows::digest; empty: none
  std::string program_version;
  // Sums are added up in the order of an instruction set.
  std::string isa;        // IsaName of the active one
  std::string precision;  // of the products: "bf16", "f32"
};

class WorkFolder {
 public:
  // Makes the folder, or with `resume` takes over one that is there.
  //   FailedPrecondition  it holds finished blocks and `resume` is not set, or
  //                       they belong to another recipe, model, text, version,
  //                       instruction set or precision (which one is said, and
  //                       what to do)
  //   InvalidArgument     something else stands there
  // A folder without finished blocks is begun anew.
  static absl::StatusOr<WorkFolder> Open(const std::string& path,
                                         const WorkIdentity& identity,
                                         bool resume);

  // Those at the front that are whole, at most `layers`. One that is damaged,
  // or missing while later ones are there, is said in `notes`; it and those
  // behind it are removed. Any other error of the file system leaves all as it
  // is, and names the file.
  absl::StatusOr<std::vector<std::shared_ptr<const BlockFile>>> FinishedBlocks(
      int64_t layers, std::vector<std::string>* notes) const;

  std::string BlockPath(int64_t layer) const;
  const std::string& path() const { return path_; }

  // Removes the folder and what it wrote there. Blocks that are open stay
  // readable.
  absl::Status Remove() const;

 private:
  explicit WorkFolder(std::string path) : path_(std::move(path)) {}

  std::string path_;
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_CALIBRATED_WORK_FOLDER_H_
