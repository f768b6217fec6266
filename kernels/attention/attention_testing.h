// Attention problems for tests and benchmarks: a paged cache with gaps between
// its pages, seeded contents, and the expected outputs with derived tolerances.
#ifndef NIBBLE_KERNELS_ATTENTION_ATTENTION_TESTING_H_
#define NIBBLE_KERNELS_ATTENTION_ATTENTION_TESTING_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/attention/attention_task.h"
#include "kernels/attention/kv_view.h"
#include "kernels/thread_pool.h"
#include "tensor/buffer.h"

namespace nibble {

struct Expected {
  std::vector<float> values;     // [tokens, heads * head_dim]
  std::vector<float> tolerance;  // same
};

class Problem {
 public:
  struct Size {
    int64_t heads, kv_heads, head_dim;
    DType dtype;
    int64_t page_tokens;
    int64_t first;   // position of the first query
    int64_t tokens;  // queries
  };
  struct Options {
    bool causal = true;
    int64_t window = 0;
    int64_t kv_length = 0;      // 0: first + tokens
    std::vector<float> slopes;  // [heads] or empty
  };

  explicit Problem(const Size& size);

  void ScaleQueries(float factor);
  void SetQuery(int64_t token, int64_t index, float value);
  // Sets the token's values in all KV heads; one element of its keys.
  void PoisonToken(int64_t position, float value);
  void PoisonKey(int64_t position, float value);

  std::vector<float> Run(const Options& options, ThreadPool& pool) const;
  // Fills the cache chunk by chunk; what comes later holds NaNs meanwhile.
  std::vector<float> RunInChunks(const Options& options, int64_t chunk,
                                 ThreadPool& pool) const;
  // By the formula in double, from the values the cache holds.
  Expected Expect(const Options& options) const;

  // The same cache in another dtype.
  Problem As(DType dtype) const;

  std::string Describe() const;
  const Size& size() const { return size_; }

 private:
  friend std::vector<std::vector<float>> RunBatch(
      const std::vector<const Problem*>& batch, const Options& options,
      ThreadPool& pool);

  int64_t kv_width() const { return size_.kv_heads * size_.head_dim; }
  int64_t q_width() const { return size_.heads * size_.head_dim; }
  int64_t stored() const {
    return static_cast<int64_t>(keys_.size()) / kv_width();
  }
  int64_t group() const { return size_.heads / size_.kv_heads; }
  AttentionParams ParamsOf(const Options& options) const;
  KeyRange VisibleTo(const Options& options, int64_t position) const;
  std::vector<double> ScoresOf(const Options& options, int64_t row,
                               KeyRange visible, const std::vector<float>& keys,
                               double* score_error) const;
  // What the cache holds for `rows` [stored, kv_heads * head_dim], as floats.
  // scales: [stored, kv_heads], of int8.
  std::vector<float> Stored(const std::vector<float>& rows,
                            std::vector<float>& scales) const;

  Size size_;
  std::vector<float> queries_;  // [tokens, heads * head_dim]
  std::vector<float> keys_;     // [stored, kv_heads * head_dim]
  std::vector<float> values_;
};

// The outputs of several problems that share one call.
std::vector<std::vector<float>> RunBatch(
    const std::vector<const Problem*>& batch, const Problem::Options& options,
    ThreadPool& pool);

// Pages of a cache, all NaN at first, in shuffled places of one allocation.
class PagedCache {
 public:
  PagedCache(const KvView& shape, int64_t tokens);
  const KvView& view() const { return view_; }

 private:
  AlignedBuffer storage_;
  std::vector<std::byte*> key_pages_;
  std::vector<std::byte*> value_pages_;
  KvView view_;
};

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ATTENTION_ATTENTION_TESTING_H_
