// A short name for what bytes hold, to tell whether they are the same again:
// FNV-1a of 64 bits, as 16 hexadecimal digits. It guards against mistakes, not
// against forgery.
//
//   Digest digest;
//   digest.Add("layers").Add(int64_t{30});
//   digest.Hex();  // "0123456789abcdef"
#ifndef NIBBLE_QUANTIZATION_CALIBRATION_DIGEST_H_
#define NIBBLE_QUANTIZATION_CALIBRATION_DIGEST_H_

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace nibble {

class Digest {
 public:
  // Text of any length: its length counts too, so that "ab", "c" differs from
  // "a", "bc".
  Digest& Add(absl::string_view text) {
    Add(static_cast<int64_t>(text.size()));
    for (const char c : text) AddByte(static_cast<uint8_t>(c));
    return *this;
  }

  Digest& Add(int64_t value) {
    for (int i = 0; i < 8; ++i) {
      AddByte(static_cast<uint8_t>(static_cast<uint64_t>(value) >> (8 * i)));
    }
    return *this;
  }

  std::string Hex() const {
    return absl::StrCat(absl::Hex(hash_, absl::kZeroPad16));
  }

 private:
  void AddByte(uint8_t byte) { hash_ = (hash_ ^ byte) * 0x100000001b3; }

  uint64_t hash_ = 0xcbf29ce484222325;
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_CALIBRATION_DIGEST_H_
