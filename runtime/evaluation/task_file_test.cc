#include "runtime/evaluation/task_file.h"

#include <sys/stat.h>

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/evaluation/task.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

std::string WriteFile(const std::string& name, const std::string& bytes) {
  const std::string path = absl::StrCat(::testing::TempDir(), "/", name);
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  return path;
}

TaskSpec Spec(TaskKind kind, const std::string& path) {
  return {kind, path, std::string(TaskKindName(kind))};
}

// The items of a task file with these lines.
absl::StatusOr<std::vector<TextItem>> Read(TaskKind kind,
                                           const std::string& lines,
                                           int64_t limit = 0) {
  return ReadTaskFile(Spec(kind, WriteFile("task.jsonl", lines)), limit);
}

TEST(ParseTasks, ReadsKindsAndFiles) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const std::vector<TaskSpec> tasks,
      ParseTasks("perplexity:a.txt, lambada:dir/b.jsonl,piqa:c:d.jsonl"));
  ASSERT_EQ(tasks.size(), 3u);
  EXPECT_EQ(tasks[0].kind, TaskKind::kPerplexity);
  EXPECT_EQ(tasks[0].path, "a.txt");
  EXPECT_EQ(tasks[0].name, "perplexity");
  EXPECT_EQ(tasks[1].path, "dir/b.jsonl");
  EXPECT_EQ(tasks[2].path, "c:d.jsonl");
}

TEST(ParseTasks, NamesSeveralOfAKindByTheirFiles) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const std::vector<TaskSpec> tasks,
      ParseTasks("perplexity:a,lambada:b,perplexity:c,perplexity:d"));
  std::vector<std::string> names;
  for (const TaskSpec& task : tasks) names.push_back(task.name);
  EXPECT_THAT(names, ElementsAre("perplexity:a", "lambada", "perplexity:c",
                                 "perplexity:d"));
}

TEST(ParseTasks, ListsTheKnownOnesWhereOneIsUnknown) {
  EXPECT_THAT(ParseTasks("lambada:a,arc:b").status(),
              StatusIs(kInvalid, AllOf(HasSubstr("\"arc\""),
                                       HasSubstr("perplexity:FILE, "
                                                 "lambada:FILE, "
                                                 "hellaswag:FILE, piqa:FILE, "
                                                 "winogrande:FILE"))));
}

TEST(ParseTasks, RefusesWhatNamesNoFileAndWhatIsGivenTwice) {
  for (const char* list : {"", " ", "lambada", "lambada:", "lambada:a,",
                           ",lambada:a", "LAMBADA:a"}) {
    EXPECT_THAT(ParseTasks(list).status(), StatusIs(kInvalid, HasSubstr("")))
        << list;
  }
  EXPECT_THAT(ParseTasks("piqa:a,piqa:a").status(),
              StatusIs(kInvalid, HasSubstr("twice")));
}

TEST(TaskFile, LambadaIsSplitAtTheLastSpace) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(const std::vector<TextItem> items,
                              Read(TaskKind::kLambada,
                                   "{\"text\": \"He said  no\"}\n\n"
                                   "{\"text\": \"line\\nbreak here\"}"));
  ASSERT_EQ(items.size(), 2u);
  ASSERT_EQ(items[0].requests.size(), 1u);
  EXPECT_EQ(items[0].requests[0].context, "He said ");
  EXPECT_EQ(items[0].requests[0].continuation, " no");
  EXPECT_EQ(items[1].requests[0].context, "line\nbreak");
  // Blank lines count for where an error is.
  EXPECT_THAT(items[1].where, HasSubstr("task.jsonl:3"));
}

TEST(TaskFile, HellaSwagIsCleanedAndCapitalized) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const std::vector<TextItem> items,
      Read(
          TaskKind::kHellaSwag,
          R"({"activity_label": "Baking", "ctx_a": "[header] How to [title] Bake  it.",)"
          R"( "ctx_b": "a Man", "endings": [" goes [step] away. ", "eats [", "c", "d"],)"
          R"( "label": "2"})"));
  ASSERT_EQ(items.size(), 1u);
  EXPECT_EQ(items[0].gold, 2);
  ASSERT_EQ(items[0].requests.size(), 4u);
  for (const TextRequest& request : items[0].requests) {
    EXPECT_EQ(request.context, "Baking: How to. Bake it. A man");
  }
  EXPECT_EQ(items[0].requests[0].continuation, " goes away.");
  EXPECT_EQ(items[0].requests[1].continuation, " eats [");
}

TEST(TaskFile, BracketsAcrossLinesStay) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const std::vector<TextItem> items,
      Read(TaskKind::kHellaSwag,
           R"({"activity_label": "a[b\nc[d]e]", "ctx_a": "x", "ctx_b": "",)"
           R"( "endings": ["1", "2"], "label": 0})"));
  EXPECT_EQ(items[0].requests[0].context, "a[b\nce]: x");
}

TEST(TaskFile, PiqaHasItsLabelsBeside) {
  WriteFile("some-labels.lst", "1\n0\n");
  const std::string path =
      WriteFile("some.jsonl",
                "{\"goal\": \"Eat?\", \"sol1\": \"No. \", \"sol2\": \"Yes.\"}\n"
                "{\"goal\": \"b\", \"sol1\": \"c\", \"sol2\": \"d\"}\n");
  NIBBLE_ASSERT_OK_AND_ASSIGN(const std::vector<TextItem> items,
                              ReadTaskFile(Spec(TaskKind::kPiqa, path), 0));
  ASSERT_EQ(items.size(), 2u);
  EXPECT_EQ(items[0].gold, 1);
  EXPECT_EQ(items[1].gold, 0);
  EXPECT_EQ(items[0].requests[0].context, "Question: Eat?\nAnswer:");
  EXPECT_EQ(items[0].requests[0].continuation, " No. ");
  EXPECT_EQ(items[0].requests[1].continuation, " Yes.");

  NIBBLE_ASSERT_OK_AND_ASSIGN(const std::vector<TextItem> first,
                              ReadTaskFile(Spec(TaskKind::kPiqa, path), 1));
  ASSERT_EQ(first.size(), 1u);
  EXPECT_EQ(first[0].gold, 1);
}

TEST(TaskFile, PiqaTakesLabelsFromItsLines) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const std::vector<TextItem> items,
      Read(TaskKind::kPiqa,
           R"({"goal": "a", "sol1": "b", "sol2": "c", "label": 1})"));
  EXPECT_EQ(items[0].gold, 1);
}

TEST(TaskFile, PiqaLabelsMustFitTheItems) {
  const std::string item =
      "{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"c\"}\n";
  const std::string path = WriteFile("fit.jsonl", item + item);
  const auto error = [&](const std::string& labels) {
    WriteFile("fit-labels.lst", labels);
    return ReadTaskFile(Spec(TaskKind::kPiqa, path), 0).status();
  };
  EXPECT_THAT(error("1\n0\n"), IsOk());
  EXPECT_THAT(error("1\n"),
              StatusIs(kInvalid, AllOf(HasSubstr("fit-labels.lst"),
                                       HasSubstr("1 labels for 2"))));
  EXPECT_THAT(error("1\n0\n1\n"),
              StatusIs(kInvalid, HasSubstr("3 labels for 2")));
  EXPECT_THAT(error("1\n2\n"),
              StatusIs(kInvalid, HasSubstr("fit-labels.lst:2")));
  WriteFile("none.jsonl", item);
  EXPECT_THAT(
      ReadTaskFile(Spec(TaskKind::kPiqa, ::testing::TempDir() + "/none.jsonl"),
                   0)
          .status(),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("none-labels.lst")));
}

TEST(TaskFile, WinoGrandeScoresTheSameEndUnderBothOptions) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const std::vector<TextItem> items,
      Read(TaskKind::kWinoGrande,
           R"({"sentence": "Ann met Eve because _ was late. ",)"
           R"( "option1": "Ann", "option2": "Eve", "answer": "2"})"
           "\n"
           R"({"context_options": ["So Ann", "So Eve"],)"
           R"( "continuation": "left.", "gold": 1})"));
  ASSERT_EQ(items.size(), 2u);
  EXPECT_EQ(items[0].gold, 1);
  EXPECT_EQ(items[0].requests[0].context, "Ann met Eve because Ann");
  EXPECT_EQ(items[0].requests[1].context, "Ann met Eve because Eve");
  EXPECT_EQ(items[1].gold, 1);
  EXPECT_EQ(items[1].requests[1].context, "So Eve");
  for (const TextRequest& request : items[0].requests) {
    EXPECT_EQ(request.continuation, " was late.");
  }
  for (const TextRequest& request : items[1].requests) {
    EXPECT_EQ(request.continuation, " left.");
  }
}

struct BrokenLine {
  TaskKind kind;
  std::string line;
  std::string field;  // or what else the error has to name
};

TEST(TaskFile, NamesFileLineAndFieldOfABrokenLine) {
  const std::vector<BrokenLine> cases = {
      {TaskKind::kLambada, "{\"text\": \"cut", "JSON"},
      {TaskKind::kLambada, "[1]", "JSON"},
      {TaskKind::kLambada, "\xff{}", "JSON"},
      {TaskKind::kLambada, "{\"text\": \"a \xc3\"}", "JSON"},
      {TaskKind::kLambada, std::string(5000, '['), "JSON"},
      {TaskKind::kLambada, "{}", "\"text\""},
      {TaskKind::kLambada, "{\"text\": 1}", "\"text\""},
      {TaskKind::kLambada, "{\"text\": \"\"}", "\"text\""},
      {TaskKind::kLambada, "{\"text\": \"word\"}", "\"text\""},
      {TaskKind::kLambada, "{\"text\": \"ends here \"}", "\"text\""},
      {TaskKind::kLambada,
       "{\"text\": \"" + std::string(1 << 20, 'a') + " b\"}", "limit"},
      {TaskKind::kPiqa, R"({"sol1": "b", "sol2": "c"})", "\"goal\""},
      {TaskKind::kPiqa, R"({"goal": "a", "sol1": "b"})", "\"sol2\""},
      {TaskKind::kPiqa,
       R"({"goal": "a", "sol1": "b", "sol2": "c", "label": 2})", "\"label\""},
      {TaskKind::kHellaSwag,
       R"({"activity_label": "a", "ctx_a": "b", "ctx_b": "c", "endings": ["d"], "label": 0})",
       "\"endings\""},
      {TaskKind::kHellaSwag,
       R"({"activity_label": "a", "ctx_a": "b", "ctx_b": "c", "endings": ["d", 5], "label": 0})",
       "\"endings\""},
      {TaskKind::kHellaSwag,
       R"({"activity_label": "a", "ctx_a": "b", "ctx_b": "c", "endings": ["d", "e"], "label": 2})",
       "\"label\""},
      {TaskKind::kHellaSwag,
       R"({"activity_label": "a", "ctx_a": "b", "ctx_b": "c", "endings": ["d", "e"], "label": ""})",
       "\"label\""},
      {TaskKind::kHellaSwag,
       R"({"ctx_a": "b", "ctx_b": "c", "endings": ["d", "e"], "label": 0})",
       "\"activity_label\""},
      {TaskKind::kWinoGrande,
       R"({"sentence": "no blank", "option1": "a", "option2": "b", "answer": "1"})",
       "\"sentence\""},
      {TaskKind::kWinoGrande,
       R"({"sentence": "a _", "option1": "a", "option2": "b", "answer": "0"})",
       "\"answer\""},
      {TaskKind::kWinoGrande,
       R"({"sentence": "a _", "option1": "a", "answer": "1"})", "\"option2\""},
      {TaskKind::kWinoGrande,
       R"({"context_options": ["a", "b"], "continuation": "c", "gold": -1})",
       "\"gold\""},
      {TaskKind::kWinoGrande,
       R"({"context_options": ["a", "b"], "continuation": "c", "gold": 18446744073709551615})",
       "\"gold\""},
      {TaskKind::kWinoGrande,
       R"({"context_options": ["a", "b"], "continuation": "c", "gold": 0.5})",
       "\"gold\""},
  };
  for (const BrokenLine& broken : cases) {
    SCOPED_TRACE(broken.line.substr(0, 200));
    // Blank lines before it count for the number.
    EXPECT_THAT(Read(broken.kind, "\n \n" + broken.line).status(),
                StatusIs(kInvalid, AllOf(HasSubstr("task.jsonl:3"),
                                         HasSubstr(broken.field))));
  }
}

TEST(TaskFile, ABrokenLinePastTheLimitIsNotRead) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const std::vector<TextItem> items,
      Read(TaskKind::kLambada, "{\"text\": \"a b\"}\nbroken", /*limit=*/1));
  EXPECT_EQ(items.size(), 1u);
}

TEST(TaskFile, PiqaLabelsStandInAllLinesOrInNone) {
  EXPECT_THAT(Read(TaskKind::kPiqa,
                   R"({"goal": "a", "sol1": "b", "sol2": "c", "label": 1})"
                   "\n"
                   R"({"goal": "a", "sol1": "b", "sol2": "c"})")
                  .status(),
              StatusIs(kInvalid, AllOf(HasSubstr("task.jsonl:2"),
                                       HasSubstr("\"label\""))));
}

TEST(TaskFile, RefusesFilesWithoutItems) {
  for (const char* bytes : {"", "\n", " \n\t\n"}) {
    EXPECT_THAT(Read(TaskKind::kLambada, bytes).status(),
                StatusIs(kInvalid, HasSubstr("task.jsonl")))
        << bytes;
  }
  EXPECT_THAT(
      ReadTaskFile(Spec(TaskKind::kLambada, "no/such/file"), 0).status(),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("no/such/file")));
  EXPECT_THAT(
      ReadTaskFile(Spec(TaskKind::kLambada, ::testing::TempDir()), 0).status(),
      StatusIs(kInvalid, HasSubstr(::testing::TempDir())));
  const std::string fifo = ::testing::TempDir() + "/task_fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_THAT(ReadTaskFile(Spec(TaskKind::kLambada, fifo), 0).status(),
              StatusIs(kInvalid, HasSubstr(fifo)));
}

TEST(TaskFile, RefusesTextsThatAreNone) {
  const auto error = [](const std::string& bytes) {
    return ReadText(WriteFile("text.txt", bytes)).status();
  };
  EXPECT_THAT(error("some text"), IsOk());
  for (const std::string& bytes :
       {std::string(), std::string(" \n"), std::string("a\0b", 3),
        std::string("latin\xe9"), std::string("cut \xe2\x82")}) {
    EXPECT_THAT(error(bytes), StatusIs(kInvalid, HasSubstr("text.txt")));
  }
}

}  // namespace
}  // namespace nibble
