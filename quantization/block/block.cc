#include "quantization/block/block.h"

#include <algorithm>
#include <memory>
#include <type_traits>

#include "absl/log/check.h"

namespace nibble {
namespace {

template <class T>
std::unique_ptr<BlockSteps<T>> MakeSteps(const BlockShape& shape) {
  if constexpr (std::is_same_v<T, float>) {
    return MakeFastSteps(shape);
  } else {
    return MakePlainSteps(shape);
  }
}

int64_t UpOutputs(const DecoderConfig& config) {
  return config.gated ? 2 * config.ffn : config.ffn;
}

// Memory for a sum: zeros, unless it goes on.
template <class T>
void BeginSum(size_t size, bool accumulate, Array<T>& sum) {
  if (accumulate && sum.size() == size) return;
  CHECK(!accumulate || sum.empty());
  if (sum.size() != size) sum = Array<T>(size);
  std::fill(sum.begin(), sum.end(), T{0});
}

}  // namespace

template <class T>
Block<T>::Block(const DecoderConfig& config, int64_t layer, int64_t length,
                GemmPrecision precision)
    : shape_(config, layer, length, precision), steps_(MakeSteps<T>(shape_)) {}

template <class T>
void Block<T>::SetWeights(const BlockWeights<T>& weights, bool gradients,
                          ThreadPool& pool) {
  weights_ = &weights;
  gradients_ = gradients;
  for (const LinearId id : kAllLinears) {
    SetLinear(id, weights[id].view(), pool);
  }
}

template <class T>
void Block<T>::SetLinear(LinearId id, MatrixView<const T> weight,
                         ThreadPool& pool) {
  CHECK(weights_ != nullptr);
  const BlockLinear<T>& linear = (*weights_)[id];
  CHECK_EQ(weight.rows, linear.outputs);
  CHECK_EQ(weight.cols, linear.inputs);
  steps_->SetLinear(id, weight, gradients_, pool);
}

template <class T>
void Block<T>::AddAttention(const BlockActivations<T>& acts,
                            MatrixView<const T> base, MatrixView<T> sum,
                            ThreadPool& pool) {
  steps_->Copy(base, sum, pool);
  steps_->Product(LinearId::kAttention, acts.attended_.view(),
                  bias(LinearId::kAttention), /*accumulate=*/true, sum, pool);
}

template <class T>
void Block<T>::Forward(MatrixView<const T> x, BlockActivations<T>& acts,
                       ThreadPool& pool, std::optional<LinearId> until) {
  const DecoderConfig& c = config();
  const int64_t tokens = x.rows;
  CHECK(weights_ != nullptr);
  CHECK_EQ(x.cols, c.hidden);
  CHECK(tokens > 0 && tokens % shape_.length == 0);
  acts.shared_norm_ = c.norm_layout == NormLayout::kShared;

  const MatrixView<T> normed = acts.normed_.Resize(tokens, c.hidden);
  steps_->Norm(weights_->attention_norm, x, normed, pool);
  if (until == LinearId::kQkv) return;

  const MatrixView<T> qkv = acts.qkv_.Resize(tokens, c.qkv_dim());
  steps_->Product(LinearId::kQkv, normed, bias(LinearId::kQkv),
                  /*accumulate=*/false, qkv, pool);
  steps_->Attend(qkv, acts.attended_.Resize(tokens, c.q_dim()), pool);
  if (until == LinearId::kAttention) return;

  const bool sequential = c.residual == Residual::kSequential;
  const MatrixView<T> output = acts.output_.Resize(tokens, c.hidden);
  // Without gradients, the sum with attention may become the output in place.
  MatrixView<T> mid = output;
  if (sequential && gradients_) mid = acts.mid_.Resize(tokens, c.hidden);
  if (sequential) AddAttention(acts, x, mid, pool);
  if (!acts.shared_norm_) {
    steps_->Norm(weights_->mlp_norm, sequential ? mid : x,
                 acts.mlp_normed_.Resize(tokens, c.hidden), pool);
  }
  if (until == LinearId::kUp) return;

  MatrixView<T> up;
  if (gradients_) up = acts.up_.Resize(tokens, UpOutputs(c));
  const MatrixView<T> inner = acts.inner_.Resize(tokens, c.ffn);
  steps_->Inner(acts.input(LinearId::kUp), bias(LinearId::kUp), up, inner,
                pool);
  if (until == LinearId::kDown) return;

  if (!sequential) {
    AddAttention(acts, x, output, pool);
  } else if (gradients_) {
    steps_->Copy(mid, output, pool);
  }
  steps_->Product(LinearId::kDown, inner, bias(LinearId::kDown),
                  /*accumulate=*/true, output, pool);
}

// The gradients by a linear's own parameters.
template <class T>
void Block<T>::LinearGradient(LinearId id, MatrixView<const T> dy,
                              MatrixView<const T> input,
                              BlockGradients<T>& gradients, ThreadPool& pool) {
  BlockLinear<T>& out = gradients[id];
  out.outputs = dy.cols;
  out.inputs = input.cols;
  if (gradients.want_weights[static_cast<size_t>(id)]) {
    const size_t size = static_cast<size_t>(out.outputs * out.inputs);
    const bool add = gradients.accumulate && out.weight.size() == size;
    if (out.weight.size() != size) out.weight = Array<T>(size);
    steps_->WeightGradient(dy, input, add, out.view(), pool);
  }
  if (gradients.want_biases && !bias(id).empty()) {
    BeginSum(bias(id).size(), gradients.accumulate, out.bias);
    steps_->BiasGradient(dy, out.bias.span(), pool);
  }
}

template <class T>
void Block<T>::NormGradient(const BlockNorm<T>& norm, MatrixView<const T> x,
                            MatrixView<const T> dy,
                            BlockGradients<T>& gradients, BlockNorm<T>& out,
                            ThreadPool& pool) {
  if (!gradients.want_norms) return;
  BeginSum(norm.weight.size(), gradients.accumulate, out.weight);
  BeginSum(norm.bias.size(), gradients.accumulate, out.bias);
  steps_->NormWeightGradient(x, dy, out.weight.span(), out.bias.span(), pool);
}

template <class T>
void Block<T>::Backward(MatrixView<const T> x, const BlockActivations<T>& acts,
                        MatrixView<const T> dy, BlockGradients<T>& gradients,
                        ThreadPool& pool) {
  const DecoderConfig& c = config();
  const int64_t tokens = x.rows;
  CHECK(gradients_);
  CHECK_EQ(dy.rows, tokens);
  CHECK_EQ(dy.cols, c.hidden);
  CHECK_EQ(acts.output().rows, tokens);
  // Whether anything from linear `i` downwards is wanted.
  const auto wanted_before = [&](LinearId id) {
    const auto end = gradients.want_weights.begin() + static_cast<int>(id);
    return gradients.want_biases || gradients.want_norms || gradients.want_x ||
           std::any_of(gradients.want_weights.begin(), end,
                       [](bool want) { return want; });
  };
  const bool sequential = c.residual == Residual::kSequential;
  const bool inputs = gradients.want_norms || gradients.want_x;

  LinearGradient(LinearId::kDown, dy, acts.inner_.view(), gradients, pool);
  if (!wanted_before(LinearId::kDown)) return;
  const MatrixView<T> d_inner = d_inner_.Resize(tokens, c.ffn);
  steps_->InputGradient(LinearId::kDown, dy, false, d_inner, pool);
  const MatrixView<T> d_up = d_up_.Resize(tokens, UpOutputs(c));
  steps_->InnerGradient(acts.up_.view(), d_inner, d_up, pool);
  LinearGradient(LinearId::kUp, d_up, acts.input(LinearId::kUp), gradients,
                 pool);
  if (!wanted_before(LinearId::kUp)) return;

  // d_mid: by what attention adds to; parallel: that is dy itself.
  const MatrixView<T> d_normed = d_normed_.Resize(tokens, c.hidden);
  MatrixView<const T> d_mid = dy;
  if (sequential) {
    steps_->InputGradient(LinearId::kUp, d_up, false, d_normed, pool);
    const MatrixView<T> sum = d_mid_.Resize(tokens, c.hidden);
    const MatrixView<const T> mid = acts.mid_.view();
    NormGradient(weights_->mlp_norm, mid, d_normed, gradients,
                 gradients.mlp_norm, pool);
    steps_->NormInputGradient(weights_->mlp_norm, mid, d_normed, dy, sum, pool);
    d_mid = sum;
  }

  LinearGradient(LinearId::kAttention, d_mid, acts.attended_.view(), gradients,
                 pool);
  if (!wanted_before(LinearId::kAttention)) return;
  const MatrixView<T> d_attended = d_attended_.Resize(tokens, c.q_dim());
  steps_->InputGradient(LinearId::kAttention, d_mid, false, d_attended, pool);
  const MatrixView<T> d_qkv = d_qkv_.Resize(tokens, c.qkv_dim());
  steps_->AttendGradient(acts.qkv_.view(), d_attended, d_qkv, pool);
  LinearGradient(LinearId::kQkv, d_qkv, acts.normed_.view(), gradients, pool);
  if (!inputs) return;

  const MatrixView<T> d_x = gradients.x.Resize(tokens, c.hidden);
  MatrixView<const T> base = d_mid;
  if (!sequential && !acts.shared_norm_) {
    steps_->InputGradient(LinearId::kUp, d_up, false, d_normed, pool);
    NormGradient(weights_->mlp_norm, x, d_normed, gradients, gradients.mlp_norm,
                 pool);
    steps_->NormInputGradient(weights_->mlp_norm, x, d_normed, base, d_x, pool);
    base = d_x;
  }
  steps_->InputGradient(LinearId::kQkv, d_qkv, false, d_normed, pool);
  if (acts.shared_norm_) {
    steps_->InputGradient(LinearId::kUp, d_up, true, d_normed, pool);
  }
  NormGradient(weights_->attention_norm, x, d_normed, gradients,
               gradients.attention_norm, pool);
  steps_->NormInputGradient(weights_->attention_norm, x, d_normed, base, d_x,
                            pool);
}

template class Block<float>;
template class Block<double>;

}  // namespace nibble
