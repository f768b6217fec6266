// generate on integer weights, end to end: quantizing into the cache, running
// from a packed model, the same text on every ISA, contradictions.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "apps/testing/run_program.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu.h"
#include "nlohmann/json.hpp"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Json = nlohmann::json;
using Flags = std::vector<std::string>;

std::string FloatModel() { return RunfilePath("apps/bundled_model"); }

class GeneratePacked : public ::testing::Test {
 protected:
  GeneratePacked() {
    input_.environment["XDG_CACHE_HOME"] = cache_;
    std::filesystem::remove_all(cache_);
  }

  ProgramResult Run(Flags flags) {
    flags.push_back("--prompt=Prince Andrew looked at Pierre and");
    flags.push_back("--temperature=0");
    flags.push_back("--max_tokens=24");
    flags.push_back("--output=json");
    return RunProgram("generate", flags, input_);
  }

  // The generated ids.
  std::vector<int32_t> Ids(const Flags& flags) {
    const ProgramResult result = Run(flags);
    EXPECT_EQ(result.exit_status, 0) << result.error;
    const Json report = Json::parse(result.output, nullptr, false);
    if (!report.is_object()) return {};
    return report["token_ids"].get<std::vector<int32_t>>();
  }

  // Packed models in the cache.
  std::vector<std::string> Cached() const {
    std::vector<std::string> paths;
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(cache_)) {
      const std::string path = entry.path().string();
      if (absl::EndsWith(path, ".nib")) paths.push_back(path);
    }
    return paths;
  }

  const std::string cache_ = ::testing::TempDir() + "/generate_packed_cache";
  ProgramInput input_;
};

TEST_F(GeneratePacked, QuantizesAFloatModelOnceAndRunsItFromTheCache) {
  const Flags flags = {"--model=" + FloatModel(), "--weights=int4",
                       "--group_size=32"};
  const std::vector<int32_t> ids = Ids(flags);
  EXPECT_EQ(ids.size(), 24u);
  ASSERT_EQ(Cached().size(), 1u);
  const std::string packed = Cached()[0];
  const auto written = std::filesystem::last_write_time(packed);
  EXPECT_EQ(Ids(flags), ids);
  EXPECT_EQ(Cached(), std::vector<std::string>{packed});
  EXPECT_EQ(std::filesystem::last_write_time(packed), written);
  EXPECT_EQ(Ids({"--model=" + packed}), ids);
  EXPECT_EQ(Ids({"--model=" + packed, "--weights=int4", "--group_size=32",
                 "--symmetric=false"}),
            ids);
}

TEST_F(GeneratePacked, EveryIsaWritesTheSameText) {
  const std::vector<int32_t> ids =
      Ids({"--model=" + FloatModel(), "--weights=int4"});
  ASSERT_EQ(Cached().size(), 1u);
  const std::string model = "--model=" + Cached()[0];
  int compared = 0;
  for (const Isa isa : kAllIsas) {
    if (!CpuSupports(isa)) continue;
    EXPECT_EQ(Ids({model, absl::StrCat("--isa=", IsaName(isa))}), ids)
        << IsaName(isa);
    ++compared;
  }
  EXPECT_GE(compared, 1);
}

TEST_F(GeneratePacked, RunsWithEachKindOfActivationsAndCache) {
  const Flags base = {"--model=" + FloatModel(), "--weights=int8"};
  const std::vector<int32_t> ids = Ids(base);
  for (const std::string flag :
       {"--activations=int8", "--activations=bf16", "--activations=f32",
        "--kv_cache=int8", "--kv_cache=bf16", "--kv_cache=f32"}) {
    Flags flags = base;
    flags.push_back(flag);
    EXPECT_EQ(Ids(flags).size(), 24u) << flag;
  }
  EXPECT_EQ(Cached().size(), 1u);
}

TEST_F(GeneratePacked, RefusesFlagsThatContradictThePackedModel) {
  Ids({"--model=" + FloatModel(), "--weights=int4", "--group_size=64"});
  ASSERT_EQ(Cached().size(), 1u);
  const std::string packed = Cached()[0];
  for (const std::string flag :
       {"--weights=f32", "--weights=bf16", "--weights=int8", "--group_size=32",
        "--symmetric=true"}) {
    const ProgramResult result = Run({"--model=" + packed, flag});
    EXPECT_EQ(result.exit_status, 1);
    EXPECT_THAT(result.error, AllOf(HasSubstr(flag), HasSubstr("contradicts"),
                                    HasSubstr(packed)));
    EXPECT_EQ(result.output, "");
  }
}

TEST_F(GeneratePacked, SaysWhatToDoWithoutAPlaceForTheCache) {
  input_.environment["XDG_CACHE_HOME"] = "/dev/null";
  const ProgramResult result =
      Run({"--model=" + FloatModel(), "--weights=int4"});
  EXPECT_EQ(result.exit_status, 1);
  EXPECT_THAT(result.error, HasSubstr("/dev/null"));
}

}  // namespace
}  // namespace nibble
