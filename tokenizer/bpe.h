// Byte-pair encoding of one piece of text: symbols first, then merges in order
// of preference until none is left.
//
// Short words scan all pairs for the best one; long words keep the pairs in
// buckets by rank, so that time stays near linear in the word.

#ifndef NIBBLE_TOKENIZER_BPE_H_
#define NIBBLE_TOKENIZER_BPE_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "tokenizer/bpe_tables.h"

namespace nibble {

class BpeEncoder {
 public:
  // `tables` must outlive the encoder.  An encoder is cheap to make, holds
  // working memory, and belongs to one thread.
  explicit BpeEncoder(const BpeTables& tables) : tables_(tables) {}

  // Appends the tokens of `word`.  REQUIRES: word.size() < 2^32 - 1.
  void Encode(absl::string_view word, std::vector<int32_t>* out);

 private:
  void AppendSymbols(absl::string_view word);
  void AppendCharacter(absl::string_view character, int32_t symbol);
  void MergeByScanning();
  void MergeByBuckets();
  Merge FindMerge(int32_t left, int32_t right);
  void Emit(int32_t symbol, size_t first, std::vector<int32_t>* out);
  void EmitUnknown(absl::string_view character, size_t first,
                   std::vector<int32_t>* out);

  const BpeTables& tables_;
  std::vector<int32_t> symbols_;
  std::vector<Merge> pairs_;  // [i]: the merge of symbols_[i] and [i + 1]
  // What unused tokens were last merged from.
  absl::flat_hash_map<int32_t, std::pair<int32_t, int32_t>> splits_;
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_BPE_H_
