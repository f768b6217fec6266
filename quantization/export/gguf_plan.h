// Which tensors a GGUF file of a checkpoint has, by llama.cpp's names and in
// its row orders.
//
//   absl::StatusOr<GgufPlan> plan = PlanGguf(checkpoint);
//   if (!plan.ok()) return plan.status();
//   plan->architecture;       // "llama"
//   plan->parts[0].name;      // "token_embd.weight"
//
// Planned from the parts of the decoder, so that it is one for all families and
// file formats. Families differ in this:
//
//   llama     rotary pairs interleaved: the rows of q and k, and their biases,
//   mistral   are reordered within each head, row 2j + s from row s d/2 + j
//   qwen2     as stored
//   gptneox   q, k and v in one matrix: all q, all k, all v
//   falcon    likewise; of two norms attn_norm_2 is the attention's
//   gptj      llama.cpp has the name, but no graph; named like llama's, with
//             output.bias, rows as stored
#ifndef NIBBLE_QUANTIZATION_EXPORT_GGUF_PLAN_H_
#define NIBBLE_QUANTIZATION_EXPORT_GGUF_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/checkpoint.h"
#include "tensor/shape.h"

namespace nibble {

// A matrix, or a vector, of the file.
struct GgufPart {
  std::string name;
  Shape shape;
  // What it is made of, one below the other; empty: zeros.
  std::vector<RowRange> rows;
  // Not 0: rows of q or k are reordered within heads of this size.
  int64_t permuted_head_dim = 0;
  // Of a matrix: the name it has in a .nib file ("layers.0.qkv.weight").
  std::string matrix;

  bool is_matrix() const { return shape.rank() == 2; }
  // Where row `source` of `rows` stands in the part. It stays in its head.
  int64_t WrittenRow(int64_t source) const;
};

struct GgufPlan {
  std::string architecture;
  std::vector<GgufPart> parts;
};

// The name in a .nib file of an embedding that is not the head too.
inline constexpr char kGgufEmbedding[] = "embedding.weight";

// Unimplemented, saying what it is, for what llama.cpp's graph of the family
// cannot do: ALiBi, biases or sequential layers of Falcon, an activation of its
// own, dynamic rotary scaling, windows that differ between layers.
absl::StatusOr<GgufPlan> PlanGguf(const Checkpoint& checkpoint);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_EXPORT_GGUF_PLAN_H_
