#include "apps/common/content_hash.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "absl/strings/string_view.h"

namespace nibble {
namespace {

// The constants and steps are those of the xxHash specification, version 0.1.1:
// github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87u;
constexpr uint64_t kPrime2 = 0xC2B2AE3D27D4EB4Fu;
constexpr uint64_t kPrime3 = 0x165667B19E3779F9u;
constexpr uint64_t kPrime4 = 0x85EBCA77C2B2AE63u;
constexpr uint64_t kPrime5 = 0x27D4EB2F165667C5u;

uint64_t RotateLeft(uint64_t value, int bits) {
  return value << bits | value >> (64 - bits);
}

// Little-endian, as the specification has it and as nibble's machines are.
template <class T>
uint64_t Read(const char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

uint64_t Round(uint64_t lane, uint64_t word) {
  return RotateLeft(lane + word * kPrime2, 31) * kPrime1;
}

uint64_t MergeLane(uint64_t hash, uint64_t lane) {
  return (hash ^ Round(0, lane)) * kPrime1 + kPrime4;
}

uint64_t AddTail(uint64_t hash, absl::string_view tail) {
  while (tail.size() >= 8) {
    hash ^= Round(0, Read<uint64_t>(tail.data()));
    hash = RotateLeft(hash, 27) * kPrime1 + kPrime4;
    tail.remove_prefix(8);
  }
  if (tail.size() >= 4) {
    hash ^= Read<uint32_t>(tail.data()) * kPrime1;
    hash = RotateLeft(hash, 23) * kPrime2 + kPrime3;
    tail.remove_prefix(4);
  }
  for (const char byte : tail) {
    hash ^= static_cast<unsigned char>(byte) * kPrime5;
    hash = RotateLeft(hash, 11) * kPrime1;
  }
  return hash;
}

}  // namespace

ContentHash::ContentHash()
    : lanes_{kPrime1 + kPrime2, kPrime2, 0, uint64_t{0} - kPrime1} {}

void ContentHash::AddStripe(const char* stripe) {
  for (size_t i = 0; i < lanes_.size(); ++i) {
    lanes_[i] = Round(lanes_[i], Read<uint64_t>(stripe + 8 * i));
  }
}

void ContentHash::Add(absl::string_view bytes) {
  total_ += bytes.size();
  if (pending_bytes_ > 0) {
    const size_t taken = std::min(bytes.size(), kStripe - pending_bytes_);
    std::memcpy(pending_.data() + pending_bytes_, bytes.data(), taken);
    pending_bytes_ += taken;
    bytes.remove_prefix(taken);
    if (pending_bytes_ < kStripe) return;
    AddStripe(pending_.data());
    pending_bytes_ = 0;
  }
  for (; bytes.size() >= kStripe; bytes.remove_prefix(kStripe)) {
    AddStripe(bytes.data());
  }
  if (bytes.empty()) return;
  std::memcpy(pending_.data(), bytes.data(), bytes.size());
  pending_bytes_ = bytes.size();
}

uint64_t ContentHash::Result() const {
  uint64_t hash = kPrime5;
  if (total_ >= kStripe) {
    hash = RotateLeft(lanes_[0], 1) + RotateLeft(lanes_[1], 7) +
           RotateLeft(lanes_[2], 12) + RotateLeft(lanes_[3], 18);
    for (const uint64_t lane : lanes_) hash = MergeLane(hash, lane);
  }
  hash = AddTail(hash + total_,
                 absl::string_view(pending_.data(), pending_bytes_));
  hash = (hash ^ hash >> 33) * kPrime2;
  hash = (hash ^ hash >> 29) * kPrime3;
  return hash ^ hash >> 32;
}

}  // namespace nibble
