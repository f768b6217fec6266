// One sequence of one model, for tests that compare logits and greedy text.
//
//   DecoderSession session(*decoder, DType::kF32, /*capacity=*/512, pool);
//   std::vector<float> logits = session.Append(prompt, /*all_logits=*/false);
//   std::vector<int32_t> ids = session.Greedy(logits, 24);
#ifndef NIBBLE_TESTING_DECODER_SESSION_H_
#define NIBBLE_TESTING_DECODER_SESSION_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/elementwise/topk.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder.h"
#include "models/decoder_workspace.h"
#include "tensor/dtype.h"
#include "tensor/view.h"
#include "testing/kv_pages.h"
#include "testing/matchers.h"

namespace nibble::testing {

class DecoderSession {
 public:
  // `decoder` and `pool` must outlive the session.
  DecoderSession(const Decoder& decoder, DType kv_dtype, int64_t capacity,
                 ThreadPool& pool)
      : decoder_(decoder),
        pool_(pool),
        cache_(decoder.config(), kv_dtype, capacity) {}

  // Logits of each token, or of the last: [rows, vocabulary].
  std::vector<float> Append(absl::Span<const int32_t> tokens, bool all_logits) {
    SequenceSlice slice;
    slice.tokens = tokens;
    slice.first_position = length_;
    slice.layers = cache_.layers();
    slice.all_logits = all_logits;
    const int64_t vocabulary = decoder_.config().vocabulary;
    std::vector<float> logits(
        static_cast<size_t>(slice.wanted_rows() * vocabulary));
    const MatrixView<float> out(logits.data(), slice.wanted_rows(), vocabulary);
    EXPECT_THAT(decoder_.Forward({&slice, 1}, work_, out, pool_), IsOk());
    length_ += slice.count();
    return logits;
  }

  // Logits of each token, fed `chunk` at a time.
  std::vector<float> AppendInChunks(absl::Span<const int32_t> tokens,
                                    size_t chunk) {
    std::vector<float> all;
    for (size_t first = 0; first < tokens.size(); first += chunk) {
      const std::vector<float> part =
          Append(tokens.subspan(first, chunk), /*all_logits=*/true);
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }

  // Takes the best token `steps` times, starting from `logits` of the last
  // token, which it replaces by those that chose the last one returned.
  std::vector<int32_t> Greedy(std::vector<float>& logits, size_t steps) {
    std::vector<int32_t> ids;
    while (true) {
      ids.push_back(static_cast<int32_t>(ArgMax(logits)));
      if (ids.size() == steps) return ids;
      logits = Append({&ids.back(), 1}, /*all_logits=*/false);
    }
  }

 private:
  const Decoder& decoder_;
  ThreadPool& pool_;
  KvPages cache_;
  DecoderWorkspace work_;
  int64_t length_ = 0;
};

// Loads a model with f32 weights. REQUIRES: it can be opened and loaded.
std::unique_ptr<Decoder> LoadF32Decoder(const Checkpoint& checkpoint,
                                        ThreadPool& pool);
std::unique_ptr<Decoder> LoadF32Decoder(const std::string& path,
                                        ThreadPool& pool);

}  // namespace nibble::testing

#endif  // NIBBLE_TESTING_DECODER_SESSION_H_
