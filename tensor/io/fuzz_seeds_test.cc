// The files that the fuzz targets start from are sound, so that mutations of
// them get past the first checks.
#include <fstream>
#include <iterator>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/dtype.h"
#include "tensor/io/gguf.h"
#include "tensor/io/packed_file.h"
#include "tensor/io/packed_test_files.h"
#include "tensor/io/safetensors.h"
#include "tensor/io/tensor_source.h"
#include "tensor/io/test_files.h"
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
  EXPECT_THAT((*file)->names(), ElementsAre("blocks", "minimums", "plain"));
  EXPECT_NE((*file)->FindCoded("blocks"), nullptr);
  EXPECT_NE((*file)->FindCoded("minimums"), nullptr);
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

TEST(FuzzSeedsTest, PackedSeedIsSound) {
  const auto file = PackedFile::Open(RunfilePath("tensor/io/fuzz_seed.nib"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT((*file)->names(), ElementsAre("head", "norm", "qkv"));
  EXPECT_TRUE((*file)->VerifyAll().ok()) << (*file)->VerifyAll();
}

TEST(FuzzSeedsTest, OrderedPackedSeedIsSound) {
  const auto file =
      PackedFile::Open(RunfilePath("tensor/io/fuzz_seed_ordered.nib"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT((*file)->names(),
              ElementsAre("down", "down.input_order", "qkv", "up"));
  EXPECT_TRUE((*file)->FindPacked("qkv")->layout.has_minimums());
  EXPECT_EQ((*file)->Find("down.input_order")->dtype, DType::kI32);
  EXPECT_TRUE((*file)->VerifyAll().ok()) << (*file)->VerifyAll();
}

// The data that the fuzz target puts behind a manifest.
TEST(FuzzSeedsTest, ManifestSeedsFitTheFuzzTarget) {
  for (const std::string name : {"manifest", "ordered_manifest"}) {
    std::ifstream file(RunfilePath("tensor/io/fuzz_seed_" + name + ".bin"),
                       std::ios::binary);
    const std::string manifest(std::istreambuf_iterator<char>(file), {});
    const testing::AlignedBytes bytes(testing::NibBytes(
        manifest, std::string(testing::kSmallNibDataBytes, '\0')));
    const auto parsed = PackedFile::Parse("seed", bytes.span());
    EXPECT_TRUE(parsed.ok()) << name << ": " << parsed.status();
  }
}

}  // namespace
}  // namespace nibble
