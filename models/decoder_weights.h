// The weights of a decoder in the form the kernels read: matrices packed,
// norms and biases as floats.
//
//   auto weights = LoadWeights(checkpoint, std::nullopt, nullptr, pool);
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
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "tensor/buffer.h"
#include "tensor/io/tensor_source.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"

namespace nibble {

struct NormWeights {
  Array<float> weight;  // [hidden]
  Array<float> bias;    // [hidden] or empty
};

struct LinearWeights {
  PackedMatrix matrix;  // [outputs, inputs]
  Array<float> bias;    // [outputs] or empty
  // [inputs], a permutation, or empty: column j of the matrix belongs to input
  // input_order[j] (tensor/coded_matrix.h).
  Array<int32_t> input_order;
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
  // one row of it. Not set: the rows are those of `head`.
  std::optional<TensorView> embedding;
  AlignedBuffer embedding_memory;  // where it is not in the file: floats
  std::vector<LayerWeights> layers;
  NormWeights final_norm;
  LinearWeights head;  // [vocabulary, hidden]
  // Keeps the file open that `embedding` and mapped matrices lie in.
  std::shared_ptr<const TensorSource> source;

  // Bytes of all packed matrices.
  size_t matrix_bytes() const;
  // Whether any of them is of an integer format.
  bool has_integer_matrix() const;
  // Whether none of them is of another format than f32.
  bool all_f32() const;
};

// OK when there is a matrix, bias and norm wherever `weights.config` asks for
// one, each of the size that it asks for, and none where it does not; and when
// input orders are permutations.
// InvalidArgument, naming the one that is not: "layers.3.qkv".
absl::Status CheckWeights(const DecoderWeights& weights);

// Called on the loading thread after each matrix: matrices done, in all.
using LoadProgress = std::function<void(int64_t done, int64_t total)>;

// Rounds matrices to `format` (kF32 or kBF16); norms and biases become f32.
// Without a format, matrices stay as they are stored: quantized ones keep their
// codes, float ones become bf16 (AsStored in models/coded_gather.h). `progress`
// may be null. At most one matrix is held twice at a time. InvalidArgument,
// naming the tensor: a value is NaN or infinite, an input order is no
// permutation. Aborted: the file was changed meanwhile.
//
// The matrices of a packed file are mapped as they are instead, whatever
// `format` says: nothing is read but norms, biases and input orders.
absl::StatusOr<DecoderWeights> LoadWeights(const Checkpoint& checkpoint,
                                           std::optional<WeightFormat> format,
                                           const LoadProgress& progress,
                                           ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_MODELS_DECODER_WEIGHTS_H_
