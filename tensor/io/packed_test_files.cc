#include "tensor/io/packed_test_files.h"

#include <cstring>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "tensor/io/checksum.h"

namespace nibble::testing {
namespace {

uint32_t Checksum(absl::string_view text) {
  return Crc32c(absl::MakeConstSpan(
      reinterpret_cast<const std::byte*>(text.data()), text.size()));
}

void SetRange(uint64_t offset, uint64_t bytes, PackedManifest::Range* range) {
  range->set_offset(offset);
  range->set_bytes(bytes);
  range->set_checksum(Checksum(std::string(bytes, '\0')));
}

void AppendPart(std::string* data, absl::string_view part,
                PackedManifest::Range* range) {
  data->append(AlignPackedOffset(data->size()) - data->size(), '\0');
  // The head of a small file takes one page.
  range->set_offset(kPackedAlignment + data->size());
  range->set_bytes(part.size());
  range->set_checksum(Checksum(part));
  absl::StrAppend(data, part);
}

}  // namespace

PackedManifest::TensorEntry* AddPlain(PackedManifest* manifest,
                                      absl::string_view name,
                                      const std::vector<int64_t>& dims,
                                      uint64_t offset) {
  PackedManifest::TensorEntry* entry = manifest->add_tensors();
  entry->set_name(std::string(name));
  entry->mutable_plain()->set_dtype("f32");
  uint64_t bytes = sizeof(float);
  for (const int64_t dim : dims) {
    entry->mutable_plain()->add_dims(dim);
    bytes *= static_cast<uint64_t>(dim);
  }
  entry->mutable_range()->set_bytes(bytes);
  if (bytes > kMaxPackedManifestBytes) bytes = 0;  // The test does not need it.
  SetRange(offset, bytes, entry->mutable_range());
  return entry;
}

PackedManifest::TensorEntry* AddPacked(PackedManifest* manifest,
                                       absl::string_view name,
                                       const PackedLayout& layout,
                                       uint64_t offset) {
  PackedManifest::TensorEntry* entry = manifest->add_tensors();
  entry->set_name(std::string(name));
  WritePackedEntry(layout, entry);
  SetRange(offset, static_cast<uint64_t>(layout.bytes()),
           entry->mutable_range());
  return entry;
}

PackedManifest::FileEntry* AddFile(PackedManifest* manifest,
                                   absl::string_view name, uint64_t bytes,
                                   uint64_t offset) {
  PackedManifest::FileEntry* entry = manifest->add_files();
  entry->set_name(std::string(name));
  SetRange(offset, bytes, entry->mutable_range());
  return entry;
}

std::string NibBytes(const PackedManifest& manifest, absl::string_view data) {
  return NibBytes(manifest.SerializeAsString(), data);
}

std::string NibBytes(absl::string_view manifest, absl::string_view data) {
  std::string bytes(sizeof(PackedHeader), '\0');
  absl::StrAppend(&bytes, manifest);
  if (!data.empty()) bytes.resize(AlignPackedOffset(bytes.size()), '\0');
  absl::StrAppend(&bytes, data);
  PackedHeader header;
  header.manifest_bytes = manifest.size();
  header.manifest_checksum = Checksum(manifest);
  header.file_bytes = bytes.size();
  std::memcpy(bytes.data(), &header, sizeof(header));
  return WithHeader(std::move(bytes), [](PackedHeader&) {});
}

std::string WithHeader(std::string bytes,
                       absl::FunctionRef<void(PackedHeader&)> change) {
  PackedHeader header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  change(header);
  header.header_checksum = PackedHeaderChecksum(header);
  std::memcpy(bytes.data(), &header, sizeof(header));
  return bytes;
}

std::string SmallNib() {
  PackedManifest manifest;
  manifest.mutable_config()->set_family("llama");
  manifest.mutable_record()->set_method("rtn");
  std::string data;
  AppendPart(&data, "{}", AddFile(&manifest, "a.json", 2, 0)->mutable_range());
  AppendPart(&data, FiniteBytes(12, 1),
             AddPlain(&manifest, "norm", {3}, 0)->mutable_range());
  const PackedLayout int4 =
      *PackedLayout::Create(WeightFormat::kInt4, 5, 32, 32, false);
  AppendPart(&data, FiniteBytes(static_cast<size_t>(int4.bytes()), 2),
             AddPacked(&manifest, "qkv", int4, 0)->mutable_range());
  const PackedLayout bf16 = *PackedLayout::Create(WeightFormat::kBF16, 16, 4);
  AppendPart(&data, FiniteBytes(static_cast<size_t>(bf16.bytes()), 3),
             AddPacked(&manifest, "head", bf16, 0)->mutable_range());
  return NibBytes(manifest, data);
}

std::string OrderedNib() {
  PackedManifest manifest;
  manifest.mutable_config()->set_family("gpt_neox");
  manifest.mutable_record()->set_method("gptq (kept)");
  std::string data;
  const auto add = [&](absl::string_view name, const PackedLayout& layout) {
    AppendPart(&data, FiniteBytes(static_cast<size_t>(layout.bytes()), 4),
               AddPacked(&manifest, name, layout, 0)->mutable_range());
  };
  PackedLayout int4 = *PackedLayout::Create(WeightFormat::kInt4, 5, 64, 32);
  int4.symmetric = false;
  int4.minimums = true;
  add("qkv", int4);
  int4.wide_scales = true;
  add("up", int4);
  add("down", *PackedLayout::Create(WeightFormat::kInt8, 5, 32, 32));
  std::vector<int32_t> order(32);
  for (int32_t i = 0; i < 32; ++i) order[static_cast<size_t>(i)] = 31 - i;
  PackedManifest::TensorEntry* entry =
      AddPlain(&manifest, "down.input_order", {32}, 0);
  entry->mutable_plain()->set_dtype("i32");
  AppendPart(&data,
             absl::string_view(reinterpret_cast<const char*>(order.data()),
                               order.size() * sizeof(order[0])),
             entry->mutable_range());
  return NibBytes(manifest, data);
}

std::string FiniteBytes(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::string bytes(count, '\0');
  // Without the two highest bits no exponent is full.
  for (char& byte : bytes) byte = static_cast<char>(random() & 0x3F);
  return bytes;
}

}  // namespace nibble::testing
