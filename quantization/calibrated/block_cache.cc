#include "quantization/calibrated/block_cache.h"

#include <filesystem>
#include <optional>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "quantization/block/block_weights.h"
#include "quantization/calibrated/block_file.h"
#include "quantization/calibration/digest.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

}  // namespace

BlockCache::BlockCache(const std::string& folder, const WorkIdentity& identity,
                       const Recipe& recipe, const MatrixGrids& grids,
                       bool chained)
    : folder_(folder), grids_(grids), chained_(chained) {
  // What says which grid a matrix has is left to the grids themselves.
  Recipe method = recipe;
  method.clear_grid();
  method.clear_layers();
  method.clear_head_bits();
  common_ = Digest()
                .Add(identity.model)
                .Add(identity.calibration)
                .Add(identity.program_version)
                .Add(method.SerializeAsString())
                .Hex();
}

std::string BlockCache::KeyOf(int64_t layer, bool measure_damage) {
  Digest digest;
  digest.Add(common_).Add(layer).Add(int64_t{measure_damage});
  if (chained_) digest.Add(previous_);
  for (const LinearId id : kAllLinears) {
    const std::optional<MatrixGrid> grid = grids_.Find(
        absl::StrCat("layers.", layer, ".", LinearName(id), ".weight"));
    digest.Add(int64_t{grid.has_value()});
    if (!grid.has_value()) continue;
    digest.Add(int64_t{grid->spec.bits}).Add(grid->spec.group_size);
    digest.Add(static_cast<int64_t>(grid->spec.offset));
    digest.Add(int64_t{grid->nearest});
  }
  previous_ = digest.Hex();
  return previous_;
}

std::string BlockCache::PathOf(const std::string& key) const {
  return absl::StrCat(folder_, "/", key, ".nib");
}

bool BlockCache::Take(const std::string& key, const std::string& path) const {
  if (folder_.empty() || !BlockFile::Open(PathOf(key)).ok()) return false;
  std::error_code error;
  fs::remove(path, error);
  fs::create_hard_link(PathOf(key), path, error);
  return !error;
}

absl::Status BlockCache::Put(const std::string& key,
                             const std::string& path) const {
  if (folder_.empty()) return absl::OkStatus();
  std::error_code error;
  fs::create_directories(folder_, error);
  fs::remove(PathOf(key), error);
  fs::create_hard_link(path, PathOf(key), error);
  if (!error) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat(PathOf(key), ": cannot be made: ", error.message()));
}

}  // namespace nibble
