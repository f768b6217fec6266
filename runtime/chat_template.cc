#include "runtime/chat_template.h"

#include <algorithm>
#include <cstdint>
#include <ctime>
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
#include "runtime/chat_jinja.h"
#include "runtime/chat_message.h"
#include "runtime/isolated_call.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

std::tm LocalTime() {
  const std::time_t now = std::time(nullptr);
  std::tm local = {};
  localtime_r(&now, &local);
  return local;
}

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
  ChatJinja program;
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
  impl->program.source = source;
  impl->program.bos_token = bos_token;
  impl->program.eos_token = eos_token;
  impl->name = name;
  const auto parse = [&]() -> absl::StatusOr<std::string> {
    const absl::Status status = ParseChatJinja(source);
    if (!status.ok()) return status;
    return std::string();
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
  // The time is taken here: the child process must not need locks.
  ChatJinja program = impl_->program;
  program.now = LocalTime();
  return impl_->Run([&] { return RunChatJinja(program, messages); });
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
