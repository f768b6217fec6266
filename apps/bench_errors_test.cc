// What bench refuses, and what it says.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "apps/testing/run_program.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/memory.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

void ExpectRefused(const std::vector<std::string>& flags,
                   const std::string& reason) {
  const ProgramResult result = RunProgram("bench", flags);
  EXPECT_EQ(result.exit_status, 1) << reason;
  EXPECT_TRUE(IsOneLine(result.error)) << result.error;
  EXPECT_THAT(result.error, HasSubstr(reason));
  EXPECT_EQ(result.output, "");
}

TEST(BenchErrors, NamesTheFlagAndTheValue) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"--shape=llama-8t", "--shape=llama-8t: unknown shape"},
      {"--products=gate", "--products=gate: 'gate' is not one of"},
      {"--products=up,up", "up is given twice"},
      {"--rows=0", "--rows=0: '0' is not a whole number"},
      {"--rows=", "--rows="},
      {"--rows=1,1", "--rows=1,1: 1 is given twice"},
      {"--prompt=12x", "--prompt=12x"},
      {"--prompt=-3", "--prompt=-3"},
      {"--prompt=99999999999999999999", "--prompt=9999"},
      {"--decode=-1", "--decode=-1"},
      {"--decode=99999999", "--decode=99999999"},
      {"--depth=-1", "--depth=-1"},
      {"--depth=1,,2", "--depth=1,,2"},
      {"--depth=", "--depth="},
      {"--streams=0", "--streams=0"},
      {"--streams=", "--streams="},
      {"--repetitions=0", "--repetitions=0"},
      {"--output=xml", "--output=xml"},
      {"--head=int4", "--head=int4: is for --shape"},
      {"--isa=mmx", "--isa=mmx"},
      {"--threads=0", "--threads=0"},
      {"--weights=int3", "--weights=int3"},
      {"--kv_cache=int4", "--kv_cache=int4"},
      {"--activations=f64", "--activations=f64"},
      {"--model=/no/such/model", "/no/such/model"},
      {"--plot=/no/such/folder/plot.html", "/no/such/folder"},
      {"stray", "unexpected argument 'stray'"},
  };
  for (const auto& [flag, reason] : cases) ExpectRefused({flag}, reason);
}

TEST(BenchErrors, RefusesFlagsThatContradictEachOther) {
  const std::string shape = "--shape=tinyllama-1.1b";
  ExpectRefused({shape, "--model=x.gguf"}, "contradicts --model");
  ExpectRefused({shape, "--head=f16"}, "--head=f16");
  ExpectRefused({shape, "--weights=bf16", "--group_size=32"},
                "--group_size=32");
  ExpectRefused({shape, "--weights=int4", "--group_size=33"},
                "--group_size=33");
  ExpectRefused({"--products=", "--prompt=", "--decode=0"},
                "nothing to measure");
}

TEST(BenchErrors, RefusesAShapeThatDoesNotFitIntoMemory) {
  // 20.6 billion floats, and the embedding in bf16.
  if (AvailableMemoryBytes() > int64_t{80'000'000'000}) {
    GTEST_SKIP() << "this machine has the memory";
  }
  ExpectRefused({"--shape=gpt-neox-20b", "--weights=f32"},
                "--shape=gpt-neox-20b: its weights take");
}

}  // namespace
}  // namespace nibble
