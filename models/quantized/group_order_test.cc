#include "models/quantized/group_order.h"

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::StatusIs;

TEST(GroupOrderTest, GroupsThatStandInOrderNeedNone) {
  EXPECT_THAT(*GroupOrder({0, 0, 1, 1, 2}, 2), IsEmpty());
  EXPECT_THAT(*GroupOrder({0, 0, 0}, 5), IsEmpty());
}

TEST(GroupOrderTest, InputsOfAGroupComeTogetherAndStayAscending) {
  EXPECT_THAT(*GroupOrder({1, 0, 1, 0}, 2), ElementsAre(1, 3, 0, 2));
  // The last group is the short one, wherever its inputs stand.
  EXPECT_THAT(*GroupOrder({2, 1, 0, 1, 0}, 2), ElementsAre(2, 4, 1, 3, 0));
}

TEST(GroupOrderTest, RejectsWhatIsNoPermutationByGroups) {
  constexpr int32_t kMin = std::numeric_limits<int32_t>::min();
  constexpr int32_t kMax = std::numeric_limits<int32_t>::max();
  const std::vector<std::pair<std::vector<int32_t>, std::string>> cases = {
      {{0, 0, 2, 1}, "input 2 is in group 2; there are 2 groups"},
      {{0, -1, 1, 1}, "input 1 is in group -1"},
      {{kMin, 0, 1, 1}, "there are 2 groups"},
      {{kMax, 0, 1, 1}, "there are 2 groups"},
      {{0, 0, 0, 1}, "group 0 has more inputs than the 2"},
      {{0, 0, 0, 0}, "group 0 has more inputs than the 2"},
      {{0, 1, 2, 2, 0}, "group 2 has more inputs than the 1"},
  };
  for (const auto& [g_idx, reason] : cases) {
    EXPECT_THAT(
        GroupOrder(g_idx, 2),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(reason)));
  }
}

}  // namespace
}  // namespace nibble
