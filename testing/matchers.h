// Matchers for absl::Status and for arrays of floats.
//
//   EXPECT_THAT(file.status(), IsOk());
//   EXPECT_THAT(status, StatusIs(absl::StatusCode::kNotFound, HasSubstr("q")));
//   EXPECT_THAT(got, AllNear(want, 1e-6f));
//   NIBBLE_ASSERT_OK_AND_ASSIGN(auto model, OpenCheckpoint(path));
#ifndef NIBBLE_TESTING_MATCHERS_H_
#define NIBBLE_TESTING_MATCHERS_H_

#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble::testing {

inline const absl::Status& StatusOf(const absl::Status& status) {
  return status;
}
template <class T>
const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

// Also for absl::StatusOr.
MATCHER(IsOk, "is OK") {
  *result_listener << "which is " << StatusOf(arg).ToString();
  return StatusOf(arg).ok();
}

MATCHER_P2(StatusIs, code, message,
           "has code " + absl::StatusCodeToString(code) +
               " and a message that " +
               ::testing::DescribeMatcher<std::string>(message, negation)) {
  const absl::Status& status = StatusOf(arg);
  *result_listener << "which is " << status.ToString();
  return status.code() == code &&
         ::testing::Value(std::string(status.message()), message);
}

// Every element within `tolerance` of its partner, and none of them NaN.
MATCHER_P2(AllNear, expected, tolerance,
           "is within " + ::testing::PrintToString(tolerance) +
               " of the expected values") {
  const absl::Span<const float> got(arg.data(), arg.size());
  const absl::Span<const float> want(expected.data(), expected.size());
  if (got.size() != want.size()) {
    *result_listener << "which has " << got.size() << " elements, not "
                     << want.size();
    return false;
  }
  for (size_t i = 0; i < got.size(); ++i) {
    // Written so that NaN fails.
    if (!(std::abs(got[i] - want[i]) <= tolerance)) {
      *result_listener << "where element " << i << " is " << got[i] << ", not "
                       << want[i];
      return false;
    }
  }
  return true;
}

}  // namespace nibble::testing

#define NIBBLE_ASSERT_OK(expression) \
  ASSERT_THAT(expression, ::nibble::testing::IsOk())

#define NIBBLE_ASSERT_OK_AND_ASSIGN(target, expression) \
  NIBBLE_ASSERT_OK_AND_ASSIGN_IMPL(                     \
      NIBBLE_MATCHERS_CONCAT(status_or_, __LINE__), target, expression)
#define NIBBLE_ASSERT_OK_AND_ASSIGN_IMPL(result, target, expression) \
  auto result = expression;                                          \
  ASSERT_THAT(result, ::nibble::testing::IsOk());                    \
  target = *std::move(result)
#define NIBBLE_MATCHERS_CONCAT(a, b) NIBBLE_MATCHERS_CONCAT_IMPL(a, b)
#define NIBBLE_MATCHERS_CONCAT_IMPL(a, b) a##b

#endif  // NIBBLE_TESTING_MATCHERS_H_
