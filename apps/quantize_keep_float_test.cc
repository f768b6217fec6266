#include "apps/quantize_keep_float.h"

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

TEST(MatchKeepFloat, TellsTheHeadFromLayers) {
  const struct {
    const char* pattern;
    bool head, layers;
  } cases[] = {
      {"", false, false},
      {"^head", true, false},
      {"head.weight", true, false},
      {"d\\.w", true, false},
      {"head|layers\\.31\\.", true, true},
      {"weight", true, true},
      {"down", false, true},
      {"none", false, true},  // for the model's names to refuse
  };
  for (const auto& expected : cases) {
    const absl::StatusOr<KeptMatrices> kept = MatchKeepFloat(expected.pattern);
    ASSERT_TRUE(kept.ok()) << kept.status();
    EXPECT_EQ(kept->head, expected.head) << expected.pattern;
    EXPECT_EQ(kept->layers, expected.layers) << expected.pattern;
  }
}

TEST(MatchKeepFloat, RefusesWhatIsNoExpression) {
  const absl::Status status = MatchKeepFloat("(").status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("keep_float \"(\""));
}

}  // namespace
}  // namespace nibble
