#include "runtime/chat_template.h"

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "minja/minja.hpp"
#include "nlohmann/json.hpp"
#include "runtime/isolated_call.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

using Json = nlohmann::ordered_json;

// ---- Running the template. minja throws; nothing here lets that out.

struct Program {
  std::string source, bos_token, eos_token;
};

// Local time, taken before the work moves to a child process.
using LocalTime = std::tm;

LocalTime Now() {
  const std::time_t now = std::time(nullptr);
  LocalTime local = {};
  localtime_r(&now, &local);
  return local;
}

std::shared_ptr<minja::TemplateNode> Parse(const Program& program) {
  // The settings that Hugging Face renders chat templates with.
  return minja::Parser::parse(program.source,
                              {/*trim_blocks=*/true,
                               /*lstrip_blocks=*/true,
                               /*keep_trailing_newline=*/false});
}

Json ToJson(absl::Span<const ChatMessage> messages) {
  Json list = Json::array();
  for (const ChatMessage& message : messages) {
    list.push_back({{"role", message.role}, {"content", message.content}});
  }
  return list;
}

std::string RenderOrThrow(const Program& program,
                          const std::shared_ptr<minja::TemplateNode>& root,
                          absl::Span<const ChatMessage> messages,
                          const LocalTime& now) {
  const auto context = minja::Context::make(minja::Value(
      Json{{"messages", ToJson(messages)}, {"add_generation_prompt", true}}));
  context->set("bos_token", program.bos_token);
  context->set("eos_token", program.eos_token);
  context->set("strftime_now",
               minja::Value::callable(
                   [now](const std::shared_ptr<minja::Context>&,
                         minja::ArgumentsValue& arguments) -> minja::Value {
                     arguments.expectArgs("strftime_now", {1, 1}, {0, 0});
                     const auto format = arguments.args[0].get<std::string>();
                     char text[256];
                     const size_t size = std::strftime(text, sizeof(text),
                                                       format.c_str(), &now);
                     return std::string(text, size);
                   }));
  return root->render(context);
}

// Many templates of early models know no system role: they raise an exception
// or leave such a message out.
bool HasSystemRole(const Program& program,
                   const std::shared_ptr<minja::TemplateNode>& root,
                   const LocalTime& now) {
  constexpr char kProbe[] = "nibble-system-probe";
  try {
    return absl::StrContains(
        RenderOrThrow(program, root, {{"system", kProbe}, {"user", "x"}}, now),
        kProbe);
  } catch (const std::exception&) {
    return false;
  }
}

// Moves a leading system message into the first user message.
std::vector<ChatMessage> MergeSystemMessage(
    absl::Span<const ChatMessage> messages) {
  std::vector<ChatMessage> merged(messages.begin() + 1, messages.end());
  for (ChatMessage& message : merged) {
    if (message.role != "user") continue;
    message.content =
        absl::StrCat(messages[0].content, "\n\n", message.content);
    return merged;
  }
  merged.insert(merged.begin(), {"user", messages[0].content});
  return merged;
}

absl::StatusOr<std::string> RunTemplate(const Program& program,
                                        absl::Span<const ChatMessage> messages,
                                        const LocalTime& now) {
  try {
    const auto root = Parse(program);
    const bool has_system = !messages.empty() && messages[0].role == "system";
    if (has_system && !HasSystemRole(program, root, now)) {
      return RenderOrThrow(program, root, MergeSystemMessage(messages), now);
    }
    return RenderOrThrow(program, root, messages, now);
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(error.what());
  }
}

// ---- Messages that spell special tokens.

// Special tokens of the vocabulary, by text, longest first.
std::vector<std::pair<std::string, int32_t>> SpecialTokens(
    const Tokenizer& tokenizer) {
  std::vector<std::pair<std::string, int32_t>> tokens;
  for (int64_t id = 0; id < tokenizer.vocabulary_size(); ++id) {
    const auto token = static_cast<int32_t>(id);
    const absl::string_view text = tokenizer.TokenText(token);
    if (tokenizer.IsSpecial(token) && !text.empty()) {
      tokens.emplace_back(std::string(text), token);
    }
  }
  std::stable_sort(tokens.begin(), tokens.end(), [](auto& a, auto& b) {
    return a.first.size() > b.first.size();
  });
  return tokens;
}

bool SpellsSpecialToken(absl::string_view text, const Tokenizer& tokenizer) {
  const std::vector<int32_t> ids = tokenizer.Encode(
      text, {/*add_special_tokens=*/false, /*parse_special=*/true});
  return std::any_of(ids.begin(), ids.end(),
                     [&](int32_t id) { return tokenizer.IsSpecial(id); });
}

// Collects ids of text in which some parts may hold special tokens and others
// must not, so that plain text on both sides of a border is encoded as one.
class MixedEncoder {
 public:
  explicit MixedEncoder(const Tokenizer& tokenizer)
      : tokenizer_(tokenizer), special_(SpecialTokens(tokenizer)) {}

  void AddPlain(absl::string_view text) { absl::StrAppend(&plain_, text); }

  void AddTemplateText(absl::string_view text) {
    while (!text.empty()) {
      const auto* special = SpecialAt(text);
      if (special == nullptr) {
        plain_.push_back(text[0]);
        text.remove_prefix(1);
        continue;
      }
      FlushPlain();
      ids_.push_back(special->second);
      text.remove_prefix(special->first.size());
    }
  }

  std::vector<int32_t> Finish() {
    FlushPlain();
    return std::move(ids_);
  }

 private:
  const std::pair<std::string, int32_t>* SpecialAt(
      absl::string_view text) const {
    for (const auto& special : special_) {
      if (absl::StartsWith(text, special.first)) return &special;
    }
    return nullptr;
  }

  void FlushPlain() {
    if (plain_.empty()) return;
    const std::vector<int32_t> ids = tokenizer_.Encode(
        plain_, {/*add_special_tokens=*/false, /*parse_special=*/false});
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    plain_.clear();
  }

  const Tokenizer& tokenizer_;
  std::vector<std::pair<std::string, int32_t>> special_;
  std::string plain_;
  std::vector<int32_t> ids_;
};

// A text that stands nowhere else, in place of message `index`.
std::string Placeholder(size_t index, absl::string_view salt) {
  return absl::StrCat("\uE000nibble", salt, "-", index, "\uE001");
}

// A salt that makes placeholders differ from all that the messages hold.
std::string FreshSalt(absl::Span<const ChatMessage> messages) {
  for (uint64_t number = 0;; ++number) {
    std::string salt = absl::StrCat(number);
    const std::string prefix = absl::StrCat("\uE000nibble", salt, "-");
    const bool taken = std::any_of(
        messages.begin(), messages.end(), [&](const ChatMessage& message) {
          return absl::StrContains(message.content, prefix);
        });
    if (!taken) return salt;
  }
}

}  // namespace

struct ChatTemplate::Impl {
  Program program;
  std::string name;

  absl::StatusOr<std::string> Run(
      absl::FunctionRef<absl::StatusOr<std::string>()> fn) const {
    absl::StatusOr<std::string> text = RunIsolated(fn, {});
    if (text.ok()) return text;
    return absl::Status(
        text.status().code(),
        absl::StrCat(name, ": chat template: ", text.status().message()));
  }
};

ChatTemplate::ChatTemplate(std::unique_ptr<const Impl> impl)
    : impl_(std::move(impl)) {}
ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Create(
    const std::string& source, const std::string& bos_token,
    const std::string& eos_token, const std::string& name) {
  if (source.size() > kMaxChatTemplateBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": chat template of ", source.size(),
                     " bytes; the limit is ", kMaxChatTemplateBytes));
  }
  auto impl = std::make_unique<Impl>();
  impl->program = {source, bos_token, eos_token};
  impl->name = name;
  const auto parse = [&]() -> absl::StatusOr<std::string> {
    try {
      Parse(impl->program);
      return std::string();
    } catch (const std::exception& error) {
      return absl::InvalidArgumentError(error.what());
    }
  };
  const absl::StatusOr<std::string> parsed = impl->Run(parse);
  if (!parsed.ok()) return parsed.status();
  return std::unique_ptr<ChatTemplate>(new ChatTemplate(std::move(impl)));
}

absl::StatusOr<std::string> ChatTemplate::Render(
    absl::Span<const ChatMessage> messages) const {
  if (messages.empty()) {
    return absl::InvalidArgumentError("a conversation without messages");
  }
  const LocalTime now = Now();
  return impl_->Run([&] { return RunTemplate(impl_->program, messages, now); });
}

absl::StatusOr<std::vector<int32_t>> ChatTemplate::Encode(
    absl::Span<const ChatMessage> messages, const Tokenizer& tokenizer) const {
  const bool plain = std::none_of(
      messages.begin(), messages.end(), [&](const ChatMessage& message) {
        return SpellsSpecialToken(message.content, tokenizer);
      });
  if (plain) {
    const absl::StatusOr<std::string> text = Render(messages);
    if (!text.ok()) return text.status();
    return tokenizer.Encode(
        *text, {/*add_special_tokens=*/false, /*parse_special=*/true});
  }
  // The template runs on placeholders, so that what it wrote can be told from
  // what the messages hold.
  const std::string salt = FreshSalt(messages);
  std::vector<ChatMessage> masked(messages.begin(), messages.end());
  for (size_t i = 0; i < masked.size(); ++i) {
    masked[i].content = Placeholder(i, salt);
  }
  const absl::StatusOr<std::string> text = Render(masked);
  if (!text.ok()) return text.status();
  MixedEncoder encoder(tokenizer);
  absl::string_view rest = *text;
  while (!rest.empty()) {
    size_t first = absl::string_view::npos, which = 0;
    for (size_t i = 0; i < masked.size(); ++i) {
      const size_t at = rest.find(masked[i].content);
      if (at < first) first = at, which = i;
    }
    encoder.AddTemplateText(rest.substr(0, first));
    if (first == absl::string_view::npos) break;
    encoder.AddPlain(messages[which].content);
    rest.remove_prefix(first + masked[which].content.size());
  }
  return encoder.Finish();
}

std::vector<int32_t> EndOfTurnIds(const Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  for (absl::string_view token :
       {"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>",
        "<|end_of_turn|>"}) {
    const std::optional<int32_t> id = tokenizer.TokenId(token);
    if (id.has_value() && tokenizer.IsSpecial(*id)) ids.push_back(*id);
  }
  return ids;
}

}  // namespace nibble
