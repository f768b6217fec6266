// A model whose probabilities are known: the logits of the next token depend on
// the class of the last one alone, and are given.
//
//   BigramLogits logits = [](int64_t token, int64_t of_class) { return 0.0; };
//   std::unique_ptr<Engine> uniform = BigramEngine(logits, /*threads=*/1);
#ifndef NIBBLE_RUNTIME_EVALUATION_BIGRAM_MODEL_H_
#define NIBBLE_RUNTIME_EVALUATION_BIGRAM_MODEL_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "runtime/engine.h"
#include "tokenizer/tokenizer.h"

namespace nibble::testing {

inline constexpr int64_t kBigramVocabulary = 101;
inline constexpr int64_t kBigramClasses = 32;

// The class of a token that has been read.
inline int64_t BigramClass(int32_t token) { return token % kBigramClasses; }

// The logit of `token` after a token of class `of_class`.
using BigramLogits = std::function<double(int64_t token, int64_t of_class)>;

// ln p(token | last), in double.
double BigramLogProb(const BigramLogits& logits, int32_t token, int32_t last);

// One layer whose matrices are zero, one-hot embeddings, and a head that holds
// the logits; f32 weights. Logits are those given, to float rounding.
std::unique_ptr<Engine> BigramEngine(
    const BigramLogits& logits, int threads,
    std::unique_ptr<Tokenizer> tokenizer = nullptr);

}  // namespace nibble::testing

#endif  // NIBBLE_RUNTIME_EVALUATION_BIGRAM_MODEL_H_
