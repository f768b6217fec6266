#include "tokenizer/bpe.h"

#include <numeric>

#include "absl/log/check.h"
#include "tokenizer/rank_queue.h"
#include "tokenizer/unicode.h"

namespace nibble {
namespace {

// Words of up to this many symbols are scanned for their best pair.  Scanning
// is quadratic but touches little memory.
constexpr size_t kScanLimit = 96;

}  // namespace

inline Merge BpeEncoder::FindMerge(int32_t left, int32_t right) {
  const Merge merge = tables_.merges.Find(left, right);
  if (!tables_.unused.empty() && merge.rank != kNoMerge &&
      tables_.unused[merge.result]) {
    splits_[merge.result] = {left, right};
  }
  return merge;
}

void BpeEncoder::Encode(absl::string_view word, std::vector<int32_t>* out) {
  if (!tables_.whole_words.empty()) {
    const auto it = tables_.whole_words.find(word);
    if (it != tables_.whole_words.end()) {
      out->push_back(it->second);
      return;
    }
  }
  symbols_.clear();
  splits_.clear();
  AppendSymbols(word);
  if (symbols_.size() > kScanLimit) {
    MergeByBuckets();
  } else if (symbols_.size() > 1) {
    MergeByScanning();
  }
  const size_t first = out->size();
  for (const int32_t symbol : symbols_) Emit(symbol, first, out);
}

void BpeEncoder::AppendSymbols(absl::string_view word) {
  if (tables_.byte_level) {
    for (const char c : word) {
      const int32_t symbol = tables_.byte_symbols[static_cast<uint8_t>(c)];
      if (symbol >= 0 || tables_.unknown_id >= 0) symbols_.push_back(symbol);
    }
    return;
  }
  const char* p = word.data();
  const char* const end = p + word.size();
  while (p < end) {
    const uint8_t byte = static_cast<uint8_t>(*p);
    if (byte < 0x80) {
      AppendCharacter(absl::string_view(p, 1), tables_.ascii_symbols[byte]);
      ++p;
      continue;
    }
    const DecodedChar c = DecodeUtf8(p, end);
    const auto it = c.valid ? tables_.char_symbols.find(c.code)
                            : tables_.char_symbols.end();
    AppendCharacter(absl::string_view(p, c.size),
                    it == tables_.char_symbols.end() ? -1 : it->second);
    p += c.size;
  }
}

// A character without a symbol is spelled by its bytes, if all have tokens.
void BpeEncoder::AppendCharacter(absl::string_view character, int32_t symbol) {
  if (symbol >= 0) {
    symbols_.push_back(symbol);
    return;
  }
  const size_t first = symbols_.size();
  for (const char c : character) {
    symbols_.push_back(tables_.byte_symbols[static_cast<uint8_t>(c)]);
    if (symbols_.back() >= 0) continue;
    symbols_.resize(first);
    if (tables_.unknown_id >= 0) symbols_.push_back(-1);
    return;
  }
}

void BpeEncoder::MergeByScanning() {
  pairs_.clear();
  for (size_t i = 0; i + 1 < symbols_.size(); ++i) {
    pairs_.push_back(FindMerge(symbols_[i], symbols_[i + 1]));
  }
  while (!pairs_.empty()) {
    size_t best = 0;
    for (size_t i = 1; i < pairs_.size(); ++i) {
      if (pairs_[i].rank < pairs_[best].rank) best = i;
    }
    if (pairs_[best].rank == kNoMerge) return;
    symbols_[best] = pairs_[best].result;
    symbols_.erase(symbols_.begin() + best + 1);
    pairs_.erase(pairs_.begin() + best);
    if (best > 0) {
      pairs_[best - 1] = FindMerge(symbols_[best - 1], symbols_[best]);
    }
    if (best < pairs_.size()) {
      pairs_[best] = FindMerge(symbols_[best], symbols_[best + 1]);
    }
  }
}

void BpeEncoder::MergeByBuckets() {
  const uint32_t count = static_cast<uint32_t>(symbols_.size());
  const uint32_t none = 0xFFFFFFFF;
  CHECK_LT(symbols_.size(), size_t{none});
  // A doubly linked list over positions; a merged symbol keeps its left
  // position, and the right one leaves the list: next == its own position.
  std::vector<uint32_t> next(count);
  std::vector<uint32_t> previous(count);
  std::iota(next.begin(), next.end(), 1u);
  next[count - 1] = none;
  for (uint32_t i = 0; i < count; ++i) previous[i] = i == 0 ? none : i - 1;
  RankQueue queue;
  const auto push = [&](uint32_t left, uint32_t right) {
    if (left == none || right == none) return;
    const Merge merge = FindMerge(symbols_[left], symbols_[right]);
    if (merge.rank != kNoMerge) queue.Push({merge.rank, left});
  };
  for (uint32_t i = 0; i + 1 < count; ++i) push(i, i + 1);
  while (!queue.empty()) {
    const RankQueue::Entry entry = queue.Pop();
    const uint32_t left = entry.position;
    const uint32_t right = next[left];
    if (right == none || right == left) continue;
    // Either symbol may have changed since the pair was queued.
    const Merge merge = tables_.merges.Find(symbols_[left], symbols_[right]);
    if (merge.rank != entry.rank) continue;
    symbols_[left] = merge.result;
    next[left] = next[right];
    if (next[left] != none) previous[next[left]] = left;
    next[right] = right;
    push(previous[left], left);
    push(left, next[left]);
  }
  size_t kept = 0;
  for (uint32_t i = 0; i != none; i = next[i]) symbols_[kept++] = symbols_[i];
  symbols_.resize(kept);
}

void BpeEncoder::EmitUnknown(absl::string_view character, size_t first,
                             std::vector<int32_t>* out) {
  const size_t before = out->size();
  for (const char c : character) {
    const int32_t byte = tables_.byte_symbols[static_cast<uint8_t>(c)];
    if (byte >= 0) out->push_back(byte);
  }
  if (!character.empty() && out->size() - before == character.size()) return;
  out->resize(before);
  if (tables_.unknown_id < 0) return;
  if (tables_.fuse_unknown && before > first &&
      out->back() == tables_.unknown_id) {
    return;
  }
  out->push_back(tables_.unknown_id);
}

void BpeEncoder::Emit(int32_t symbol, size_t first, std::vector<int32_t>* out) {
  if (symbol < 0) {
    EmitUnknown(absl::string_view(), first, out);
  } else if (symbol >= tables_.vocabulary_size) {
    EmitUnknown(tables_.provisional_text[symbol - tables_.vocabulary_size],
                first, out);
  } else if (!tables_.unused.empty() && tables_.unused[symbol] &&
             splits_.contains(symbol)) {
    // The halves are shorter, so this ends.
    const auto [left, right] = splits_[symbol];
    Emit(left, first, out);
    Emit(right, first, out);
  } else {
    out->push_back(symbol);
  }
}

}  // namespace nibble
