#include "runtime/evaluation/task_file.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "nlohmann/json.hpp"
#include "runtime/evaluation/task.h"
#include "tensor/io/utf8.h"
#include "tensor/mapped_file.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

// Perplexity of a longer text takes days on a small model.
constexpr int64_t kMaxTextBytes = int64_t{1} << 30;
// A line of the tasks has some thousand bytes; one of a megabyte is no item.
constexpr size_t kMaxLineBytes = size_t{1} << 20;

absl::Status Invalid(absl::string_view where, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", problem));
}

absl::string_view TextOf(const MappedFile& file) {
  return absl::string_view(reinterpret_cast<const char*>(file.bytes().data()),
                           file.bytes().size());
}

// One line of a task file.
class Line {
 public:
  static absl::StatusOr<Line> Parse(absl::string_view text, std::string where) {
    if (text.size() > kMaxLineBytes) {
      return Invalid(where, absl::StrCat("longer than the limit of ",
                                         kMaxLineBytes, " bytes"));
    }
    Json object = Json::parse(text.begin(), text.end(), nullptr,
                              /*allow_exceptions=*/false);
    if (!object.is_object()) {
      return Invalid(where, "not a JSON object: the line is broken");
    }
    return Line(std::move(object), std::move(where));
  }

  const std::string& where() const { return where_; }
  bool Has(const char* field) const { return object_.contains(field); }

  absl::StatusOr<std::string> Text(const char* field) const {
    const auto found = object_.find(field);
    if (found == object_.end() || !found->is_string()) {
      return Error(field, "must be a string");
    }
    return found->get<std::string>();
  }

  absl::StatusOr<std::vector<std::string>> Texts(const char* field) const {
    constexpr absl::string_view kProblem =
        "must be a list of two strings or more";
    const auto found = object_.find(field);
    if (found == object_.end() || !found->is_array() || found->size() < 2) {
      return Error(field, kProblem);
    }
    std::vector<std::string> texts;
    for (const Json& text : *found) {
      if (!text.is_string()) return Error(field, kProblem);
      texts.push_back(text.get<std::string>());
    }
    return texts;
  }

  // One of `count` choices, counted from `first`: a number, or one in a string.
  absl::StatusOr<int64_t> Choice(const char* field, int64_t first,
                                 size_t count) const {
    int64_t number = first - 1;
    const auto found = object_.find(field);
    if (found != object_.end()) {
      if (found->is_number_integer()) {
        number = found->get<int64_t>();
      } else if (!found->is_string() ||
                 !absl::SimpleAtoi(found->get<std::string>(), &number)) {
        number = first - 1;
      }
    }
    const int64_t last = first + static_cast<int64_t>(count) - 1;
    if (number < first || number > last) {
      return Error(field, absl::StrCat("must be one of ", first, " to ", last));
    }
    return number - first;
  }

  absl::Status Error(const char* field, absl::string_view problem) const {
    return Invalid(where_, absl::StrCat("\"", field, "\" ", problem));
  }

 private:
  Line(Json object, std::string where)
      : object_(std::move(object)), where_(std::move(where)) {}

  Json object_;
  std::string where_;
};

absl::StatusOr<TextItem> LambadaItem(const Line& line) {
  absl::StatusOr<std::string> text = line.Text("text");
  if (!text.ok()) return text.status();
  const size_t space = text->rfind(' ');
  if (space == std::string::npos || space + 1 == text->size()) {
    return line.Error("text", "has no last word: no space stands before one");
  }
  TextItem item;
  item.requests.push_back({text->substr(0, space), text->substr(space)});
  return item;
}

// The brackets are WikiHow's, "[title]" among them.
std::string CleanHellaSwag(absl::string_view raw) {
  const std::string text = absl::StrReplaceAll(absl::StripAsciiWhitespace(raw),
                                               {{" [title]", ". "}});
  std::string kept;
  for (size_t i = 0; i < text.size();) {
    if (text[i] == '[') {
      const size_t end = text.find_first_of("]\n", i);
      if (end != std::string::npos && text[end] == ']') {
        i = end + 1;
        continue;
      }
    }
    kept.push_back(text[i++]);
  }
  return absl::StrReplaceAll(kept, {{"  ", " "}});
}

// First letter large, all others small; of ASCII, as the data's are.
std::string Capitalize(std::string text) {
  absl::AsciiStrToLower(&text);
  if (!text.empty()) text[0] = absl::ascii_toupper(text[0]);
  return text;
}

absl::StatusOr<TextItem> HellaSwagItem(const Line& line) {
  absl::StatusOr<std::string> label = line.Text("activity_label");
  if (!label.ok()) return label.status();
  absl::StatusOr<std::string> a = line.Text("ctx_a");
  if (!a.ok()) return a.status();
  absl::StatusOr<std::string> b = line.Text("ctx_b");
  if (!b.ok()) return b.status();
  absl::StatusOr<std::vector<std::string>> endings = line.Texts("endings");
  if (!endings.ok()) return endings.status();
  absl::StatusOr<int64_t> gold = line.Choice("label", 0, endings->size());
  if (!gold.ok()) return gold.status();
  const std::string context = CleanHellaSwag(
      absl::StrCat(*label, ": ", *a, " ", Capitalize(*std::move(b))));
  TextItem item;
  item.gold = *gold;
  for (const std::string& ending : *endings) {
    item.requests.push_back(
        {context, absl::StrCat(" ", CleanHellaSwag(ending))});
  }
  return item;
}

// Leaves `gold` to the labels file where the line has none.
absl::StatusOr<TextItem> PiqaItem(const Line& line) {
  absl::StatusOr<std::string> goal = line.Text("goal");
  if (!goal.ok()) return goal.status();
  TextItem item;
  for (const char* field : {"sol1", "sol2"}) {
    absl::StatusOr<std::string> solution = line.Text(field);
    if (!solution.ok()) return solution.status();
    item.requests.push_back({absl::StrCat("Question: ", *goal, "\nAnswer:"),
                             absl::StrCat(" ", *solution)});
  }
  if (!line.Has("label")) return item;
  absl::StatusOr<int64_t> gold = line.Choice("label", 0, 2);
  if (!gold.ok()) return gold.status();
  item.gold = *gold;
  return item;
}

absl::StatusOr<TextItem> WinoGrandeSchema(const Line& line) {
  absl::StatusOr<std::vector<std::string>> contexts =
      line.Texts("context_options");
  if (!contexts.ok()) return contexts.status();
  absl::StatusOr<std::string> continuation = line.Text("continuation");
  if (!continuation.ok()) return continuation.status();
  absl::StatusOr<int64_t> gold = line.Choice("gold", 0, contexts->size());
  if (!gold.ok()) return gold.status();
  TextItem item;
  item.gold = *gold;
  for (std::string& context : *contexts) {
    item.requests.push_back(
        {std::move(context), absl::StrCat(" ", *continuation)});
  }
  return item;
}

absl::StatusOr<TextItem> WinoGrandeItem(const Line& line) {
  if (line.Has("context_options")) return WinoGrandeSchema(line);
  absl::StatusOr<std::string> sentence = line.Text("sentence");
  if (!sentence.ok()) return sentence.status();
  const size_t blank = sentence->find('_');
  if (blank == std::string::npos) {
    return line.Error("sentence", "has no blank \"_\"");
  }
  const std::string rest =
      absl::StrCat(" ", absl::StripAsciiWhitespace(
                            absl::string_view(*sentence).substr(blank + 1)));
  absl::StatusOr<int64_t> gold = line.Choice("answer", 1, 2);
  if (!gold.ok()) return gold.status();
  TextItem item;
  item.gold = *gold;
  for (const char* field : {"option1", "option2"}) {
    absl::StatusOr<std::string> option = line.Text(field);
    if (!option.ok()) return option.status();
    item.requests.push_back(
        {absl::StrCat(sentence->substr(0, blank), *option), rest});
  }
  return item;
}

absl::StatusOr<TextItem> ItemOf(TaskKind kind, const Line& line) {
  switch (kind) {
    case TaskKind::kLambada:
      return LambadaItem(line);
    case TaskKind::kHellaSwag:
      return HellaSwagItem(line);
    case TaskKind::kPiqa:
      return PiqaItem(line);
    case TaskKind::kWinoGrande:
      return WinoGrandeItem(line);
    case TaskKind::kPerplexity:
      break;
  }
  return absl::InternalError("a text has no lines to read");
}

// "x.jsonl" has its labels in "x-labels.lst".
std::string LabelsPath(absl::string_view path) {
  return absl::StrCat(absl::StripSuffix(path, ".jsonl"), "-labels.lst");
}

// The line that stands first in `rest`, which it is taken from.
absl::string_view TakeLine(absl::string_view& rest) {
  const size_t end = rest.find('\n');
  const absl::string_view line = rest.substr(0, end);
  rest.remove_prefix(end == absl::string_view::npos ? rest.size() : end + 1);
  return absl::StripAsciiWhitespace(line);
}

// Labels of the items, which are the first of the file; all of them where
// `whole`.
absl::Status ReadLabels(const std::string& path, bool whole,
                        std::vector<TextItem>& items) {
  absl::StatusOr<std::shared_ptr<const MappedFile>> file =
      MappedFile::Open(path);
  if (!file.ok()) return file.status();
  size_t next = 0;
  int64_t number = 0;
  for (absl::string_view rest = TextOf(**file); !rest.empty();) {
    const absl::string_view line = TakeLine(rest);
    ++number;
    if (line.empty()) continue;
    if (line != "0" && line != "1") {
      return Invalid(absl::StrCat(path, ":", number), "label must be 0 or 1");
    }
    if (next < items.size()) {
      items[next].gold = line == "1" ? 1 : 0;
    } else if (!whole) {
      return absl::OkStatus();
    }
    ++next;
  }
  if (next == items.size()) return absl::OkStatus();
  return Invalid(path, absl::StrCat("holds ", next, " labels for ",
                                    items.size(), " items"));
}

}  // namespace

absl::StatusOr<std::vector<TextItem>> ReadTaskFile(const TaskSpec& spec,
                                                   int64_t limit) {
  absl::StatusOr<std::shared_ptr<const MappedFile>> file =
      MappedFile::Open(spec.path);
  if (!file.ok()) return file.status();
  std::vector<TextItem> items;
  bool labels_inside = false;
  absl::string_view rest = TextOf(**file);
  const auto full = [&] {
    return limit > 0 && static_cast<int64_t>(items.size()) == limit;
  };
  for (int64_t number = 1; !rest.empty() && !full(); ++number) {
    const absl::string_view text = TakeLine(rest);
    if (text.empty()) continue;
    absl::StatusOr<Line> line =
        Line::Parse(text, absl::StrCat(spec.path, ":", number));
    if (!line.ok()) return line.status();
    absl::StatusOr<TextItem> item = ItemOf(spec.kind, *line);
    if (!item.ok()) return item.status();
    item->where = line->where();
    if (items.empty()) {
      labels_inside = line->Has("label");
    } else if (spec.kind == TaskKind::kPiqa &&
               labels_inside != line->Has("label")) {
      return line->Error("label", "stands in some lines only");
    }
    items.push_back(*std::move(item));
  }
  if (items.empty()) return Invalid(spec.path, "holds no items");
  if (spec.kind == TaskKind::kPiqa && !labels_inside) {
    const absl::Status status =
        ReadLabels(LabelsPath(spec.path), /*whole=*/!full(), items);
    if (!status.ok()) return status;
  }
  return items;
}

absl::StatusOr<std::string> ReadText(const std::string& path) {
  absl::StatusOr<std::shared_ptr<const MappedFile>> file =
      MappedFile::Open(path);
  if (!file.ok()) return file.status();
  const absl::string_view text = TextOf(**file);
  if (static_cast<int64_t>(text.size()) > kMaxTextBytes) {
    return Invalid(path, absl::StrCat("longer than the limit of ",
                                      kMaxTextBytes, " bytes"));
  }
  if (absl::StrContains(text, '\0') || !IsUtf8(text)) {
    return Invalid(path, "is not a text: its bytes are not UTF-8");
  }
  if (absl::StripAsciiWhitespace(text).empty()) {
    return Invalid(path, "holds no text");
  }
  return std::string(text);
}

}  // namespace nibble
