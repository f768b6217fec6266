// Fuzz target: any bytes as a packed file, and as the manifest of one. What
// opens is read in full, so that a range outside the input is seen. Checksums
// are repaired: otherwise nearly every input would end at them.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "absl/log/check.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tensor/io/checksum.h"
#include "tensor/io/packed_file.h"
#include "tensor/io/packed_header.h"
#include "tensor/io/packed_test_files.h"
#include "tensor/io/test_files.h"

namespace {

using nibble::PackedHeader;

void Touch(absl::Span<const std::byte> bytes) {
  volatile unsigned sum = 0;
  for (const std::byte byte : bytes) sum = sum + static_cast<unsigned>(byte);
}

absl::Span<const std::byte> Bytes(absl::string_view text) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()),
                             text.size());
}

// Makes the checksums of header and manifest, and the file's length, true.
std::string Repaired(std::string bytes) {
  PackedHeader header;
  if (bytes.size() < sizeof(header)) return bytes;
  std::memcpy(&header, bytes.data(), sizeof(header));
  header.file_bytes = bytes.size();
  if (header.manifest_bytes <= bytes.size() - sizeof(header)) {
    header.manifest_checksum = nibble::Crc32c(
        Bytes(bytes).subspan(sizeof(header), header.manifest_bytes));
  }
  header.header_checksum = nibble::PackedHeaderChecksum(header);
  std::memcpy(bytes.data(), &header, sizeof(header));
  return bytes;
}

void Read(absl::string_view input) {
  const nibble::testing::AlignedBytes bytes(input);
  const auto file = nibble::PackedFile::Parse("fuzz", bytes.span());
  if (!file.ok()) {
    CHECK(!file.status().message().empty());
    return;
  }
  for (const std::string& name : (*file)->names()) {
    CHECK((*file)->Contains(name));
    const auto packed = (*file)->FindPacked(name);
    const auto plain = (*file)->Find(name);
    CHECK_EQ(packed.ok(), (*file)->IsPacked(name));
    CHECK_NE(packed.ok(), plain.ok());
    if (packed.ok()) {
      CHECK_EQ(reinterpret_cast<uintptr_t>(packed->data) % 64, 0u);
      Touch(absl::MakeConstSpan(packed->data,
                                static_cast<size_t>(packed->layout.bytes())));
    } else {
      Touch(absl::MakeConstSpan(plain->data, plain->bytes));
    }
  }
  for (const std::string& name : (*file)->file_names()) {
    Touch(Bytes(*(*file)->FindFile(name)));
  }
  (*file)->VerifyAll().IgnoreError();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string input(reinterpret_cast<const char*>(data), size);
  Read(input);
  Read(Repaired(input));
  static const std::string* const zeros =
      new std::string(nibble::testing::kSmallNibDataBytes, '\0');
  Read(nibble::testing::NibBytes(input, *zeros));
  return 0;
}
