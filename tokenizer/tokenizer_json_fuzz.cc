// Any bytes as a tokenizer.json: refused, or a tokenizer that encodes and
// decodes anything.

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/log/check.h"
#include "absl/strings/string_view.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_json.h"
#include "tokenizer/utf8_stream.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  auto spec = nibble::ParseTokenizerJson(bytes, "fuzz.json");
  if (!spec.ok()) return 0;
  const auto tokenizer = nibble::Tokenizer::Create(*std::move(spec));
  if (!tokenizer.ok()) return 0;
  // The file's own bytes are text that its tokens are likely to match.
  for (const absl::string_view text :
       {bytes.substr(0, 4096), absl::string_view("a b\xFF\xE2\x96 12\n'll")}) {
    const auto ids = (*tokenizer)->Encode(text);
    nibble::TextStream stream(**tokenizer);
    for (const int32_t id : ids) {
      CHECK(id >= 0 && id < (*tokenizer)->vocabulary_size());
      stream.Push(id);
    }
    stream.Flush();
    (*tokenizer)->Decode(ids, /*skip_special_tokens=*/false);
  }
  return 0;
}
