// Fuzz target: any bytes as a safetensors file and as an index of shards. All
// that opens is read in full, so that a range outside the input is seen.
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/log/check.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tensor/dtype.h"
#include "tensor/io/safetensors.h"
#include "tensor/io/safetensors_index.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"

namespace {

void Touch(const nibble::TensorView& view) {
  CHECK_EQ(reinterpret_cast<uintptr_t>(view.data) %
               nibble::DTypeAlignment(view.dtype),
           0u);
  const auto bytes = nibble::TensorBytes(view.dtype, view.shape);
  CHECK(bytes.ok() && static_cast<size_t>(*bytes) == view.bytes);
  volatile unsigned sum = 0;
  for (size_t i = 0; i < view.bytes; ++i) {
    sum = sum + static_cast<unsigned>(view.data[i]);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::Span<const std::byte> bytes(
      reinterpret_cast<const std::byte*>(data), size);
  const auto source = nibble::ParseSafetensors("fuzz", bytes);
  if (source.ok()) {
    for (const std::string& name : (*source)->names()) {
      CHECK((*source)->Contains(name));
      const auto view = (*source)->Find(name);
      if (view.ok()) Touch(*view);
    }
  } else {
    CHECK(!source.status().message().empty());
  }

  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const auto shards = nibble::ParseSafetensorsIndex("fuzz", text);
  if (shards.ok()) {
    for (const auto& [tensor, shard] : *shards) {
      CHECK(shard.find('/') == shard.npos && shard != "..");
    }
  }
  return 0;
}
