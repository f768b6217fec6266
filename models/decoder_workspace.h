// The memory of a forward pass between its steps. It grows to the largest batch
// it has seen and is then reused, so that decoding allocates nothing.
//
//   DecoderWorkspace work;                       // one per calling thread
//   decoder.Forward(batch, work, logits, pool);
#ifndef NIBBLE_MODELS_DECODER_WORKSPACE_H_
#define NIBBLE_MODELS_DECODER_WORKSPACE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/attention/attention.h"
#include "models/decoder_config.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {

// Views for one batch.
struct ForwardBuffers {
  MatrixView<float> x;           // [tokens, hidden], the residual stream
  MatrixView<float> normed;      // [tokens, hidden]
  MatrixView<float> mlp_normed;  // [tokens, hidden], parallel residual only
  MatrixView<float> qkv;         // [tokens, q_dim + 2 * kv_dim]
  MatrixView<float> attended;    // [tokens, q_dim]
  MatrixView<float> up;          // [tokens, ffn]
  MatrixView<float> cos, sin;    // [tokens, rotary_dims / 2]
  MatrixView<float> last;        // [wanted rows, hidden]
};

class DecoderWorkspace {
 public:
  // Contents are unspecified; valid until the next call.
  ForwardBuffers Views(const DecoderConfig& config, int64_t tokens,
                       int64_t wanted_rows);

  // One entry per slice of a batch; contents are those of the last call.
  absl::Span<AttentionSequence> Sequences(size_t slices);

  // Bytes held now.
  size_t bytes() const;

 private:
  // Grows one buffer where needed and views it as a matrix.
  static MatrixView<float> Grow(Array<float>& buffer, int64_t rows,
                                int64_t cols);

  Array<float> x_, normed_, mlp_normed_, qkv_, attended_, up_, cos_, sin_,
      last_;
  std::vector<AttentionSequence> sequences_;
};

}  // namespace nibble

#endif  // NIBBLE_MODELS_DECODER_WORKSPACE_H_
