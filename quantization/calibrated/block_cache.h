// Finished blocks that several recipes share, for searches that try recipes
// that differ in a few matrices.
//
//   BlockCache cache("search.work/blocks", identity, recipe, grids, chained);
//   const std::string key = cache.KeyOf(0, false);  // of each layer in turn
//   if (!cache.Take(key, work.BlockPath(0))) {
//     ...                                           // makes that file
//     cache.Put(key, work.BlockPath(0));
//   }
//
// A block's key names all that it depends on: model, calibration, arithmetic,
// method, its own grids and, where it was measured behind the quantized blocks
// before it, theirs. Files are shared by hard links, so that they take no room
// twice while a work folder has them.
#ifndef NIBBLE_QUANTIZATION_CALIBRATED_BLOCK_CACHE_H_
#define NIBBLE_QUANTIZATION_CALIBRATED_BLOCK_CACHE_H_

#include <cstdint>
#include <string>

#include "quantization/calibrated/work_folder.h"
#include "quantization/recipe/matrix_grids.h"
#include "quantization/recipe/recipe.pb.h"

namespace nibble {

class BlockCache {
 public:
  // An empty folder: nothing is cached. Borrows `grids`. `chained`: blocks
  // depend on those before them.
  BlockCache(const std::string& folder, const WorkIdentity& identity,
             const Recipe& recipe, const MatrixGrids& grids, bool chained);

  // REQUIRES: called for each layer from 0 on.
  std::string KeyOf(int64_t layer, bool measure_damage);

  // Whether the block was there, sound, and is now at `path`.
  bool Take(const std::string& key, const std::string& path) const;
  // The file at `path` is kept under `key`, where the file system has links.
  void Put(const std::string& key, const std::string& path) const;

 private:
  std::string PathOf(const std::string& key) const;

  const std::string folder_;
  const MatrixGrids& grids_;
  const bool chained_;
  std::string common_;    // of all blocks
  std::string previous_;  // the key of the block before
};

// Removes the oldest files of a cache's folder that no work folder has, until
// those take no more than `most` bytes. What cannot be removed stays.
void TrimBlockCache(const std::string& folder, int64_t most);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_CALIBRATED_BLOCK_CACHE_H_
