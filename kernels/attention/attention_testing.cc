#include "kernels/attention/attention_testing.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>

#include "absl/strings/str_cat.h"
#include "kernels/attention/int8_arithmetic.h"
#include "kernels/attention/quantize_head.h"
#include "kernels/elementwise/kernel_testing.h"
#include "tensor/bf16.h"

namespace nibble {

PagedCache::PagedCache(const KvView& shape, int64_t tokens) : view_(shape) {
  const int64_t pages = (tokens + shape.page_tokens - 1) / shape.page_tokens;
  const int64_t bytes = KvPageBytes(shape);
  // Bytes of ones are NaNs in both dtypes.
  storage_ = AlignedBuffer(static_cast<size_t>(2 * pages * bytes));
  std::memset(storage_.data(), 0xFF, storage_.size());
  std::vector<int64_t> places(static_cast<size_t>(2 * pages));
  std::iota(places.begin(), places.end(), 0);
  std::shuffle(places.begin(), places.end(), std::mt19937(7));
  for (int64_t i = 0; i < pages; ++i) {
    key_pages_.push_back(storage_.data() + places[2 * i] * bytes);
    value_pages_.push_back(storage_.data() + places[2 * i + 1] * bytes);
  }
  view_.key_pages = key_pages_;
  view_.value_pages = value_pages_;
}

Problem::Problem(const Size& size) : size_(size) {
  NormalNumbers normal(static_cast<uint32_t>(
      size.heads * 1000 + size.head_dim * 10 + size.tokens + size.first));
  queries_ = normal.Vector(size.tokens * q_width());
  // A few keys more than the causal ones, for full attention.
  const int64_t stored = std::max<int64_t>(size.first + size.tokens, 300);
  keys_ = normal.Vector(stored * kv_width());
  values_ = normal.Vector(stored * kv_width());
}

Problem Problem::As(DType dtype) const {
  Problem other = *this;
  other.size_.dtype = dtype;
  return other;
}

std::vector<float> Problem::Stored(const std::vector<float>& rows,
                                   std::vector<float>& scales) const {
  std::vector<float> stored = rows;
  scales.assign(rows.size() / size_.head_dim, 0.0f);
  if (size_.dtype == DType::kBF16) {
    for (float& v : stored) v = ToFloat(ToBF16(v));
  }
  if (size_.dtype != DType::kI8) return stored;
  std::vector<int8_t> codes(size_.head_dim);
  for (size_t head = 0; head < scales.size(); ++head) {
    float* const x = stored.data() + head * size_.head_dim;
    scales[head] = ToFloat(
        QuantizeHeadTable()[0].quantize(x, size_.head_dim, codes.data()));
    for (int64_t i = 0; i < size_.head_dim; ++i) x[i] = codes[i] * scales[head];
  }
  return stored;
}

void Problem::ScaleQueries(float factor) {
  for (float& q : queries_) q *= factor;
}

void Problem::SetQuery(int64_t token, int64_t index, float value) {
  queries_[token * q_width() + index] = value;
}

void Problem::PoisonToken(int64_t position, float value) {
  for (int64_t head = 0; head < size_.kv_heads; ++head) {
    for (int64_t i = 0; i < size_.head_dim; ++i) {
      const int64_t at = position * kv_width() + head * size_.head_dim + i;
      values_[at] = value;
    }
  }
}

void Problem::PoisonKey(int64_t position, float value) {
  for (int64_t head = 0; head < size_.kv_heads; ++head) {
    keys_[position * kv_width() + head * size_.head_dim] = value;
  }
}

AttentionParams Problem::ParamsOf(const Options& options) const {
  AttentionParams params;
  params.heads = size_.heads;
  params.scale = 1.0f / std::sqrt(static_cast<float>(size_.head_dim));
  params.causal = options.causal;
  params.window = options.window;
  params.alibi_slopes =
      options.slopes.empty() ? nullptr : options.slopes.data();
  return params;
}

namespace {

KvView ShapeOf(const Problem::Size& size) {
  return {size.dtype, size.kv_heads, size.head_dim, size.page_tokens, {}, {}};
}

int64_t LengthOf(const Problem& problem, const Problem::Options& options) {
  return options.kv_length > 0 ? options.kv_length
                               : problem.size().first + problem.size().tokens;
}

}  // namespace

std::vector<float> Problem::Run(const Options& options,
                                ThreadPool& pool) const {
  return RunBatch({this}, options, pool)[0];
}

std::vector<std::vector<float>> RunBatch(
    const std::vector<const Problem*>& batch, const Problem::Options& options,
    ThreadPool& pool) {
  std::vector<PagedCache> caches;
  caches.reserve(batch.size());
  std::vector<std::vector<float>> outputs(batch.size());
  std::vector<AttentionSequence> sequences;
  for (size_t i = 0; i < batch.size(); ++i) {
    const Problem& p = *batch[i];
    const int64_t length = LengthOf(p, options);
    caches.emplace_back(ShapeOf(p.size_), length);
    const KvView& kv = caches.back().view();
    StoreKv({p.keys_.data(), length, p.kv_width()},
            {p.values_.data(), length, p.kv_width()}, 0, kv);
    outputs[i].assign(p.queries_.size(), -1.0f);
    sequences.push_back({{p.queries_.data(), p.size_.tokens, p.q_width()},
                         {outputs[i].data(), p.size_.tokens, p.q_width()},
                         p.size_.first,
                         length,
                         kv});
  }
  Attention(sequences, batch[0]->ParamsOf(options), pool);
  return outputs;
}

std::vector<float> Problem::RunInChunks(const Options& options, int64_t chunk,
                                        ThreadPool& pool) const {
  const PagedCache cache(ShapeOf(size_), size_.first + size_.tokens);
  const auto rows = [&](const std::vector<float>& all, int64_t first,
                        int64_t count) {
    return MatrixView<const float>(all.data() + first * kv_width(), count,
                                   kv_width());
  };
  StoreKv(rows(keys_, 0, size_.first), rows(values_, 0, size_.first), 0,
          cache.view());
  std::vector<float> out(queries_.size(), -1.0f);
  for (int64_t t = 0; t < size_.tokens; t += chunk) {
    const int64_t count = std::min(chunk, size_.tokens - t);
    const int64_t first = size_.first + t;
    StoreKv(rows(keys_, first, count), rows(values_, first, count), first,
            cache.view());
    const AttentionSequence part{
        {queries_.data() + t * q_width(), count, q_width()},
        {out.data() + t * q_width(), count, q_width()},
        first,
        first + count,
        cache.view()};
    Attention({&part, 1}, ParamsOf(options), pool);
  }
  return out;
}

namespace {

constexpr double kUnit = 0x1p-24;  // of f32's rounding

struct Scored {
  double value;
  double error;  // a bound, see docs/attention.md
};

// The score of one key, and how far f32 (q_error 0) or integers whose queries
// are rounded by q_error may be off: the chain of head_dim products, the
// scaling of q, the bias.
Scored ScoreOf(const float* q, const float* k, int64_t dim, double scale,
               double bias, double q_error) {
  double dot = 0.0, magnitude = 0.0, key_sum = 0.0;
  for (int64_t i = 0; i < dim; ++i) {
    dot += double{q[i]} * k[i];
    magnitude += std::fabs(double{q[i]} * k[i]);
    key_sum += std::fabs(double{k[i]});
  }
  return {scale * dot + bias,
          kUnit * ((dim + 4) * scale * magnitude + 4 * std::fabs(bias)) +
              scale * q_error * (1 + 1e-5) * key_sum};
}

// Weighted values of one row, and what bounds their rounding.
struct Mixed {
  double sum = 0.0;
  std::vector<double> mix;
  std::vector<double> spread;    // of magnitudes
  std::vector<double> rounding;  // of int8's weights
};

}  // namespace

// The score of row's keys in `visible`; score_error receives their bound.
std::vector<double> Problem::ScoresOf(const Options& options, int64_t row,
                                      KeyRange visible,
                                      const std::vector<float>& keys,
                                      double* score_error) const {
  const int64_t dim = size_.head_dim;
  const int64_t head = row % size_.heads;
  const int64_t position = size_.first + row / size_.heads;
  const float* q = queries_.data() + row * dim;
  double largest_q = 0.0;
  for (int64_t i = 0; i < dim; ++i) {
    largest_q = std::max(largest_q, std::fabs(double{q[i]}));
  }
  // Half a step of the query's rounding.
  const double q_error =
      size_.dtype == DType::kI8 ? 0.5 * largest_q / MaxQueryCode(dim) : 0.0;
  std::vector<double> scores;
  *score_error = 0.0;
  for (int64_t j = visible.begin; j < visible.end; ++j) {
    const double bias =
        options.slopes.empty() ? 0.0 : options.slopes[head] * (j - position);
    const float* k =
        keys.data() + j * kv_width() + head / group() * size_.head_dim;
    const Scored scored =
        ScoreOf(q, k, dim, ParamsOf(options).scale, bias, q_error);
    scores.push_back(scored.value);
    *score_error = std::max(*score_error, scored.error);
  }
  return scores;
}

Expected Problem::Expect(const Options& options) const {
  const bool int8 = size_.dtype == DType::kI8;
  const int64_t dim = size_.head_dim;
  std::vector<float> key_scales, value_scales;
  const std::vector<float> keys = Stored(keys_, key_scales);
  const std::vector<float> values = Stored(values_, value_scales);
  Expected expected;
  for (int64_t row = 0; row < size_.tokens * size_.heads; ++row) {
    const int64_t head = row % size_.heads / group();
    const KeyRange visible =
        VisibleTo(options, size_.first + row / size_.heads);
    double score_error;
    const std::vector<double> scores =
        ScoresOf(options, row, visible, keys, &score_error);
    double max = -std::numeric_limits<double>::infinity();
    for (double score : scores) max = std::max(max, score);

    Mixed row_mix{0.0, std::vector<double>(dim), std::vector<double>(dim),
                  std::vector<double>(dim)};
    for (int64_t block = visible.begin; block < visible.end;) {
      const int64_t stop = std::min(visible.end, (block / 256 + 1) * 256);
      double largest_scale = 0.0, block_max = 0.0;
      std::vector<double> codes(dim, 0.0);  // sums of magnitudes
      for (int64_t j = block; j < stop; ++j) {
        const double weight = std::exp(scores[j - visible.begin] - max);
        const float* v = values.data() + j * kv_width() + head * dim;
        const double scale = value_scales[j * size_.kv_heads + head];
        block_max = std::max(block_max, weight);
        largest_scale = std::max(largest_scale, scale);
        row_mix.sum += weight;
        for (int64_t i = 0; i < dim; ++i) {
          row_mix.mix[i] += weight * v[i];
          row_mix.spread[i] += weight * std::fabs(v[i]);
          if (scale > 0.0) codes[i] += std::fabs(v[i]) / scale;
        }
      }
      // A weight is rounded to 1 / 32767 of the block's largest.
      for (int64_t i = 0; i < dim; ++i) {
        row_mix.rounding[i] += block_max * (1 + 2 * score_error) *
                               largest_scale * codes[i] *
                               (0.5 / 32767 + 0x1p-22);
      }
      block = stop;
    }
    // A weight is off by a factor of at most exp(+-2 score_error) and two ulp
    // of exp (int8: 2.8e-6); each sum rounds once per key of a block and per
    // block.
    const double count = static_cast<double>(visible.end - visible.begin);
    const double relative =
        std::expm1(std::min(2.0 * score_error, 50.0)) * 2.0 +
        kUnit * (2.0 * std::min(count, 256.0) + 4.0 * (count / 256.0 + 4.0)) +
        (int8 ? 2 * 2.9e-6 : 0.0);
    for (int64_t i = 0; i < dim; ++i) {
      const double scale = row_mix.sum == 0.0 ? 0.0 : 1.0 / row_mix.sum;
      expected.values.push_back(static_cast<float>(row_mix.mix[i] * scale));
      expected.tolerance.push_back(
          static_cast<float>((std::min(relative, 1e30) * row_mix.spread[i] +
                              (int8 ? row_mix.rounding[i] : 0.0)) *
                                 scale +
                             1e-37));
    }
  }
  return expected;
}

KeyRange Problem::VisibleTo(const Options& options, int64_t position) const {
  const int64_t end = options.causal ? position + 1 : LengthOf(*this, options);
  return {options.window > 0
              ? std::max<int64_t>(0, position - options.window + 1)
              : 0,
          end};
}

std::string Problem::Describe() const {
  return absl::StrCat(size_.heads, " heads, ", size_.kv_heads,
                      " kv heads, dim ", size_.head_dim, ", ",
                      DTypeName(size_.dtype), ", ", size_.tokens,
                      " queries at ", size_.first);
}

}  // namespace nibble
