#include "apps/common/app.h"

#include <string>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

ABSL_FLAG(int, app_test_number, 7, "a number for the test");
ABSL_FLAG(std::string, app_test_text, "", "a text for the test");

namespace nibble {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(ExitStatus, TellsBadInputFromProgramFaults) {
  EXPECT_EQ(ExitStatus(absl::OkStatus()), 0);
  EXPECT_EQ(ExitStatus(absl::InvalidArgumentError("flag")), 1);
  EXPECT_EQ(ExitStatus(absl::NotFoundError("file")), 1);
  EXPECT_EQ(ExitStatus(absl::UnimplementedError("dtype")), 1);
  EXPECT_EQ(ExitStatus(absl::InternalError("bug")), 2);
  EXPECT_EQ(ExitStatus(absl::UnknownError("bug")), 2);
}

TEST(ErrorLine, IsOneLineThatNamesTheProgram) {
  EXPECT_EQ(ErrorLine("score", absl::NotFoundError("a\nb: missing")),
            "score: a b: missing");
}

TEST(FlagError, NamesFlagValueAndProblem) {
  EXPECT_EQ(FlagError("top_p", "2", "must be at most 1").message(),
            "--top_p=2: must be at most 1");
}

TEST(HelpText, HasOneLineWithDefaultPerFlagOfOurs) {
  const std::string help = HelpText({"app_test", "A test.", "FILE"});
  EXPECT_THAT(help, HasSubstr("app_test: A test."));
  EXPECT_THAT(help, HasSubstr("Usage: app_test [--flag=value ...] FILE"));
  EXPECT_THAT(help, HasSubstr("--app_test_number  a number for the test "
                              "(default: 7)\n"));
  EXPECT_THAT(help, HasSubstr("--app_test_text  a text for the test "
                              "(default: none)\n"));
  EXPECT_THAT(help, Not(HasSubstr("flagfile")));
}

TEST(RunApp, RefusesArgumentsThatAreNoFlags) {
  char program[] = "app_test", argument[] = "stray";
  char* argv[] = {program, argument, nullptr};
  bool ran = false;
  const auto body = [&](absl::Span<const std::string>) {
    ran = true;
    return absl::OkStatus();
  };
  EXPECT_EQ(RunApp(2, argv, {"app_test", "A test."}, body), 1);
  EXPECT_FALSE(ran);
}

TEST(RunApp, HandsPositionalArgumentsToTheBody) {
  char program[] = "app_test", flag[] = "--app_test_number=9",
       file[] = "f.gguf";
  char* argv[] = {program, flag, file, nullptr};
  std::string seen;
  const auto body = [&](absl::Span<const std::string> positional) {
    for (const std::string& argument : positional) seen += argument + ";";
    return absl::InternalError("to see the status");
  };
  EXPECT_EQ(RunApp(3, argv, {"app_test", "A test.", "FILE"}, body), 2);
  EXPECT_EQ(seen, "f.gguf;");
  EXPECT_EQ(absl::GetFlag(FLAGS_app_test_number), 9);
}

using RunAppDeathTest = ::testing::Test;

TEST(RunAppDeathTest, ExitsWithOneLineOnBadFlags) {
  const auto run = [](std::string argument) {
    char program[] = "app_test";
    char* argv[] = {program, argument.data(), nullptr};
    return RunApp(2, argv, {"app_test", "A test."},
                  [](absl::Span<const std::string>) {
                    return absl::InternalError("the body ran");
                  });
  };
  EXPECT_EXIT(std::exit(run("--no_such_flag=1")), ::testing::ExitedWithCode(1),
              "^ERROR: [^\n]*no_such_flag[^\n]*\n$");
  EXPECT_EXIT(std::exit(run("--app_test_number=x")),
              ::testing::ExitedWithCode(1),
              "^ERROR: [^\n]*'x'[^\n]*app_test_number[^\n]*\n$");
}

TEST(RunAppDeathTest, AFailedCheckExitsWithTwo) {
  const auto run = [] {
    char program[] = "app_test";
    char* argv[] = {program, nullptr};
    return RunApp(
        1, argv, {"app_test", "A test."},
        [](absl::Span<const std::string>) -> absl::Status { std::abort(); });
  };
  EXPECT_EXIT(std::exit(run()), ::testing::ExitedWithCode(2), "");
}

}  // namespace
}  // namespace nibble
