#include "runtime/chat_jinja.h"

#include <ctime>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "minja/minja.hpp"
#include "nlohmann/json.hpp"
#include "runtime/chat_message.h"

// minja throws; nothing here lets that out.

namespace nibble {
namespace {

using Json = nlohmann::ordered_json;
using Template = std::shared_ptr<minja::TemplateNode>;

Template ParseOrThrow(const std::string& source) {
  // The settings that Hugging Face renders chat templates with.
  return minja::Parser::parse(source, {/*trim_blocks=*/true,
                                       /*lstrip_blocks=*/true,
                                       /*keep_trailing_newline=*/false});
}

minja::Value FormatTime(const std::tm& now, minja::ArgumentsValue& arguments) {
  arguments.expectArgs("strftime_now", {1, 1}, {0, 0});
  const auto format = arguments.args[0].get<std::string>();
  char text[256];
  const size_t size = std::strftime(text, sizeof(text), format.c_str(), &now);
  return std::string(text, size);
}

std::string RenderOrThrow(const Template& root, const ChatJinja& program,
                          absl::Span<const ChatMessage> messages) {
  Json list = Json::array();
  for (const ChatMessage& message : messages) {
    list.push_back({{"role", message.role}, {"content", message.content}});
  }
  const auto context = minja::Context::make(
      minja::Value(Json{{"messages", list}, {"add_generation_prompt", true}}));
  context->set("bos_token", program.bos_token);
  context->set("eos_token", program.eos_token);
  context->set(
      "strftime_now",
      minja::Value::callable([&program](const std::shared_ptr<minja::Context>&,
                                        minja::ArgumentsValue& arguments) {
        return FormatTime(program.now, arguments);
      }));
  return root->render(context);
}

// Many templates of early models know no system role: they raise an exception
// or leave such a message out.
bool HasSystemRole(const Template& root, const ChatJinja& program) {
  constexpr char kProbe[] = "nibble-system-probe";
  try {
    return absl::StrContains(
        RenderOrThrow(root, program, {{"system", kProbe}, {"user", "x"}}),
        kProbe);
  } catch (const std::exception&) {
    return false;
  }
}

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

}  // namespace

absl::Status ParseChatJinja(const std::string& source) {
  try {
    ParseOrThrow(source);
    return absl::OkStatus();
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(error.what());
  }
}

absl::StatusOr<std::string> RunChatJinja(
    const ChatJinja& program, absl::Span<const ChatMessage> messages) {
  try {
    const Template root = ParseOrThrow(program.source);
    const bool has_system = !messages.empty() && messages[0].role == "system";
    if (has_system && !HasSystemRole(root, program)) {
      return RenderOrThrow(root, program, MergeSystemMessage(messages));
    }
    return RenderOrThrow(root, program, messages);
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(error.what());
  }
}

}  // namespace nibble
