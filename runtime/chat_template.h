#ifndef NIBBLE_RUNTIME_CHAT_TEMPLATE_H_
#define NIBBLE_RUNTIME_CHAT_TEMPLATE_H_

// From a conversation to the token ids that a chat model was trained on.
//
//   absl::StatusOr<std::unique_ptr<ChatTemplate>> chat =
//       LoadChatTemplate("models/smollm2.gguf", *engine->tokenizer());
//   if (!chat.ok()) return chat.status();
//   std::vector<ChatMessage> turns = {{"user", "What is a KV cache?"}};
//   absl::StatusOr<std::vector<int32_t>> prompt =
//       (*chat)->Encode(turns, *engine->tokenizer());
//
// A template is the Jinja program that a checkpoint brings along. It runs in a
// child process, under limits of time and memory, and reaches nothing but the
// messages. Text in a message that spells a control token ("<|im_end|>") stays
// text, so that nobody can close their own turn and speak for somebody else.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/chat_message.h"
#include "tokenizer/tokenizer.h"

namespace nibble {

// Templates of published models are below 20 kB.
inline constexpr size_t kMaxChatTemplateBytes = 64 << 10;

class ChatTemplate {
 public:
  // `name` says in errors where `source` came from. Fails for a template that
  // does not parse.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Create(
      const std::string& source, const std::string& bos_token,
      const std::string& eos_token, const std::string& name);

  ~ChatTemplate();
  ChatTemplate(const ChatTemplate&) = delete;
  ChatTemplate& operator=(const ChatTemplate&) = delete;

  // The text that asks the model for its next turn. A template without a
  // system role gets the system message in front of the first user message.
  // InvalidArgument where the template refuses the conversation; the message
  // carries its reason.
  absl::StatusOr<std::string> Render(
      absl::Span<const ChatMessage> messages) const;

  // The ids of Render's text. Special tokens that the template wrote become
  // tokens; those that stand in a message's content do not.
  absl::StatusOr<std::vector<int32_t>> Encode(
      absl::Span<const ChatMessage> messages, const Tokenizer& tokenizer) const;

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<const Impl> impl);

  std::unique_ptr<const Impl> impl_;
};

// The template of a model: chat_template.jinja, or `chat_template` of
// tokenizer_config.json, in a Hugging Face folder; `tokenizer.chat_template` of
// a GGUF file; any of these inside a .nib file. NotFound where the model has
// none, as base models do.
absl::StatusOr<std::unique_ptr<ChatTemplate>> LoadChatTemplate(
    const std::string& model_path, const Tokenizer& tokenizer);

// The tokens by which published chat models end a turn ("<|im_end|>",
// "<|eot_id|>", ...), as far as `tokenizer` has them as special tokens.
std::vector<int32_t> EndOfTurnIds(const Tokenizer& tokenizer);

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_CHAT_TEMPLATE_H_
