#ifndef NIBBLE_RUNTIME_CHAT_JINJA_H_
#define NIBBLE_RUNTIME_CHAT_JINJA_H_

// Runs a chat template, which is a Jinja program, by minja.
//
//   ChatJinja program = {source, "<s>", "</s>", now};
//   absl::StatusOr<std::string> text = RunChatJinja(program, messages);
//
// minja bounds neither time nor memory nor recursion: chat_template.cc calls
// this in a child process.

#include <ctime>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/chat_message.h"

namespace nibble {

struct ChatJinja {
  std::string source, bos_token, eos_token;
  std::tm now = {};  // what strftime_now() tells the template
};

// InvalidArgument with minja's message where `source` is not a template.
absl::Status ParseChatJinja(const std::string& source);

// The text that asks for the next turn. A leading system message goes in front
// of the first user message where the template knows no such role.
absl::StatusOr<std::string> RunChatJinja(
    const ChatJinja& program, absl::Span<const ChatMessage> messages);

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_CHAT_JINJA_H_
