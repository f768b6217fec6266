// A small checkpoint of every form that GPT-J, GPT-NeoX and Falcon have, as
// config.json and the shapes of its tensors, and such checkpoints with random
// weights on disk.
//
//   for (const TinyFamily& family : TinyFamilies()) {
//     ASSERT_THAT(WriteTinyFamily(dir, family, /*seed=*/3), IsOk());
//     auto checkpoint = OpenCheckpoint(dir);
//   }
//
// All have two layers, heads of 8 and a vocabulary of 97.
#ifndef NIBBLE_TESTING_TINY_FAMILIES_H_
#define NIBBLE_TESTING_TINY_FAMILIES_H_

#include <cstdint>
#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "tensor/shape.h"

namespace nibble::testing {

struct TinyFamily {
  std::string name;    // for the test's name
  std::string config;  // config.json
  std::map<std::string, Shape> tensors;
  int64_t heads = 0;
  // Of the fused qkv tensor; 0 where q, k and v are tensors of their own.
  int64_t groups = 0;
};

std::vector<TinyFamily> TinyFamilies();

void PrintTo(const TinyFamily& family, std::ostream* out);
std::string TinyFamilyName(const ::testing::TestParamInfo<TinyFamily>& info);

// Writes config.json and model.safetensors into `dir`, which is made if need
// be.
absl::Status WriteTinyFamily(const std::string& dir, const TinyFamily& family,
                             uint64_t seed);

}  // namespace nibble::testing

#endif  // NIBBLE_TESTING_TINY_FAMILIES_H_
