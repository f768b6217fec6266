// Finds test data that is too large, or not ours, to live in the repository.
//
//   const auto path =
//   nibble::testing::SharedDataPath("text/war-and-peace.txt"); if (!path)
//   GTEST_SKIP() << "shared data is not beside the checkout";
//
// The data lives in `shared/data`, beside the checkout or in a folder above
// it; the environment variable NIBBLE_SHARED_DATA names it outright. A test
// must check what it can without this data, and skip only the rest.
#ifndef NIBBLE_TESTING_SHARED_DATA_H_
#define NIBBLE_TESTING_SHARED_DATA_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace nibble::testing {

// The absolute path of `relative` below the shared data, or nullopt when there
// is no shared data or no such file in it.
std::optional<std::string> SharedDataPath(absl::string_view relative);

// The absolute path of a file of this repository that the test lists in its
// `data`, such as "testing/data/llama-gqa/config.json".
std::string RunfilePath(absl::string_view relative);

}  // namespace nibble::testing

#endif  // NIBBLE_TESTING_SHARED_DATA_H_
