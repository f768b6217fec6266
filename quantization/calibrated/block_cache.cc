#include "quantization/calibrated/block_cache.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <tuple>
#include <utility>
#include <vector>

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
                .Add(identity.isa)
                .Add(identity.precision)
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

void BlockCache::Put(const std::string& key, const std::string& path) const {
  if (folder_.empty()) return;
  std::error_code ignored;
  fs::create_directories(folder_, ignored);
  fs::remove(PathOf(key), ignored);
  fs::create_hard_link(path, PathOf(key), ignored);
}

void TrimBlockCache(const std::string& folder, int64_t most) {
  struct Unused {
    fs::file_time_type written;
    fs::path path;
    int64_t bytes = 0;
  };
  std::vector<Unused> files;
  int64_t bytes = 0;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    std::error_code error;
    Unused file;
    file.path = entry.path();
    file.written = fs::last_write_time(file.path, error);
    if (error || fs::hard_link_count(file.path, error) != 1) continue;
    file.bytes = static_cast<int64_t>(fs::file_size(file.path, error));
    if (error) continue;
    bytes += file.bytes;
    files.push_back(std::move(file));
  }
  std::sort(files.begin(), files.end(), [](const Unused& a, const Unused& b) {
    return std::tie(a.written, a.path) < std::tie(b.written, b.path);
  });
  for (const Unused& file : files) {
    if (bytes <= most) return;
    if (fs::remove(file.path, ignored)) bytes -= file.bytes;
  }
}

}  // namespace nibble
