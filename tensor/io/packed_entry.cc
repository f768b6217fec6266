#include "tensor/io/packed_entry.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "tensor/io/error_text.h"
#include "tensor/io/utf8.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Ten times what checkpoints have.
constexpr size_t kMaxNameBytes = 1000;

absl::StatusOr<PackedKind> ReadPacked(const PackedManifest::Packed& packed) {
  if (!packed.has_format() || !packed.has_outputs() || !packed.has_inputs() ||
      !packed.has_group_size() || !packed.has_wide_scales() ||
      (!packed.has_symmetric() && !packed.minimums())) {
    return absl::InvalidArgumentError("has a layout with fields missing");
  }
  if (packed.has_symmetric() && packed.minimums()) {
    return absl::InvalidArgumentError(
        "has a layout with both minimums and \"symmetric\"");
  }
  const absl::StatusOr<WeightFormat> format =
      ParseWeightFormat(packed.format());
  if (!format.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "has format ", QuoteForMessage(packed.format()),
        ", which is not known: there are f32, bf16, int8 and int4"));
  }
  PackedLayout wanted;
  wanted.format = *format;
  wanted.outputs = packed.outputs();
  wanted.inputs = packed.inputs();
  wanted.group_size = packed.group_size();
  wanted.symmetric = packed.symmetric();
  wanted.wide_scales = packed.wide_scales();
  wanted.minimums = packed.minimums();
  const absl::StatusOr<PackedLayout> layout = PackedLayout::Checked(wanted);
  if (!layout.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("has a bad layout: ", layout.status().message()));
  }
  if (layout->group_size != packed.group_size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("has groups of ", packed.group_size(), " on rows of ",
                     packed.inputs(), " inputs"));
  }
  return PackedKind(*layout);
}

absl::StatusOr<PackedKind> ReadPlain(const PackedManifest::Plain& plain) {
  const absl::StatusOr<DType> dtype = ParseDType(plain.dtype());
  if (!dtype.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "has dtype ", QuoteForMessage(plain.dtype()), ", which is not known"));
  }
  const absl::StatusOr<Shape> shape = Shape::Create(
      std::vector<int64_t>(plain.dims().begin(), plain.dims().end()));
  if (!shape.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("has a bad shape: ", shape.status().message()));
  }
  return PackedKind(PlainTensor{*dtype, *shape});
}

}  // namespace

absl::StatusOr<int64_t> PackedKindBytes(const PackedKind& kind) {
  if (const auto* layout = std::get_if<PackedLayout>(&kind)) {
    return layout->bytes();
  }
  const auto& plain = std::get<PlainTensor>(kind);
  if (plain.shape.rank() == 0 || plain.shape.elements() == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("has shape ", plain.shape.ToString(),
                     "; 1 to 4 dimensions above 0 are needed"));
  }
  absl::StatusOr<int64_t> bytes = TensorBytes(plain.dtype, plain.shape);
  if (!bytes.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("has a bad shape: ", bytes.status().message()));
  }
  return bytes;
}

absl::StatusOr<PackedKind> ReadPackedEntry(
    const PackedManifest::TensorEntry& entry) {
  if (entry.has_packed()) return ReadPacked(entry.packed());
  if (entry.has_plain()) return ReadPlain(entry.plain());
  return absl::InvalidArgumentError("has neither a layout nor a shape");
}

void WritePackedEntry(const PackedKind& kind,
                      PackedManifest::TensorEntry* entry) {
  if (const auto* layout = std::get_if<PackedLayout>(&kind)) {
    PackedManifest::Packed* packed = entry->mutable_packed();
    packed->set_format(std::string(WeightFormatName(layout->format)));
    packed->set_outputs(layout->outputs);
    packed->set_inputs(layout->inputs);
    packed->set_group_size(layout->group_size);
    packed->set_wide_scales(layout->wide_scales);
    if (layout->has_minimums()) {
      packed->set_minimums(true);
    } else {
      packed->set_symmetric(layout->symmetric);
    }
    return;
  }
  const auto& plain = std::get<PlainTensor>(kind);
  entry->mutable_plain()->set_dtype(std::string(DTypeName(plain.dtype)));
  for (const int64_t dim : plain.shape.dims()) {
    entry->mutable_plain()->add_dims(dim);
  }
}

absl::Status CheckPackedName(absl::string_view name) {
  if (name.empty() || name.size() > kMaxNameBytes || !IsUtf8(name)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the name ", QuoteForMessage(name), " is not 1 to ",
                     kMaxNameBytes, " bytes of UTF-8"));
  }
  return absl::OkStatus();
}

absl::Status CheckPackedFileName(absl::string_view name) {
  if (absl::Status status = CheckPackedName(name); !status.ok()) return status;
  if (name == "." || name == ".." ||
      name.find_first_of(absl::string_view("/\\\0", 3)) !=
          absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the file name ", QuoteForMessage(name), " leads to a folder"));
  }
  return absl::OkStatus();
}

}  // namespace nibble
