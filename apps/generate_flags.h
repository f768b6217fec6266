// The flags of `generate`, read and checked.
#ifndef NIBBLE_APPS_GENERATE_FLAGS_H_
#define NIBBLE_APPS_GENERATE_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/text_generator.h"

namespace nibble {

struct GenerateRequest {
  // What to go on from: at most one of the two. Neither: an interactive chat.
  std::optional<std::string> prompt;
  std::optional<std::vector<int32_t>> token_ids;

  bool chat = false;
  std::string system;          // empty: the template's own
  bool parse_special = false;  // of a prompt outside a chat
  bool json = false;
  GenerateOptions options;
};

// Everything about the flags that can be known before a model is open. Reads
// --prompt_file. Errors name the flag.
absl::StatusOr<GenerateRequest> GenerateRequestFromFlags();

// options.Validate, with messages that name the flag.
absl::Status ValidateAsFlags(const GenerateOptions& options,
                             int64_t vocabulary);

}  // namespace nibble

#endif  // NIBBLE_APPS_GENERATE_FLAGS_H_
