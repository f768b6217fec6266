// Small vocabularies for tests.

#ifndef NIBBLE_TOKENIZER_TEST_VOCABULARIES_H_
#define NIBBLE_TOKENIZER_TEST_VOCABULARIES_H_

#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"
#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_spec.h"

namespace nibble {

using MergePairs = std::vector<std::pair<std::string, std::string>>;

// A tokenizer.json like GPT-2's: a token for each byte (its value is its id),
// one for each merge (from 256 on), then "<|end|>", which is special.
nlohmann::json ByteLevelJson(const MergePairs& merges);

// A tokenizer.json like Llama's: <unk>, <s>, </s>, the 256 bytes, U+2581 and
// the characters of `alphabet`, then one token for each merge.
nlohmann::json CharacterJson(const std::vector<std::string>& alphabet,
                             const MergePairs& merges);

// The same as pieces with scores.
TokenizerSpec ScoredSpec(const std::vector<std::string>& alphabet,
                         const MergePairs& merges);

// `count` merges of random tokens that come from `alphabet`.
MergePairs RandomMerges(const std::vector<std::string>& alphabet, int count,
                        std::mt19937* random);

// Words of `alphabet` joined without spaces, `length` of them.
std::string RandomText(const std::vector<std::string>& alphabet, int length,
                       std::mt19937* random);

// Loads it; a failure ends the test.
std::unique_ptr<Tokenizer> FromJson(const nlohmann::json& json);
// The error that loading it gives; OK where it gives none.
absl::Status ErrorOf(const nlohmann::json& json);
absl::Status ErrorOf(const std::string& bytes);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_TEST_VOCABULARIES_H_
