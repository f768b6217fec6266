#include "tokenizer/piece_cache.h"

#include <cstring>

namespace nibble {
namespace {

// Below this a text repeats too few words to pay for clearing the slots.
constexpr size_t kMinText = 1024;
// A slot for each 32 bytes of text, or 5 words; 64Ki slots (2 MB) hold the
// vocabulary of a long novel twice over, and stay within an L2 cache.
constexpr size_t kTextPerSlot = 32;
constexpr size_t kMaxSlots = size_t{1} << 16;
// Longer pieces repeat too seldom to be worth hashing.
constexpr size_t kMaxPiece = 64;
// Pieces that collide on purpose must not make a search long.
constexpr int kMaxProbes = 8;

uint64_t Load(const char* p, size_t bytes) {
  uint64_t value = 0;
  std::memcpy(&value, p, bytes);
  return value;
}

uint64_t Mix(uint64_t a, uint64_t b) {
  const unsigned __int128 product =
      static_cast<unsigned __int128>(a ^ 0x9E3779B97F4A7C15) *
      (b ^ 0xD1B54A32D192ED03);
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// REQUIRES: piece is not empty.
uint64_t Hash(absl::string_view piece) {
  const char* const p = piece.data();
  const size_t n = piece.size();
  if (n >= 8) {
    uint64_t hash = n;
    for (size_t i = 0; i + 8 < n; i += 8) hash = Mix(hash, Load(p + i, 8));
    return Mix(hash, Load(p + n - 8, 8));
  }
  if (n >= 4) return Mix(n, Load(p, 4) << 32 | Load(p + n - 4, 4));
  const uint64_t ends = Load(p, 1) << 16 | Load(p + n - 1, 1);
  return Mix(n, ends << 8 | Load(p + n / 2, 1));
}

}  // namespace

PieceCache::PieceCache(size_t text_size) {
  if (text_size < kMinText) return;
  size_t slots = 32;
  while (slots < kMaxSlots && slots < text_size / kTextPerSlot) slots *= 2;
  slots_.resize(slots);
}

bool PieceCache::Lookup(absl::string_view piece, std::vector<int32_t>* out) {
  vacant_ = nullptr;
  if (slots_.empty() || piece.size() > kMaxPiece) return false;
  hash_ = Hash(piece);
  const size_t mask = slots_.size() - 1;
  for (int probe = 0; probe < kMaxProbes; ++probe) {
    Slot& slot = slots_[(hash_ + probe) & mask];
    if (slot.count == 0) {
      vacant_ = &slot;
      return false;
    }
    if (slot.hash != hash_ || slot.key_size != piece.size() ||
        std::memcmp(keys_.data() + slot.key, piece.data(), piece.size()) != 0) {
      continue;
    }
    out->insert(out->end(), ids_.begin() + slot.ids,
                ids_.begin() + slot.ids + slot.count);
    return true;
  }
  return false;
}

void PieceCache::Insert(absl::string_view piece, const int32_t* ids,
                        size_t count) {
  if (vacant_ == nullptr || count == 0) return;
  *vacant_ = {hash_, static_cast<uint32_t>(keys_.size()),
              static_cast<uint32_t>(ids_.size()),
              static_cast<uint32_t>(piece.size()),
              static_cast<uint32_t>(count)};
  keys_.append(piece.data(), piece.size());
  ids_.insert(ids_.end(), ids, ids + count);
  vacant_ = nullptr;
}

}  // namespace nibble
