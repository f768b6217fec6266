#include "tensor/io/llama2c.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tensor/dtype.h"
#include "tensor/mapped_file.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace nibble {
namespace {

constexpr int kHeaderInts = 7;
constexpr int64_t kHeaderBytes = kHeaderInts * sizeof(int32_t);

// Bounds that keep every product below 2^62; the largest llama2.c export, of
// Llama 2 70B, has a tenth of each.
constexpr int64_t kMaxDim = int64_t{1} << 18;
constexpr int64_t kMaxVocabulary = int64_t{1} << 22;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxSequence = int64_t{1} << 24;

absl::Status Invalid(absl::string_view path, absl::string_view problem) {
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": not a llama2.c file: ", problem));
}

struct Field {
  const char* name;
  int64_t value;
  int64_t max;
};

absl::StatusOr<Llama2cHeader> ReadHeader(absl::string_view path,
                                         absl::Span<const std::byte> bytes) {
  int32_t raw[kHeaderInts];
  if (bytes.size() < sizeof(raw)) {
    return Invalid(path, "shorter than its header of 28 bytes");
  }
  std::memcpy(raw, bytes.data(), sizeof(raw));
  Llama2cHeader header;
  header.dim = raw[0];
  header.hidden_dim = raw[1];
  header.layers = raw[2];
  header.heads = raw[3];
  header.kv_heads = raw[4];
  header.tied_head = raw[5] > 0;
  header.vocabulary = std::abs(static_cast<int64_t>(raw[5]));
  header.sequence_length = raw[6];
  const Field fields[] = {
      {"dim", header.dim, kMaxDim},
      {"hidden_dim", header.hidden_dim, kMaxDim},
      {"layers", header.layers, kMaxLayers},
      {"heads", header.heads, kMaxDim},
      {"kv_heads", header.kv_heads, kMaxDim},
      {"vocabulary", header.vocabulary, kMaxVocabulary},
      {"sequence", header.sequence_length, kMaxSequence},
  };
  for (const Field& field : fields) {
    if (field.value < 1 || field.value > field.max) {
      return Invalid(path, absl::StrCat(field.name, " is ", field.value,
                                        "; it must be from 1 to ", field.max));
    }
  }
  if (header.dim % header.heads != 0 || (header.dim / header.heads) % 2 != 0) {
    return Invalid(path,
                   absl::StrCat("dim ", header.dim, " over ", header.heads,
                                " heads is not an even head dimension"));
  }
  if (header.heads % header.kv_heads != 0) {
    return Invalid(path,
                   absl::StrCat(header.heads, " heads do not divide among ",
                                header.kv_heads, " kv_heads"));
  }
  return header;
}

int64_t KvDim(const Llama2cHeader& header) {
  return header.dim / header.heads * header.kv_heads;
}

// Floats after the header.
int64_t ExpectedFloats(const Llama2cHeader& header) {
  const int64_t dim = header.dim;
  const int64_t per_layer = 2 * dim + 2 * dim * dim + 2 * KvDim(header) * dim +
                            3 * header.hidden_dim * dim;
  const int64_t head = header.tied_head ? 0 : header.vocabulary * dim;
  const int64_t rope_tables = header.sequence_length * (dim / header.heads);
  return header.vocabulary * dim + header.layers * per_layer + dim +
         rope_tables + head;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Llama2cFile>> Llama2cFile::Open(
    const std::string& path) {
  absl::StatusOr<std::shared_ptr<const MappedFile>> file =
      MappedFile::Open(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<std::unique_ptr<Llama2cFile>> result =
      Parse(path, (*file)->bytes());
  if (result.ok()) (*result)->file_ = *std::move(file);
  return result;
}

absl::StatusOr<std::unique_ptr<Llama2cFile>> Llama2cFile::Parse(
    const std::string& path, absl::Span<const std::byte> bytes) {
  CHECK_EQ(reinterpret_cast<uintptr_t>(bytes.data()) % alignof(float), 0u);
  const absl::StatusOr<Llama2cHeader> header = ReadHeader(path, bytes);
  if (!header.ok()) return header.status();
  const int64_t expected =
      kHeaderBytes +
      ExpectedFloats(*header) * static_cast<int64_t>(sizeof(float));
  if (static_cast<int64_t>(bytes.size()) != expected) {
    return Invalid(path, absl::StrCat("its header asks for ", expected,
                                      " bytes, it has ", bytes.size()));
  }
  auto file = std::unique_ptr<Llama2cFile>(new Llama2cFile(path, *header));
  file->AddTensors(bytes.subspan(kHeaderBytes));
  return file;
}

void Llama2cFile::AddTensors(absl::Span<const std::byte> data) {
  size_t offset = 0;
  const auto add = [&](std::string name, const Shape& shape) {
    const size_t bytes = static_cast<size_t>(shape.elements()) * sizeof(float);
    CHECK_LE(bytes, data.size() - offset);
    tensors_[name] =
        TensorView{DType::kF32, shape, data.data() + offset, bytes};
    names_.push_back(std::move(name));
    offset += bytes;
  };
  const auto add_layers = [&](absl::string_view part, const Shape& shape) {
    for (int64_t layer = 0; layer < header_.layers; ++layer) {
      add(absl::StrCat("blk.", layer, ".", part, ".weight"), shape);
    }
  };
  const int64_t dim = header_.dim;
  const int64_t kv_dim = KvDim(header_);
  const int64_t hidden_dim = header_.hidden_dim;
  add("token_embd.weight", {header_.vocabulary, dim});
  add_layers("attn_norm", {dim});
  add_layers("attn_q", {dim, dim});
  add_layers("attn_k", {kv_dim, dim});
  add_layers("attn_v", {kv_dim, dim});
  add_layers("attn_output", {dim, dim});
  add_layers("ffn_norm", {dim});
  add_layers("ffn_gate", {hidden_dim, dim});
  add_layers("ffn_down", {dim, hidden_dim});
  add_layers("ffn_up", {hidden_dim, dim});
  add("output_norm.weight", {dim});
  // The cosine and sine tables follow from the positions.
  offset +=
      static_cast<size_t>(header_.sequence_length * (dim / header_.heads)) *
      sizeof(float);
  if (!header_.tied_head) add("output.weight", {header_.vocabulary, dim});
  CHECK_EQ(offset, data.size());
  std::sort(names_.begin(), names_.end());
}

bool Llama2cFile::Contains(absl::string_view name) const {
  return tensors_.contains(name);
}

absl::StatusOr<TensorView> Llama2cFile::Find(absl::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return absl::NotFoundError(
        absl::StrCat(path_, ": there is no tensor ", name));
  }
  return found->second;
}

}  // namespace nibble
