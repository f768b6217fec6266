#include "quantization/block/attention_gradient.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/gemm/gemm.h"
#include "kernels/gradient/gradient.h"

namespace nibble {
namespace {

// Queries of a block: two blocks of scores, 128 x 512 of them, are half of a
// 1 MiB L2. Fewer where sequences are longer, but enough for Gemm's tiles.
int64_t BlockQueries(int64_t length) {
  return std::clamp(int64_t{65536} / length, int64_t{32}, int64_t{128});
}

// A query head of one sequence; all [length, head_dim].
struct HeadViews {
  MatrixView<const float> q, k, v, d_out;
  MatrixView<float> d_q, d_k, d_v;
  float slope = 0.0f;
};

// Consecutive queries of a head, and the keys that any of them sees.
struct Part {
  int64_t first_query;
  int64_t queries;
  int64_t first_key;
  int64_t keys;
};

// Turns rows of scores into weights: zeros where a key is out of sight.
void WeightRows(const BlockShape& shape, const Part& part, float slope,
                MatrixView<float> scores) {
  for (int64_t i = 0; i < part.queries; ++i) {
    const int64_t query = part.first_query + i;
    const int64_t first =
        shape.window == 0 ? 0 : std::max<int64_t>(0, query - shape.window + 1);
    float* row = scores.row(i);
    const int64_t begin = first - part.first_key;
    const int64_t end = query + 1 - part.first_key;
    std::fill(row, row + begin, 0.0f);
    std::fill(row + end, row + part.keys, 0.0f);
    AttentionWeights(
        static_cast<float>(shape.score_scale), slope,
        absl::MakeSpan(row + begin, static_cast<size_t>(end - begin)));
  }
}

// With s = scale q k^T, w = softmax(s), out = w v:
//   dv = w^T dout, dw = dout v^T, ds = w (dw - sum w dw), dq = ds k,
//   dk = ds^T q.
void PartGradient(const BlockShape& shape, const HeadViews& head,
                  const Part& part, MatrixView<float> weights,
                  MatrixView<float> d_weights, ThreadPool& alone) {
  const GemmOptions set = {shape.precision, /*accumulate=*/false};
  const GemmOptions add = {shape.precision, /*accumulate=*/true};
  const auto queries = [&](auto view) {
    return view.Rows(part.first_query, part.queries);
  };
  const auto keys = [&](auto view) {
    return view.Rows(part.first_key, part.keys);
  };
  GemmNT(queries(head.q), keys(head.k), set, weights, alone);
  WeightRows(shape, part, head.slope, weights);
  GemmTN(weights, queries(head.d_out), add, keys(head.d_v), alone);
  GemmNT(queries(head.d_out), keys(head.v), set, d_weights, alone);
  for (int64_t i = 0; i < part.queries; ++i) {
    ScoreGradient(weights.row_span(i), static_cast<float>(shape.score_scale),
                  d_weights.row_span(i));
  }
  GemmNN(d_weights, keys(head.k), set, queries(head.d_q), alone);
  GemmTN(d_weights, queries(head.q), add, keys(head.d_k), alone);
}

void Clear(MatrixView<float> view) {
  for (int64_t i = 0; i < view.rows; ++i) {
    std::fill_n(view.row(i), view.cols, 0.0f);
  }
}

}  // namespace

void AttentionGradient::Run(const BlockShape& shape,
                            const AttentionGradientViews& views,
                            ThreadPool& pool) {
  const DecoderConfig& c = shape.config;
  const int64_t length = shape.length;
  const int64_t hd = c.head_dim;
  const int64_t block = std::min(length, BlockQueries(length));
  const int64_t group = c.heads / c.kv_heads;
  while (workers_.size() < static_cast<size_t>(pool.threads())) {
    workers_.push_back(std::make_unique<Worker>());
    workers_.back()->weights =
        Array<float>(static_cast<size_t>(block * length));
    workers_.back()->d_weights =
        Array<float>(static_cast<size_t>(block * length));
  }

  const auto run_head = [&](int64_t sequence, int64_t head, Worker& worker) {
    const int64_t row = sequence * length;
    const int64_t key = c.q_dim() + head / group * hd;
    const int64_t value = key + c.kv_dim();
    const MatrixView<const float> qkv = views.qkv.Rows(row, length);
    const MatrixView<float> d_qkv = views.d_qkv.Rows(row, length);
    HeadViews view;
    view.q = qkv.Columns(head * hd, hd);
    view.k = qkv.Columns(key, hd);
    view.v = qkv.Columns(value, hd);
    view.d_out = views.d_attended.Rows(row, length).Columns(head * hd, hd);
    view.d_q = d_qkv.Columns(head * hd, hd);
    view.d_k = d_qkv.Columns(key, hd);
    view.d_v = d_qkv.Columns(value, hd);
    if (!shape.alibi_slopes.empty()) {
      view.slope = shape.alibi_slopes[static_cast<size_t>(head)];
    }
    if (head % group == 0) {
      Clear(view.d_k);
      Clear(view.d_v);
    }
    for (int64_t first = 0; first < length; first += block) {
      Part part;
      part.first_query = first;
      part.queries = std::min(block, length - first);
      part.first_key = shape.window == 0
                           ? 0
                           : std::max<int64_t>(0, first - shape.window + 1);
      part.keys = first + part.queries - part.first_key;
      const MatrixView<float> weights(worker.weights.data(), part.queries,
                                      part.keys);
      const MatrixView<float> d_weights(worker.d_weights.data(), part.queries,
                                        part.keys);
      PartGradient(shape, view, part, weights, d_weights, worker.alone);
    }
  };
  const int64_t sequences = views.qkv.rows / length;
  pool.ParallelForStealing(
      sequences * c.kv_heads, 1, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t task = begin; task < end; ++task) {
          const int64_t first = task % c.kv_heads * group;
          for (int64_t head = first; head < first + group; ++head) {
            run_head(task / c.kv_heads, head,
                     *workers_[static_cast<size_t>(thread)]);
          }
        }
      });
}

}  // namespace nibble
