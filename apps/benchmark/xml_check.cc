#include "apps/benchmark/xml_check.h"

#include <cstddef>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "re2/re2.h"

namespace nibble {
namespace {

constexpr char kEntity[] =
    R"(&(?:amp|lt|gt|quot|apos|#[0-9]+|#x[0-9a-fA-F]+);)";

class Checker {
 public:
  explicit Checker(absl::string_view text) : rest_(text) {}

  std::string Check() {
    (void)RE2::Consume(&rest_, R"(<!DOCTYPE [a-z]+>\s*)");
    while (problem_.empty() && !rest_.empty()) {
      if (rest_[0] == '<') {
        Tag();
      } else {
        Text();
      }
    }
    if (problem_.empty() && !open_.empty()) {
      Fail(absl::StrCat("<", open_.back(), "> is not closed"));
    }
    if (problem_.empty() && roots_ != 1) {
      Fail(absl::StrCat(roots_, " root elements"));
    }
    return problem_;
  }

 private:
  void Fail(absl::string_view problem) {
    problem_ = absl::StrCat(problem, ", before: ", rest_.substr(0, 60));
  }

  void Text() {
    const absl::string_view text = rest_.substr(0, rest_.find('<'));
    std::string plain(text);
    RE2::GlobalReplace(&plain, kEntity, "");
    if (absl::StrContains(plain, "&")) return Fail("a bare & in text");
    if (open_.empty() && !RE2::FullMatch(text, R"(\s*)")) {
      return Fail("text outside the root");
    }
    rest_.remove_prefix(text.size());
  }

  void Tag() {
    std::string name;
    if (RE2::Consume(&rest_, R"(</([A-Za-z][\w-]*)\s*>)", &name)) {
      if (open_.empty() || open_.back() != name) {
        return Fail(absl::StrCat("</", name, "> closes nothing"));
      }
      open_.pop_back();
      return;
    }
    if (!RE2::Consume(&rest_, R"(<([A-Za-z][\w-]*))", &name)) {
      return Fail("a bare <");
    }
    Attributes();
    if (!problem_.empty()) return;
    if (open_.empty()) ++roots_;
    if (RE2::Consume(&rest_, R"(\s*/>)")) return;
    if (!RE2::Consume(&rest_, R"(\s*>)")) {
      return Fail(absl::StrCat("a broken tag <", name));
    }
    open_.push_back(name);
  }

  void Attributes() {
    std::set<std::string> seen;
    std::string name, value;
    while (RE2::Consume(&rest_, R"(\s+([A-Za-z][\w:-]*)="([^"<]*)\")", &name,
                        &value)) {
      if (!seen.insert(name).second) return Fail(name + " given twice");
      RE2::GlobalReplace(&value, kEntity, "");
      if (absl::StrContains(value, "&")) return Fail("a bare & in " + name);
    }
  }

  absl::string_view rest_;
  std::vector<std::string> open_;
  int roots_ = 0;
  std::string problem_;
};

}  // namespace

std::string XmlProblem(absl::string_view text) { return Checker(text).Check(); }

}  // namespace nibble
