// Reads llama2.c exports, version 0 (https://github.com/karpathy/llama2.c).
//
//   auto file = Llama2cFile::Open("stories260K.bin");
//   if (!file.ok()) return file.status();
//   absl::StatusOr<TensorView> q = (*file)->Find("blk.0.attn_q.weight");
//
// The file, little-endian, without magic or version:
//
//   i32 dim | i32 hidden_dim | i32 layers | i32 heads | i32 kv_heads
//   i32 vocabulary, negative when there is a head of its own | i32 sequence
//   f32 embedding    [vocabulary, dim]
//   f32 attn_norm    [layers, dim]
//   f32 q            [layers, dim, dim]
//   f32 k, v         [layers, kv_heads * dim / heads, dim] each
//   f32 attn_output  [layers, dim, dim]
//   f32 ffn_norm     [layers, dim]
//   f32 gate         [layers, hidden_dim, dim]
//   f32 down         [layers, dim, hidden_dim]
//   f32 up           [layers, hidden_dim, dim]
//   f32 output_norm  [dim]
//   f32 cos, sin     [sequence, dim / heads / 2] each, not exposed
//   f32 output       [vocabulary, dim], if the head is not tied
//
// Tensors are given the names that GGUF uses. The file's length must be exactly
// what its header asks for: with no magic, nothing else tells a llama2.c file.
#ifndef NIBBLE_TENSOR_IO_LLAMA2C_H_
#define NIBBLE_TENSOR_IO_LLAMA2C_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tensor/io/tensor_source.h"
#include "tensor/mapped_file.h"
#include "tensor/view.h"

namespace nibble {

struct Llama2cHeader {
  int64_t dim = 0;
  int64_t hidden_dim = 0;
  int64_t layers = 0;
  int64_t heads = 0;     // divides dim
  int64_t kv_heads = 0;  // divides heads
  int64_t vocabulary = 0;
  int64_t sequence_length = 0;
  bool tied_head = false;
};

class Llama2cFile : public TensorSource {
 public:
  static absl::StatusOr<std::unique_ptr<Llama2cFile>> Open(
      const std::string& path);

  // Reads a file that is already in memory; `path` is its name in messages.
  // `bytes` must outlive the result. REQUIRES: they are aligned for float.
  static absl::StatusOr<std::unique_ptr<Llama2cFile>> Parse(
      const std::string& path, absl::Span<const std::byte> bytes);

  const Llama2cHeader& header() const { return header_; }

  const std::string& path() const override { return path_; }
  const std::vector<std::string>& names() const override { return names_; }
  bool Contains(absl::string_view name) const override;
  absl::StatusOr<TensorView> Find(absl::string_view name) const override;
  void Release(absl::Span<const std::byte> range) const override {
    if (file_ != nullptr) file_->Release(range);
  }

 private:
  Llama2cFile(std::string path, const Llama2cHeader& header)
      : path_(std::move(path)), header_(header) {}
  void AddTensors(absl::Span<const std::byte> data);

  std::string path_;
  Llama2cHeader header_;
  std::shared_ptr<const MappedFile> file_;  // null after Parse
  std::vector<std::string> names_;
  absl::flat_hash_map<std::string, TensorView> tensors_;
};

}  // namespace nibble

#endif  // NIBBLE_TENSOR_IO_LLAMA2C_H_
