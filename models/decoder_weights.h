// The weights of a decoder in the form the kernels read: matrices packed,
// norms and biases as floats.
//
//   auto weights = LoadWeights(checkpoint, DType::kBF16, nullptr, pool);
//   MatMul(x, weights->layers[0].qkv.matrix, options, qkv, pool);
//
// Matrices that read the same input are one matrix here, rows one below the
// other: one pass over the activations and one parallel region serve them all.
#ifndef NIBBLE_MODELS_DECODER_WEIGHTS_H_
#define NIBBLE_MODELS_DECODER_WEIGHTS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"

namespace nibble {

struct NormWeights {
  Array<float> weight;  // [hidden]
  Array<float> bias;    // [hidden] or empty
};

struct LinearWeights {
  PackedMatrix matrix;  // [outputs, inputs]
  Array<float> bias;    // [outputs] or empty
};

struct LayerWeights {
  NormWeights attention_norm;
  NormWeights mlp_norm;     // empty under NormLayout::kShared
  LinearWeights qkv;        // [q_dim + 2 * kv_dim, hidden]: all q, all k, all v
  LinearWeights attention;  // [hidden, q_dim]
  LinearWeights up;         // [2 * ffn, hidden]: gate, up; plain: [ffn, hidden]
  LinearWeights down;       // [hidden, ffn]
};

struct DecoderWeights {
  DecoderConfig config;
  // [vocabulary, hidden], in the file and in the file's dtype: a token reads
  // one row of it.
  TensorView embedding;
  std::vector<LayerWeights> layers;
  NormWeights final_norm;
  LinearWeights head;  // [vocabulary, hidden]
  // Keeps the embedding's file open.
  std::shared_ptr<const TensorSource> source;

  // Bytes of all packed matrices.
  size_t matrix_bytes() const;
};

// Called on the loading thread after each matrix: matrices done, in all.
using LoadProgress = std::function<void(int64_t done, int64_t total)>;

// Rounds matrices to `dtype` (kF32 or kBF16); norms and biases stay f32.
// `progress` may be null. At most one matrix is held twice at a time.
// InvalidArgument, naming the tensor: a value is NaN or infinite. Aborted: the
// file was changed meanwhile.
absl::StatusOr<DecoderWeights> LoadWeights(const Checkpoint& checkpoint,
                                           DType dtype,
                                           const LoadProgress& progress,
                                           ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_MODELS_DECODER_WEIGHTS_H_
