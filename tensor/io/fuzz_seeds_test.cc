// The files that the fuzz targets start from are sound, so that mutations of
// them get past the first checks.
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/io/gguf.h"
#include "tensor/io/safetensors.h"
#include "tensor/io/tensor_source.h"
#include "testing/shared_data.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using testing::RunfilePath;

void ExpectAllFound(const TensorSource& source) {
  for (const std::string& name : source.names()) {
    EXPECT_TRUE(source.Find(name).ok()) << source.Find(name).status();
  }
}

TEST(FuzzSeedsTest, GgufSeedIsSound) {
  const auto file = GgufFile::Open(RunfilePath("tensor/io/fuzz_seed.gguf"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT((*file)->names(), ElementsAre("blocks", "plain"));
  EXPECT_THAT(*(*file)->GetStringArray("tokens"), ElementsAre("a", "bc"));
  EXPECT_THAT(*(*file)->GetFloatArray("scores"), ElementsAre(0.0f, 1.0f));
  ExpectAllFound(**file);
}

TEST(FuzzSeedsTest, SafetensorsSeedIsSound) {
  const auto source =
      OpenSafetensors(RunfilePath("tensor/io/fuzz_seed.safetensors"));
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_THAT((*source)->names(), ElementsAre("a", "b", "c"));
  ExpectAllFound(**source);
}

}  // namespace
}  // namespace nibble
