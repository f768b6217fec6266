#ifndef NIBBLE_RUNTIME_CHAT_MESSAGE_H_
#define NIBBLE_RUNTIME_CHAT_MESSAGE_H_

// One turn of a conversation.
//
//   std::vector<ChatMessage> turns = {{"user", "What is a KV cache?"}};

#include <string>

namespace nibble {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_CHAT_MESSAGE_H_
