#include "kernels/attention/reference_int8.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/attention/int8_arithmetic.h"
#include "kernels/attention/int8_page.h"
#include "tensor/bf16.h"

namespace nibble {
namespace reference {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kLog2E = 1.44269504088896341f;

float FromBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

uint32_t ToBits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// 2^x, x <= 0, as Exp2NonPositive of kernels/elementwise/exp-inl.h.
float Exp2(float x) {
  if (x < -126.0f) return 0.0f;
  const float t = x + (12582912.0f + 127.0f);
  const float f = x - (t - (12582912.0f + 127.0f));
  float p = 1.546973217e-04f;
  for (float c : {1.341000083e-03f, 9.618030861e-03f, 5.550297350e-02f,
                  2.402265072e-01f, 6.931472421e-01f, 1.0f}) {
    p = std::fma(p, f, c);
  }
  return p * FromBits(ToBits(t) << 23);
}

float Probability(float x) {
  if (std::isnan(x)) return kNan;
  x = std::max(x, kInt8MinExponent);
  const float t = x + kInt8RoundMagic;
  const float f = x - (t - kInt8RoundMagic);
  float p = kInt8Exp2[3];
  for (float c : {kInt8Exp2[2], kInt8Exp2[1], kInt8Exp2[0], 1.0f}) {
    p = std::fma(p, f, c);
  }
  return FromBits(ToBits(p) + (ToBits(t) << 23));
}

struct Query {
  std::vector<int32_t> codes;  // [head_dim]
  float scale;
};

Query Quantize(const float* q, int64_t head_dim, float scale) {
  float magnitude = 0.0f;
  bool finite = true;
  for (int64_t i = 0; i < head_dim; ++i) {
    finite = finite && std::isfinite(q[i]);
    magnitude = std::max(magnitude, std::fabs(q[i]));
  }
  Query query{std::vector<int32_t>(head_dim), 0.0f};
  if (!finite) query.scale = kNan;
  if (!finite || magnitude < kMinQueryMagnitude) return query;
  const float range = static_cast<float>(MaxQueryCode(head_dim));
  const float factor = range / magnitude;
  for (int64_t i = 0; i < head_dim; ++i) {
    query.codes[i] = static_cast<int32_t>(std::nearbyint(q[i] * factor));
  }
  query.scale = magnitude / range * scale;
  return query;
}

// One KV head of a cache, read an element at a time.
class Cache {
 public:
  Cache(const KvView& kv, int64_t kv_head)
      : kv_(kv),
        layout_{kv.kv_heads, kv.head_dim, kv.page_tokens},
        kv_head_(kv_head) {}

  int32_t Key(int64_t token, int64_t i) const {
    return static_cast<int32_t>(
               Group(kv_.key_pages, token)[layout_.Key(token, i)]) -
           kInt8KeyOffset;
  }
  int32_t Value(int64_t token, int64_t i) const {
    return static_cast<int8_t>(
        Group(kv_.value_pages, token)[layout_.Value(token, i)]);
  }
  float KeyScale(int64_t token) const { return Scale(kv_.key_pages, token); }
  float ValueScale(int64_t token) const {
    return Scale(kv_.value_pages, token);
  }

 private:
  const std::byte* Group(absl::Span<std::byte* const> pages,
                         int64_t token) const {
    return pages[token / kv_.page_tokens] +
           layout_.Group(kv_head_, token % kv_.page_tokens);
  }
  float Scale(absl::Span<std::byte* const> pages, int64_t token) const {
    BF16 scale;
    std::memcpy(&scale,
                pages[token / kv_.page_tokens] +
                    layout_.Scale(kv_head_, token % kv_.page_tokens),
                sizeof(scale));
    return ToFloat(scale);
  }

  const KvView& kv_;
  const Int8Page layout_;
  const int64_t kv_head_;
};

struct Partial {
  float max = -kInfinity;
  float sum = 0.0f;
  std::vector<float> mix;  // [head_dim]
};

// A row's scores [keys.end - keys.begin].
std::vector<float> Scores(const Query& query, const Cache& cache, KeyRange keys,
                          float slope, int64_t position) {
  std::vector<float> scores;
  for (int64_t j = keys.begin; j < keys.end; ++j) {
    int64_t dot = 0;
    for (size_t i = 0; i < query.codes.size(); ++i) {
      dot += query.codes[i] * cache.Key(j, static_cast<int64_t>(i));
    }
    float score = static_cast<float>(dot) * cache.KeyScale(j) * query.scale;
    if (slope != 0.0f) {
      score = std::fma(slope, static_cast<float>(j - position), score);
    }
    scores.push_back(score);
  }
  return scores;
}

// Over keys of one block, at least one.
Partial AttendBlock(const std::vector<float>& scores, const Cache& cache,
                    KeyRange keys, int64_t head_dim) {
  Partial out;
  float largest = 0.0f;
  for (int64_t j = keys.begin; j < keys.end; ++j) {
    out.max = std::max(out.max, scores[j - keys.begin]);
    largest = std::max(largest, cache.ValueScale(j));
  }
  const float to_weight = largest == 0.0f ? 0.0f : kMaxWeight / largest;
  float lanes[16] = {};
  bool spoiled = false;
  std::vector<int64_t> sums(head_dim, 0);
  for (int64_t j = keys.begin; j < keys.end; ++j) {
    const float p = Probability(scores[j - keys.begin] - out.max);
    lanes[j % 16] += p;
    spoiled = spoiled || std::isnan(p) || std::isnan(cache.ValueScale(j));
    if (spoiled) continue;
    const float rounded =
        std::fma(p, cache.ValueScale(j) * to_weight, kInt8WeightMagic);
    const int64_t weight = static_cast<int64_t>(rounded - kInt8WeightMagic);
    for (int64_t i = 0; i < head_dim; ++i) {
      sums[i] += weight * cache.Value(j, i);
    }
  }
  for (int half = 8; half >= 1; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  out.sum = spoiled ? kNan : lanes[0];
  const float mix_scale = largest * (1.0f / kMaxWeight);
  for (int64_t sum : sums)
    out.mix.push_back(static_cast<float>(sum) * mix_scale);
  return out;
}

void Join(const Partial& block, Partial& total) {
  const float max = std::max(total.max, block.max);
  const float a = Exp2(total.max - max);
  const float b = Exp2(block.max - max);
  total.max = max;
  total.sum = std::fma(total.sum, a, block.sum * b);
  for (size_t i = 0; i < total.mix.size(); ++i) {
    total.mix[i] = std::fma(total.mix[i], a, block.mix[i] * b);
  }
}

void AttendRow(const AttentionTask& task, int64_t token, int64_t head) {
  const AttentionSequence& sequence = *task.sequence;
  const AttentionParams& params = *task.params;
  const int64_t head_dim = sequence.kv.head_dim;
  const Cache cache(sequence.kv, task.kv_head);
  const Query query = Quantize(sequence.q.row(token) + head * head_dim,
                               head_dim, params.scale * kLog2E);
  const float slope = params.alibi_slopes == nullptr
                          ? 0.0f
                          : params.alibi_slopes[head] * kLog2E;
  const KeyRange visible = VisibleKeys(sequence, params, token);
  Partial total;
  total.mix.assign(head_dim, 0.0f);
  for (int64_t begin = visible.begin; begin < visible.end;) {
    const KeyRange keys{
        begin, std::min((begin / kKeyBlock + 1) * kKeyBlock, visible.end)};
    const std::vector<float> scores =
        Scores(query, cache, keys, slope, sequence.first_position + token);
    Join(AttendBlock(scores, cache, keys, head_dim), total);
    begin = keys.end;
  }
  const float divisor = total.sum == 0.0f ? 1.0f : total.sum;
  float* const out = sequence.out.row(token) + head * head_dim;
  for (int64_t i = 0; i < head_dim; ++i) out[i] = total.mix[i] / divisor;
}

}  // namespace

void AttendInt8(const AttentionTask& task, float*) {
  const int64_t group = task.params->heads / task.sequence->kv.kv_heads;
  for (int64_t row = task.row_begin; row < task.row_end; ++row) {
    AttendRow(task, row / group, task.kv_head * group + row % group);
  }
}

}  // namespace reference
}  // namespace nibble
