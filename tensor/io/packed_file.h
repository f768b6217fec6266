// The .nib file: a model's configuration, its weights as the kernels read them,
// and its tokenizer, in one file that is mapped and run in place.
//
//   auto file = PackedFile::Open("model.nib");
//   if (!file.ok()) return file.status();
//   absl::StatusOr<PackedTensor> qkv =
//       (*file)->FindPacked("layers.0.qkv.weight");
//   absl::StatusOr<TensorView> norm = (*file)->Find("final_norm.weight");
//   absl::StatusOr<absl::string_view> json =
//   (*file)->FindFile("tokenizer.json");
//
//   auto writer = PackedFileWriter::Create(
//       "model.nib", manifest, {{"final_norm.weight",
//                                PlainTensor{DType::kF32, {4096}}}}, {});
//   if (absl::Status s = writer->Append(bytes); !s.ok()) return s;
//   return writer->Commit();
//
// docs/packed_format.md draws the bytes. Open reads and checks the header and
// the manifest, whatever they say: names, formats, shapes, and that every part
// lies where the format wants it, so that views lead nowhere else. It does not
// touch the tensors, so that a file of gigabytes opens in milliseconds; their
// checksums are compared by Verify, which `inspect` runs.
#ifndef NIBBLE_TENSOR_IO_PACKED_FILE_H_
#define NIBBLE_TENSOR_IO_PACKED_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tensor/io/atomic_file.h"
#include "tensor/io/name_index.h"
#include "tensor/io/packed_entry.h"
#include "tensor/io/packed_manifest.pb.h"
#include "tensor/io/tensor_source.h"
#include "tensor/mapped_file.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"

namespace nibble {

struct PackedTensorPlan {
  std::string name;
  PackedKind what;
};

// A file to carry along, by its name without a folder.
struct EmbeddedFile {
  std::string name;
  std::string bytes;  // At least one.
};

// A matrix inside the mapped file.
struct PackedTensor {
  PackedLayout layout;
  const std::byte* data = nullptr;  // [layout.bytes()], starts at a page
};

// Calls task(0) ... task(tasks - 1), each once, in any order and on any thread,
// and returns when all are done.
using ParallelRunner =
    absl::FunctionRef<void(int64_t tasks, absl::FunctionRef<void(int64_t)>)>;

class PackedFile : public TensorSource {
 public:
  // Errors name the file and the field or tensor. InvalidArgument for what is
  // no .nib file or contradicts itself, DataLoss for a header or manifest that
  // does not match its checksum, Unimplemented for another version.
  static absl::StatusOr<std::shared_ptr<const PackedFile>> Open(
      const std::string& path);

  // Reads a file that is already in memory; `path` is its name in messages.
  // `bytes` must outlive the result. REQUIRES: they start at a multiple of 64.
  static absl::StatusOr<std::shared_ptr<const PackedFile>> Parse(
      const std::string& path, absl::Span<const std::byte> bytes);

  // As the file has it; configuration and record are for others to judge.
  const PackedManifest& manifest() const { return manifest_; }

  const std::string& path() const override { return path_; }
  // Sorted; packed and plain tensors.
  const std::vector<std::string>& names() const override {
    return tensors_.names();
  }
  bool Contains(absl::string_view name) const override {
    return tensors_.Find(name) != nullptr;
  }
  // A plain tensor. Unimplemented, saying so, for a packed one.
  absl::StatusOr<TensorView> Find(absl::string_view name) const override;
  absl::Status CheckUnchanged() const override {
    return file_ == nullptr ? absl::OkStatus() : file_->CheckUnchanged();
  }

  // False for a plain tensor and where there is none.
  bool IsPacked(absl::string_view name) const;
  // NotFound, or InvalidArgument for a plain tensor.
  absl::StatusOr<PackedTensor> FindPacked(absl::string_view name) const;

  // Sorted names of the embedded files, and the bytes of one; both live as long
  // as this. NotFound.
  const std::vector<std::string>& file_names() const { return files_.names(); }
  absl::StatusOr<absl::string_view> FindFile(absl::string_view name) const;

  // Reads a tensor and compares it with its checksum; also refuses scales and
  // float weights that are not finite. DataLoss, naming file and tensor.
  absl::Status VerifyTensor(absl::string_view name) const;

  // Reads the whole file: every tensor as VerifyTensor does, every embedded
  // file, and the zeros between them. One DataLoss for each part and each
  // padding that is damaged; empty when the file is sound.
  std::vector<absl::Status> FindDamage(ParallelRunner run) const;
  // The first of them.
  absl::Status VerifyAll(ParallelRunner run) const;
  absl::Status VerifyAll() const;  // On this thread.

 private:
  // A range of the file, checked.
  struct Part {
    const std::string* name = nullptr;  // In manifest_.
    bool is_tensor = false;
    const std::byte* data = nullptr;
    size_t bytes = 0;
    size_t gap = 0;  // Padding in front of it.
    uint32_t checksum = 0;
  };
  struct Tensor {
    PackedKind kind;
    size_t part = 0;  // In parts_.
  };

  explicit PackedFile(std::string path) : path_(std::move(path)) {}

  absl::Status Read(absl::Span<const std::byte> bytes);
  absl::Status ReadFiles(absl::Span<const std::byte> bytes);
  absl::Status ReadTensors(absl::Span<const std::byte> bytes);
  absl::Status AddPart(Part part, const PackedManifest::Range& range,
                       absl::Span<const std::byte> bytes);

  static std::string PartText(const Part& part);
  absl::StatusOr<const Tensor*> FindTensor(absl::string_view name) const;
  std::vector<absl::Status> DamageOf(size_t first, size_t last,
                                     ParallelRunner run) const;

  const std::string path_;
  std::shared_ptr<const MappedFile> file_;  // Null after Parse.
  PackedManifest manifest_;
  uint64_t end_ = 0;         // Of the part read last.
  std::vector<Part> parts_;  // In the order of the file.
  NameIndex<Tensor> tensors_;
  NameIndex<size_t> files_;  // In parts_.
};

// Writes a .nib file front to back with a buffer of 4 MB. Nothing stands under
// the name before Commit succeeds, whatever happens: see
// tensor/io/atomic_file.h.
class PackedFileWriter {
 public:
  // `manifest` has the configuration and the record; files and tensors are
  // filled in here. InvalidArgument, naming it, for a name that is empty, too
  // long, not UTF-8 or taken, or a tensor or file without bytes;
  // ResourceExhausted when the disk has no room for the whole file.
  static absl::StatusOr<PackedFileWriter> Create(
      const std::string& path, PackedManifest manifest,
      const std::vector<PackedTensorPlan>& tensors,
      absl::Span<const EmbeddedFile> files);

  PackedFileWriter(PackedFileWriter&&) = default;
  PackedFileWriter& operator=(PackedFileWriter&&) = delete;

  // The next bytes of the tensors, in the order of the plan, in pieces of any
  // size, which may also end in the middle of a tensor or span several.
  // InvalidArgument for more bytes than were planned. After an error nothing
  // but destruction is of use.
  absl::Status Append(absl::Span<const std::byte> bytes);

  // Makes the file appear. InvalidArgument, naming the tensor, when bytes are
  // missing; also the errors of writes that were put off. REQUIRES: not called
  // before.
  absl::Status Commit();

 private:
  PackedFileWriter(AtomicFile file, PackedManifest manifest)
      : file_(std::move(file)), manifest_(std::move(manifest)) {}

  absl::Status Start(absl::Span<const EmbeddedFile> files);
  // Zeros up to the start of a part, then bytes of it.
  absl::Status AppendTo(const PackedManifest::Range& range,
                        absl::Span<const std::byte> bytes);
  // Bytes at at_.
  absl::Status Put(absl::Span<const std::byte> bytes);

  AtomicFile file_;
  PackedManifest manifest_;         // Complete but for the tensors' checksums.
  uint64_t file_bytes_ = 0;         // Of the whole file.
  uint64_t at_ = 0;                 // Bytes put so far,
  std::vector<std::byte> pending_;  // and the last of them, not written yet.
  int tensor_ = 0;                  // The one being written,
  uint64_t done_ = 0;               // its bytes so far,
  uint32_t checksum_ = 0;           // and their CRC.
};

}  // namespace nibble

#endif  // NIBBLE_TENSOR_IO_PACKED_FILE_H_
