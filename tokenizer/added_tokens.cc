#include "tokenizer/added_tokens.h"

#include <algorithm>
#include <cstring>

#include "tokenizer/unicode.h"

namespace nibble {
namespace {

// The start of the last character of text[0, end).
size_t LastCharacter(absl::string_view text, size_t end) {
  size_t start = end - 1;
  while (start > 0 && end - start < 4 &&
         (static_cast<uint8_t>(text[start]) & 0xC0) == 0x80) {
    --start;
  }
  const DecodedChar c =
      DecodeUtf8(text.data() + start, text.data() + text.size());
  return start + c.size == end ? start : end - 1;
}

uint8_t FlagsOf(absl::string_view text, size_t at, uint32_t* size) {
  return FlagsAt(CharTable::Get(), text.data() + at, text.data() + text.size(),
                 size);
}

bool StandsAlone(absl::string_view text, size_t start, size_t stop) {
  uint32_t size;
  if (start > 0 && (FlagsOf(text, LastCharacter(text, start), &size) & kWord)) {
    return false;
  }
  return stop == text.size() || !(FlagsOf(text, stop, &size) & kWord);
}

// The start of the white space that ends at `end`, not before `limit`.
size_t SpaceBefore(absl::string_view text, size_t limit, size_t end) {
  while (end > limit) {
    const size_t start = LastCharacter(text, end);
    uint32_t size;
    if (start < limit || !(FlagsOf(text, start, &size) & kSpace)) break;
    end = start;
  }
  return end;
}

size_t SpaceAfter(absl::string_view text, size_t at) {
  uint32_t size;
  while (at < text.size() && (FlagsOf(text, at, &size) & kSpace)) at += size;
  return at;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (!tokens_[i].content.empty()) Insert(static_cast<int32_t>(i));
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (root_[byte] == 0) continue;
    ++first_bytes_;
    only_first_byte_ = static_cast<uint8_t>(byte);
  }
}

void AddedTokenMatcher::Insert(int32_t token) {
  if (nodes_.empty()) nodes_.emplace_back();
  uint32_t node = 0;
  for (const char c : tokens_[token].content) {
    const uint8_t byte = static_cast<uint8_t>(c);
    auto& children = nodes_[node].children;
    const auto it =
        std::find_if(children.begin(), children.end(),
                     [byte](const auto& child) { return child.first == byte; });
    if (it != children.end()) {
      node = it->second;
      continue;
    }
    const uint32_t added = static_cast<uint32_t>(nodes_.size());
    children.emplace_back(byte, added);
    if (node == 0) root_[byte] = added;
    nodes_.emplace_back();
    node = added;
  }
  // Of two tokens with one spelling the first stays.
  if (nodes_[node].token < 0) nodes_[node].token = token;
}

AddedTokenMatcher::Found AddedTokenMatcher::Match(
    absl::string_view text) const {
  Found found;
  if (text.empty()) return found;
  uint32_t node = root_[static_cast<uint8_t>(text[0])];
  for (size_t depth = 1; node != 0; ++depth) {
    if (nodes_[node].token >= 0) found = {depth, nodes_[node].token};
    if (depth == text.size()) break;
    const uint8_t byte = static_cast<uint8_t>(text[depth]);
    uint32_t next = 0;
    for (const auto& [label, child] : nodes_[node].children) {
      if (label == byte) next = child;
    }
    node = next;
  }
  return found;
}

void AddedTokenMatcher::Split(
    absl::string_view text, bool parse_special,
    absl::FunctionRef<void(absl::string_view, int32_t)> emit) const {
  size_t done = 0;      // end of what was emitted
  size_t stripped = 0;  // end of the last white space that was taken
  size_t at = 0;
  while (at < text.size() && !nodes_.empty()) {
    if (first_bytes_ == 1) {
      const void* hit =
          std::memchr(text.data() + at, only_first_byte_, text.size() - at);
      if (hit == nullptr) break;
      at = static_cast<const char*>(hit) - text.data();
    } else {
      while (at < text.size() && root_[static_cast<uint8_t>(text[at])] == 0) {
        ++at;
      }
    }
    const Found found = Match(text.substr(at));
    if (found.size == 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[found.token];
    size_t start = at;
    size_t stop = at + found.size;
    at = stop;
    if (token.special && !parse_special) continue;
    if (token.single_word && !StandsAlone(text, start, stop)) continue;
    if (token.lstrip) start = std::max(SpaceBefore(text, done, start), done);
    if (token.rstrip) {
      // What lies before `stripped` is known to be white space.
      stop = stripped = SpaceAfter(text, std::max(stop, stripped));
    }
    // White space that an earlier token took may hold tokens too.  Like the
    // tokenizers library, let them match again, and what follows them with
    // them, unless nothing is left to match.
    if (start > done) emit(text.substr(done, start - done), -1);
    if (start < stop) emit(text.substr(start, stop - start), token.id);
    done = stop;
  }
  if (done < text.size()) emit(text.substr(done), -1);
}

}  // namespace nibble
