#include "models/decoder_workspace.h"

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/attention/attention.h"
#include "kernels/elementwise/rope.h"
#include "models/decoder_config.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {

MatrixView<float> DecoderWorkspace::Grow(Array<float>& buffer, int64_t rows,
                                         int64_t cols) {
  const size_t needed = static_cast<size_t>(rows) * static_cast<size_t>(cols);
  if (buffer.size() < needed) buffer = Array<float>(needed);
  return MatrixView<float>(buffer.data(), rows, cols);
}

ForwardBuffers DecoderWorkspace::Views(const DecoderConfig& config,
                                       int64_t tokens, int64_t wanted_rows) {
  ForwardBuffers buffers;
  buffers.x = Grow(x_, tokens, config.hidden);
  buffers.normed = Grow(normed_, tokens, config.hidden);
  if (config.residual == Residual::kParallel) {
    buffers.mlp_normed = config.norm_layout == NormLayout::kShared
                             ? buffers.normed
                             : Grow(mlp_normed_, tokens, config.hidden);
  }
  buffers.qkv = Grow(qkv_, tokens, config.qkv_dim());
  buffers.attended = Grow(attended_, tokens, config.q_dim());
  buffers.up = Grow(up_, tokens, config.ffn);
  const int64_t pairs =
      config.rope.style == RopeStyle::kNone ? 0 : config.rope.rotary_dims / 2;
  buffers.cos = Grow(cos_, tokens, pairs);
  buffers.sin = Grow(sin_, tokens, pairs);
  buffers.last = Grow(last_, wanted_rows, config.hidden);
  return buffers;
}

absl::Span<AttentionSequence> DecoderWorkspace::Sequences(size_t slices) {
  if (sequences_.size() < slices) sequences_.resize(slices);
  return absl::MakeSpan(sequences_.data(), slices);
}

size_t DecoderWorkspace::bytes() const {
  size_t floats = 0;
  for (const Array<float>* buffer : {&x_, &normed_, &mlp_normed_, &qkv_,
                                     &attended_, &up_, &cos_, &sin_, &last_}) {
    floats += buffer->size();
  }
  return floats * sizeof(float);
}

}  // namespace nibble
