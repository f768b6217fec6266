// An opened model: its configuration, its tensors, and which tensor is which
// part of the decoder. Made by OpenCheckpoint (models/registry.h), read by
// Decoder::Load. Nothing is copied: the tensors stay in the mapped file.
//
// A decoder's matrix is put together from row ranges of stored tensors. That
// one idea covers separate q, k and v (three ranges), a fused tensor with a
// layout of its own (one range per head) and a plain matrix (one range).
#ifndef NIBBLE_MODELS_CHECKPOINT_H_
#define NIBBLE_MODELS_CHECKPOINT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "models/decoder_config.h"
#include "models/quantized/quantized_summary.h"
#include "tensor/io/gguf.h"
#include "tensor/io/packed_file.h"
#include "tensor/io/tensor_source.h"

namespace nibble {

// Rows [first_row, first_row + rows) of a stored tensor. A bias is a tensor of
// one dimension; there a row is an element.
struct RowRange {
  std::string tensor;
  int64_t first_row = 0;
  int64_t rows = 0;
};

// y = W x + b, W made of `weight` one below the other.
struct LinearTensors {
  std::vector<RowRange> weight;  // [outputs, inputs]
  std::vector<RowRange> bias;    // [outputs]; empty: no bias
  // [inputs] of i32, a permutation, where a packed file has it: column j of
  // the matrix belongs to input input_order[j]. Empty in other files.
  std::string input_order;
};

struct NormTensors {
  std::string weight;  // [hidden]
  std::string bias;    // [hidden]; empty for RMSNorm
};

struct LayerTensors {
  NormTensors attention_norm;
  NormTensors mlp_norm;     // empty names under NormLayout::kShared
  LinearTensors qkv;        // [q_dim + 2 * kv_dim, hidden]: all q, all k, all v
  LinearTensors attention;  // [hidden, q_dim], the output projection
  LinearTensors up;    // [2 * ffn, hidden]: gate, up; [ffn, hidden] if plain
  LinearTensors down;  // [hidden, ffn]
};

struct DecoderTensors {
  // [vocabulary, hidden]; empty in a packed file with a tied head: there the
  // rows are the head's.
  std::string embedding;
  std::vector<LayerTensors> layers;
  NormTensors final_norm;
  LinearTensors head;  // [vocabulary, hidden]; the embedding when tied
  // Stored tensors that the decoder does not read and that do no harm, such as
  // precomputed rotary frequencies. A full name, or "*" and an ending.
  std::vector<std::string> ignored;
};

struct Checkpoint {
  std::string path;    // as it was given
  std::string format;  // "safetensors", "gguf", "llama2.c", "nib"
  DecoderConfig config;
  DecoderTensors names;
  std::shared_ptr<const TensorSource> tensors;
  // The same object as `tensors` when the format is "gguf", for its metadata
  // (vocabulary, chat template); otherwise null.
  std::shared_ptr<const GgufFile> gguf;
  // The same object as `tensors` when the format is "nib", for its packed
  // matrices and embedded files; otherwise null.
  std::shared_ptr<const PackedFile> packed;
  // Of a quantized Hugging Face folder; otherwise null.
  std::shared_ptr<const QuantizedSummary> quantized;
};

// OK when every tensor of `names` is there with the shape that `config` asks
// for and a dtype that can be read (of a packed file: matrices packed, input
// orders i32 where there are any, and everything else plain), and no other
// tensor is. Messages name the file, the tensor, the shape found and the shape
// expected.
absl::Status CheckTensors(const Checkpoint& checkpoint);

}  // namespace nibble

#endif  // NIBBLE_MODELS_CHECKPOINT_H_
