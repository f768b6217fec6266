// Reads GGUF files, versions 2 and 3: metadata and named tensors in one file.
//
//   auto file = GgufFile::Open("model.gguf");
//   if (!file.ok()) return file.status();
//   absl::StatusOr<uint64_t> layers = (*file)->GetUint("llama.block_count");
//   absl::StatusOr<TensorView> output = (*file)->Find("output.weight");
//
// The file (little-endian;
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md):
//
//   "GGUF" | u32 version | u64 tensors | u64 pairs
//   pairs:    string key | u32 type | value
//   tensors:  string name | u32 rank | u64 dims[rank] | u32 type | u64 offset
//   padding to general.alignment (32 unless given) | the tensors' bytes
//
//   string:   u64 length | bytes       array:  u32 type | u64 count | values
//
// Dimensions stand innermost first in the file; a Shape here has them outermost
// first, so a matrix is [outputs, inputs].
//
// Everything is checked when the file opens, and no count or length in it is
// believed before it has been compared with the bytes that are left. Strings
// are not copied: the file stays mapped.
#ifndef NIBBLE_TENSOR_IO_GGUF_H_
#define NIBBLE_TENSOR_IO_GGUF_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tensor/coded_matrix.h"
#include "tensor/io/byte_reader.h"
#include "tensor/io/gguf_value.h"
#include "tensor/io/name_index.h"
#include "tensor/io/tensor_source.h"
#include "tensor/mapped_file.h"
#include "tensor/view.h"

namespace nibble {

class GgufFile : public TensorSource {
 public:
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(
      const std::string& path);

  // Reads a file that is already in memory; `path` is its name in messages.
  // `bytes` must outlive the result. REQUIRES: they start at a multiple of 64.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Parse(
      const std::string& path, absl::Span<const std::byte> bytes);

  const std::string& path() const override { return path_; }
  const std::vector<std::string>& names() const override {
    return tensors_.names();
  }
  bool Contains(absl::string_view name) const override {
    return tensors_.Find(name) != nullptr;
  }
  absl::StatusOr<TensorView> Find(absl::string_view name) const override;
  // Of a matrix of type Q4_0, Q4_1, Q4_K or Q8_0.
  const CodedMatrix* FindCoded(absl::string_view name) const override;
  absl::Status CheckUnchanged() const override {
    return file_ == nullptr ? absl::OkStatus() : file_->CheckUnchanged();
  }
  void Release(absl::Span<const std::byte> range) const override {
    if (file_ != nullptr) file_->Release(range);
  }

  // The type of a tensor as ggml calls it ("Q4_K", "IQ2_XXS", "type 99"), also
  // where Find refuses it. NotFound when there is no such tensor.
  absl::StatusOr<std::string> TensorTypeName(absl::string_view name) const;

  // 2 or 3.
  uint32_t version() const { return version_; }

  // Keys in the order of the file.
  const std::vector<std::string>& keys() const { return keys_; }
  bool HasKey(absl::string_view key) const {
    return values_.find(key) != values_.end();
  }

  // Getters. NotFound when the key is absent, InvalidArgument when its value is
  // of another type or out of range; both name the file and the key.
  absl::StatusOr<std::string> GetString(absl::string_view key) const;
  // Any integer type; negative is an error.
  absl::StatusOr<uint64_t> GetUint(absl::string_view key) const;
  // f32 or f64; may be NaN or infinite: judge it where its meaning is known.
  absl::StatusOr<double> GetFloat(absl::string_view key) const;
  absl::StatusOr<bool> GetBool(absl::string_view key) const;
  absl::StatusOr<std::vector<std::string>> GetStringArray(
      absl::string_view key) const;
  // As GetStringArray without copies: the views live as long as the file.
  absl::StatusOr<std::vector<absl::string_view>> GetStringViews(
      absl::string_view key) const;
  // f32 or f64 elements.
  absl::StatusOr<std::vector<float>> GetFloatArray(absl::string_view key) const;
  // Elements of any integer type.
  absl::StatusOr<std::vector<int64_t>> GetIntArray(absl::string_view key) const;

  // This file without its tensors: the header, with a tensor count of 0, and
  // the keys with their values, as Parse reads them.
  std::string MetadataBytes() const;

  // One line for people: 'llama', 32, [32000 string] '<unk>', '<s>', ...
  // Long values are cut, control characters escaped. Empty when the key is
  // absent.
  std::string ValueSummary(absl::string_view key) const;

 private:
  // A tensor whose range has been checked.
  struct Tensor {
    uint32_t type = 0;  // As numbered in the file.
    TensorView view;    // Without data when the type is not supported.
    std::unique_ptr<const CodedMatrix> coded;  // Null for most types.
  };

  explicit GgufFile(std::string path) : path_(std::move(path)) {}

  absl::Status Read(absl::Span<const std::byte> bytes);
  absl::Status ReadMetadata(ByteReader& reader, uint64_t count);
  absl::StatusOr<uint64_t> Alignment() const;
  absl::Status ReadTensors(ByteReader& reader, uint64_t count,
                           absl::Span<const std::byte> bytes);
  absl::Status CheckNoOverlap() const;
  absl::StatusOr<const GgufValue*> FindKey(absl::string_view key) const;
  template <class Convert>
  auto Get(absl::string_view key, absl::string_view wanted,
           Convert convert) const
      -> absl::StatusOr<
          typename decltype(convert(std::declval<GgufValue>()))::value_type>;

  const std::string path_;
  std::shared_ptr<const MappedFile> file_;  // Null after Parse.
  absl::Span<const std::byte> head_;        // From the magic to the last pair.
  uint32_t version_ = 0;
  std::vector<std::string> keys_;
  std::map<std::string, GgufValue, std::less<>> values_;
  NameIndex<Tensor> tensors_;
};

}  // namespace nibble

#endif  // NIBBLE_TENSOR_IO_GGUF_H_
