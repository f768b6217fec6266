// generate refuses bad input with one line that names it, and exit status 1.

#include <sys/stat.h>

#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "apps/testing/run_program.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

using Flags = std::vector<std::string>;

void ExpectRefusal(const Flags& flags, const std::string& what,
                   const ProgramInput& input = {}) {
  const ProgramResult result = RunProgram("generate", flags, input);
  SCOPED_TRACE(absl::StrJoin(flags, " "));
  EXPECT_EQ(result.exit_status, 1);
  EXPECT_TRUE(IsOneLine(result.error)) << result.error;
  EXPECT_THAT(result.error, HasSubstr(what));
  EXPECT_EQ(result.output, "");
}

TEST(GenerateErrors, NameTheFlagThatIsOutOfRange) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"--max_tokens=0", "--max_tokens"},
      {"--max_tokens=-1", "--max_tokens"},
      {"--max_tokens=many", "max_tokens"},
      {"--max_tokens=99999999999999999999", "max_tokens"},
      {"--threads=0", "--threads"},
      {"--threads=-2", "--threads"},
      {"--threads=1000000", "--threads"},
      {"--stop=", "--stop"},
      {"--temperature=nan", "--temperature"},
      {"--temperature=-1", "--temperature"},
      {"--temperature=inf", "--temperature"},
      {"--top_k=-1", "--top_k"},
      {"--top_p=1.5", "--top_p"},
      {"--top_p=nan", "--top_p"},
      {"--min_p=-0.1", "--min_p"},
      {"--repetition_penalty=0", "--repetition_penalty"},
      {"--repetition_penalty=nan", "--repetition_penalty"},
      {"--frequency_penalty=inf", "--frequency_penalty"},
      {"--presence_penalty=nan", "--presence_penalty"},
      {"--logit_bias=5", "logit_bias"},
      {"--logit_bias=5:nan", "logit_bias"},
      {"--logit_bias=4096:1", "--logit_bias"},
      {"--num_beams=0", "--num_beams"},
      {"--num_beams=1000000", "--num_beams"},
      {"--seed=-1", "seed"},
      {"--seed=18446744073709551616", "seed"},
      {"--token_ids=1,x", "token_ids"},
      {"--output=xml", "--output"},
      {"--isa=sse9", "--isa"},
      {"--weights=f64", "--weights"},
      {"--activations=f16", "--activations"},
      {"--kv_cache=f64", "--kv_cache"},
      {"--weights=int5", "--weights"},
      {"--group_size=0", "--group_size"},
      {"--group_size=-32", "--group_size"},
      {"--group_size=100", "multiple of 32"},
      {"--group_size=many", "group_size"},
      {"--symmetric=perhaps", "symmetric"},
      {"--no_such_flag=1", "no_such_flag"},
      {"--chat=maybe", "chat"},
  };
  for (const auto& [flag, name] : cases) {
    ExpectRefusal({"--prompt=x", flag}, name);
  }
}

TEST(GenerateErrors, NameFlagsThatContradictEachOther) {
  ExpectRefusal({"--prompt=x", "--token_ids=1"}, "contradict");
  ExpectRefusal({"--prompt=x", "--prompt_file=y"}, "contradict");
  ExpectRefusal({"--chat", "--token_ids=1"}, "contradict");
  ExpectRefusal({"--prompt=x", "--system=y"}, "--system needs --chat");
  ExpectRefusal({"--prompt=x", "--num_beams=2", "--temperature=0.5"},
                "num_beams");
  ExpectRefusal({"--prompt=x", "--weights=f32", "--activations=bf16"},
                "--activations=bf16");
  ExpectRefusal({"--prompt=x", "--weights=bf16", "--activations=int8"},
                "--activations=int8: contradicts --weights=bf16");
  ExpectRefusal({"--prompt=x", "--weights=bf16", "--group_size=32"},
                "--group_size=32: contradicts --weights=bf16");
  ExpectRefusal({"--prompt=x", "--weights=f32", "--symmetric=false"},
                "--symmetric=false: contradicts --weights=f32");
  ExpectRefusal({"--prompt=x", "--weights=int8", "--symmetric=false"},
                "--symmetric=false: contradicts --weights=int8");
  ExpectRefusal({"--prompt=x", "--group_size=64"}, "need --weights=int4");
  const std::string packed =
      RunfilePath("apps/bundled_model/tolstoy-llama.nib");
  ExpectRefusal({"--prompt=x", "--group_size=64", "--model=" + packed},
                "has groups of 32");
  ExpectRefusal({}, "--prompt");
}

TEST(GenerateErrors, RefuseArgumentsThatAreNoFlags) {
  ExpectRefusal({"--prompt=Once", "upon"}, "upon");
}

TEST(GenerateErrors, NameTheFileThatCannotBeRead) {
  ExpectRefusal({"--prompt_file=no/such/file"}, "no/such/file");
  ExpectRefusal({"--prompt_file=/"}, "folder");
  ExpectRefusal({"--prompt=x", "--model=no/such/model"}, "no/such/model");
  const std::string empty = ::testing::TempDir() + "/empty_folder";
  mkdir(empty.c_str(), 0755);
  ExpectRefusal({"--prompt=x", "--model=" + empty}, "config.json");
  const std::string junk = ::testing::TempDir() + "/junk.gguf";
  std::ofstream(junk) << "GGUF";
  ExpectRefusal({"--prompt=x", "--model=" + junk}, junk);
  ExpectRefusal({"--prompt=x", "--model=/dev/null"}, "/dev/null");
}

TEST(GenerateErrors, SayHowToFetchAMissingModel) {
  ExpectRefusal({"--prompt=x", "--model=smollm2"}, "tools/fetch_model smollm2",
                {"", "", {{"XDG_CACHE_HOME", ::testing::TempDir()}}});
}

TEST(GenerateErrors, RefuseAPromptLongerThanTheContext) {
  std::string ids = "1";
  for (int i = 0; i < 1024; ++i) ids += ",300";
  ExpectRefusal({"--token_ids=" + ids}, "1024");
  ExpectRefusal({"--prompt_file=-"}, "1024",
                {std::string(1 << 20, 'x'), "", {}});
}

TEST(GenerateErrors, RefuseTokensOutsideTheVocabulary) {
  ExpectRefusal({"--token_ids=4096"}, "4096");
  ExpectRefusal({"--token_ids="}, "prompt");
}

TEST(GenerateErrors, SayThatABaseModelCannotChat) {
  ExpectRefusal({"--chat", "--prompt=Hello"}, "no chat template");
  ExpectRefusal({"--chat"}, "--prompt");
}

TEST(GenerateErrors, NoticeThatOutputIsLost) {
  const ProgramResult result =
      RunProgram("generate", {"--prompt=x", "--max_tokens=2", "--output=json"},
                 {"", "/dev/full", {}});
  EXPECT_EQ(result.exit_status, 1);
  EXPECT_THAT(result.error, HasSubstr("standard output"));
}

TEST(GenerateErrors, HelpNeedsNothingElse) {
  const ProgramResult result = RunProgram("generate", {"--help"});
  EXPECT_EQ(result.exit_status, 0);
  EXPECT_THAT(result.output, HasSubstr("--max_tokens  "));
  EXPECT_THAT(result.output, HasSubstr("(default: 128)\n"));
  EXPECT_EQ(result.error, "");
}

}  // namespace
}  // namespace nibble
