#include "tokenizer/normalizer.h"

#include <cstddef>
#include <utility>
#include <vector>

#include "absl/log/check.h"
#include "absl/strings/match.h"
#include "tokenizer/unicode.h"
#include "utf8proc.h"

namespace nibble {
namespace {

using Kind = NormalizerStep::Kind;

// Appends the canonical composition of `span`, which is valid UTF-8.
void AppendComposed(absl::string_view span, std::string* out) {
  constexpr auto kNfc =
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  // A character of 2 bytes decomposes into at most 3, one of 3 bytes into 4;
  // and one more is room for the NUL that utf8proc_reencode writes.
  std::vector<utf8proc_int32_t> codes(2 * span.size() + 1);
  const utf8proc_ssize_t room = static_cast<utf8proc_ssize_t>(2 * span.size());
  const utf8proc_ssize_t count = utf8proc_decompose(
      reinterpret_cast<const utf8proc_uint8_t*>(span.data()),
      static_cast<utf8proc_ssize_t>(span.size()), codes.data(), room, kNfc);
  CHECK_GE(count, 0) << utf8proc_errmsg(count);
  CHECK_LE(count, room);
  const utf8proc_ssize_t size = utf8proc_reencode(codes.data(), count, kNfc);
  CHECK_GE(size, 0) << utf8proc_errmsg(size);
  out->append(reinterpret_cast<const char*>(codes.data()),
              static_cast<size_t>(size));
}

// Only characters marked kNormalizing change, or change with the one before
// them: so just those runs, each with the character before it, are composed.
// Returns false, and leaves `out` alone, where nothing needs it.
bool ComposeNfc(absl::string_view text, std::string* out) {
  const CharTable& table = CharTable::Get();
  const char* const end = text.data() + text.size();
  const char* copied = text.data();    // up to here is in `out`
  const char* previous = text.data();  // start of the character before p
  bool changed = false;
  for (const char* p = text.data(); p < end;) {
    uint32_t size;
    if (!(FlagsAt(table, p, end, &size) & kNormalizing)) {
      previous = p;
      p += size;
      continue;
    }
    // A combining mark newer than Unicode 9.0 must not be sorted among the
    // others, so it is no base; nor is a byte that is no character.
    const char* start = p;
    if (previous < p) {
      const DecodedChar base = DecodeUtf8(previous, end);
      const bool mark =
          utf8proc_get_property(static_cast<utf8proc_int32_t>(base.code))
              ->combining_class != 0;
      if (base.valid && !mark) start = previous;
    }
    while (p < end && (FlagsAt(table, p, end, &size) & kNormalizing)) {
      p += size;
    }
    out->append(copied, start - copied);
    AppendComposed(absl::string_view(start, p - start), out);
    copied = previous = p;
    changed = true;
  }
  if (changed) out->append(copied, end - copied);
  return changed;
}

std::string ReplaceAll(absl::string_view text, absl::string_view from,
                       absl::string_view to) {
  std::string out;
  // Room for words of five letters with a space that grows.
  out.reserve(text.size() + text.size() / 4 * to.size() / from.size());
  size_t done = 0;
  for (size_t at; (at = text.find(from, done)) != absl::string_view::npos;) {
    out.append(text.data() + done, at - done);
    out.append(to.data(), to.size());
    done = at + from.size();
  }
  out.append(text.data() + done, text.size() - done);
  return out;
}

}  // namespace

absl::StatusOr<Normalizer> Normalizer::Create(NormalizerSpec spec) {
  Normalizer normalizer;
  normalizer.steps_ = std::move(spec.steps);
  SentencePieceRules& rules = spec.rules;
  normalizer.add_dummy_prefix_ = rules.add_dummy_prefix;
  normalizer.remove_extra_whitespaces_ = rules.remove_extra_whitespaces;
  normalizer.protected_ = AddedTokenMatcher(std::move(rules.protected_tokens));
  absl::StatusOr<Charsmap> charsmap = Charsmap::Create(rules.charsmap);
  if (!charsmap.ok()) return charsmap.status();
  normalizer.charsmap_ = *std::move(charsmap);
  return normalizer;
}

absl::string_view Normalizer::Apply(absl::string_view text,
                                    std::string* buffer) const {
  absl::string_view current = text;
  std::string next;
  for (const NormalizerStep& step : steps_) {
    next.clear();
    bool changed = true;
    if (step.kind == Kind::kNfc) {
      changed = ComposeNfc(current, &next);
    } else if (step.kind == Kind::kPrepend) {
      changed = !current.empty();
      if (changed) next.reserve(step.to.size() + current.size());
      if (changed) next.append(step.to).append(current.data(), current.size());
    } else if (step.kind == Kind::kReplace) {
      changed = absl::StrContains(current, step.from);
      if (changed) next = ReplaceAll(current, step.from, step.to);
    } else {
      next = SentencePiece(current);
    }
    if (!changed) continue;
    std::swap(*buffer, next);
    current = *buffer;
  }
  return current;
}

Normalizer::Prefix Normalizer::NormalizePrefix(absl::string_view text) const {
  const size_t kept = protected_.MatchSize(text);
  if (kept > 0) return {text.substr(0, kept), kept};
  absl::string_view replacement;
  const size_t size = charsmap_.Find(text, &replacement);
  if (size > 0) return {replacement, size};
  const DecodedChar c = DecodeUtf8(text.data(), text.data() + text.size());
  return {text.substr(0, c.size), c.size};
}

std::string Normalizer::SentencePiece(absl::string_view text) const {
  std::string out;
  if (remove_extra_whitespaces_) {
    while (!text.empty()) {
      const Prefix prefix = NormalizePrefix(text);
      if (prefix.normalized != " ") break;
      text.remove_prefix(prefix.size);
    }
  }
  if (text.empty()) return out;
  out.reserve(text.size() + text.size() / 2 + kMetaSpace.size());
  const auto append_space = [&out] {
    out.append(kMetaSpace.data(), kMetaSpace.size());
  };
  if (add_dummy_prefix_) append_space();
  bool after_space = remove_extra_whitespaces_;
  while (!text.empty()) {
    const Prefix prefix = NormalizePrefix(text);
    text.remove_prefix(prefix.size);
    absl::string_view piece = prefix.normalized;
    while (after_space && !piece.empty() && piece[0] == ' ') {
      piece.remove_prefix(1);
    }
    for (const char c : piece) {
      if (c == ' ') {
        append_space();
      } else {
        out.push_back(c);
      }
    }
    if (!piece.empty()) {
      after_space = remove_extra_whitespaces_ && piece.back() == ' ';
    }
  }
  while (remove_extra_whitespaces_ && absl::EndsWith(out, kMetaSpace)) {
    out.resize(out.size() - kMetaSpace.size());
  }
  return out;
}

}  // namespace nibble
