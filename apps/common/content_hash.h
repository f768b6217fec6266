// A fingerprint of bytes that tells files apart: xxHash, 64 bits, seed 0.
//
//   ContentHash hash;
//   hash.Add("some "); hash.Add("bytes");
//   uint64_t fingerprint = hash.Result();
//
// For caches: it is fast (some ten GB/s) and no two files of anybody's will
// share it by chance, but who wants to can make two that do.
#ifndef NIBBLE_APPS_COMMON_CONTENT_HASH_H_
#define NIBBLE_APPS_COMMON_CONTENT_HASH_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace nibble {

class ContentHash {
 public:
  ContentHash();

  // The next bytes, in pieces of any size.
  void Add(absl::string_view bytes);

  // Of all bytes so far.
  uint64_t Result() const;

 private:
  static constexpr size_t kStripe = 32;

  void AddStripe(const char* stripe);

  std::array<uint64_t, 4> lanes_;
  std::array<char, kStripe> pending_ = {};  // bytes that fill no stripe yet
  size_t pending_bytes_ = 0;
  uint64_t total_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_APPS_COMMON_CONTENT_HASH_H_
