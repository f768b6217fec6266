// Finds added tokens ("<|endoftext|>", NeoX's runs of spaces) in text:
// leftmost first, and of those that begin there the longest.
//
//   AddedTokenMatcher matcher(tokens);
//   matcher.Split("a</s>b", /*parse_special=*/true,
//                 [](absl::string_view text, int32_t id) {
//     // ("a", -1), ("</s>", 2), ("b", -1)
//   });

#ifndef NIBBLE_TOKENIZER_ADDED_TOKENS_H_
#define NIBBLE_TOKENIZER_ADDED_TOKENS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"

namespace nibble {

// The fields of tokenizer.json's added_tokens.
struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;  // not next to a word character
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = false;   // matches normalized text, not the raw text
  // With `normalized`: the content is sought as it stands, without going
  // through the normalizer itself (SentencePiece's user-defined pieces).
  bool verbatim = false;
  bool special = false;  // Decode may skip it
};

class AddedTokenMatcher {
 public:
  AddedTokenMatcher() = default;
  // Tokens with empty content match nothing.
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  bool empty() const { return nodes_.empty(); }

  // The longest token at the start of `text`; 0 bytes where there is none.
  size_t MatchSize(absl::string_view text) const { return Match(text).size; }

  // Calls emit(text, -1) for plain text, which is never empty, and
  // emit(token's text, id) for tokens.  Special tokens stay plain text unless
  // parse_special.
  void Split(absl::string_view text, bool parse_special,
             absl::FunctionRef<void(absl::string_view, int32_t)> emit) const;

 private:
  struct Node {
    int32_t token = -1;  // index into tokens_
    std::vector<std::pair<uint8_t, uint32_t>> children;
  };
  struct Found {
    size_t size = 0;
    int32_t token = -1;
  };

  void Insert(int32_t token);
  Found Match(absl::string_view text) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;              // a trie; nodes_[0] is its root
  std::array<uint32_t, 256> root_ = {};  // child of the root, or 0
  int first_bytes_ = 0;                  // distinct first bytes
  uint8_t only_first_byte_ = 0;          // where first_bytes_ is 1
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_ADDED_TOKENS_H_
