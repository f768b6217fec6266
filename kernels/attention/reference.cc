#include "kernels/attention/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tensor/bf16.h"

namespace nibble {
namespace reference {
namespace {

double Widen(float value) { return value; }
double Widen(BF16 value) { return ToFloat(value); }

// The head_dim values of one token and KV head.
template <class T>
const T* TokenRow(absl::Span<std::byte* const> pages, const KvView& kv,
                  int64_t kv_head, int64_t token) {
  const int64_t slot = kv_head * kv.page_tokens + token % kv.page_tokens;
  return reinterpret_cast<const T*>(pages[token / kv.page_tokens]) +
         slot * kv.head_dim;
}

template <class T>
void AttendRow(const AttentionSequence& sequence, const AttentionParams& params,
               int64_t token, int64_t head) {
  const KvView& kv = sequence.kv;
  const int64_t kv_head = head / (params.heads / kv.kv_heads);
  const int64_t position = sequence.first_position + token;
  const KeyRange keys = VisibleKeys(sequence, params, token);
  const float* q = sequence.q.row(token) + head * kv.head_dim;
  float* out = sequence.out.row(token) + head * kv.head_dim;
  if (keys.begin == keys.end) {
    std::fill_n(out, kv.head_dim, 0.0f);
    return;
  }

  std::vector<double> scores;  // [visible keys]
  double max = -std::numeric_limits<double>::infinity();
  for (int64_t j = keys.begin; j < keys.end; ++j) {
    const T* k = TokenRow<T>(kv.key_pages, kv, kv_head, j);
    double dot = 0.0;
    for (int64_t i = 0; i < kv.head_dim; ++i) dot += q[i] * Widen(k[i]);
    double score = params.scale * dot;
    if (params.alibi_slopes != nullptr) {
      score += params.alibi_slopes[head] * static_cast<double>(j - position);
    }
    scores.push_back(score);
    max = std::max(max, score);
  }

  double sum = 0.0;
  std::vector<double> mix(kv.head_dim, 0.0);
  for (int64_t j = keys.begin; j < keys.end; ++j) {
    const double weight = std::exp(scores[j - keys.begin] - max);
    sum += weight;
    const T* v = TokenRow<T>(kv.value_pages, kv, kv_head, j);
    for (int64_t i = 0; i < kv.head_dim; ++i) mix[i] += weight * Widen(v[i]);
  }
  for (int64_t i = 0; i < kv.head_dim; ++i) {
    out[i] = static_cast<float>(mix[i] / sum);
  }
}

}  // namespace

int64_t AttendScratchFloats(int64_t) { return 0; }

void Attend(const AttentionTask& task, float*) {
  const int64_t group = task.params->heads / task.sequence->kv.kv_heads;
  for (int64_t row = task.row_begin; row < task.row_end; ++row) {
    const int64_t head = task.kv_head * group + row % group;
    if (task.sequence->kv.dtype == DType::kF32) {
      AttendRow<float>(*task.sequence, *task.params, row / group, head);
    } else {
      AttendRow<BF16>(*task.sequence, *task.params, row / group, head);
    }
  }
}

}  // namespace reference
}  // namespace nibble
