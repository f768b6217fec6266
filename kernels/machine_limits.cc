#include "kernels/machine_limits.h"

#include <algorithm>
#include <atomic>
#include <chrono>  // NOLINT: wall time is what is measured

#include "kernels/cpu.h"
#include "kernels/matmul/amx_tiles.h"
#include "kernels/matmul/tile_shapes.h"
#include "tensor/buffer.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/machine_limits.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// On every loop over the sums: g++ keeps them in memory if one is left.
#ifndef NIBBLE_UNROLL
#define NIBBLE_UNROLL _Pragma("GCC unroll 24")
#endif

// Independent accumulators: two multiplies a cycle of 4 to 6 cycles' latency
// need 8 to 12; with 32 registers there is room for more.
#if HWY_CAP_GE512
inline constexpr int kSums = 24;
#else
inline constexpr int kSums = 12;
#endif

// The sum of `words` words, so that no load can be left out.
uint32_t ReadWords(const uint32_t* data, size_t words) {
  const hn::ScalableTag<uint32_t> d;
  constexpr size_t kStreams = 8;
  const size_t lanes = hn::Lanes(d);
  hn::Vec<decltype(d)> sums[kStreams];
  for (auto& sum : sums) sum = hn::Zero(d);
  size_t i = 0;
  for (; i + kStreams * lanes <= words; i += kStreams * lanes) {
    _Pragma("GCC unroll 8") for (size_t s = 0; s < kStreams; ++s) {
      sums[s] = hn::Add(sums[s], hn::LoadU(d, data + i + s * lanes));
    }
  }
  uint32_t total = 0;
  for (; i < words; ++i) total += data[i];
  for (const auto& sum : sums) total += hn::ReduceSum(d, sum);
  return total;
}

// `rounds` rounds of kSums multiplies in registers. The sums start apart, or
// the compiler would keep only one.
float MultiplyF32(int64_t rounds) {
  const hn::ScalableTag<float> d;
  const auto factor = hn::Set(d, 0.5f);
  hn::Vec<decltype(d)> sums[kSums];
  NIBBLE_UNROLL for (int i = 0; i < kSums; ++i) sums[i] = hn::Set(d, 1.0f * i);
  for (int64_t round = 0; round < rounds; ++round) {
    NIBBLE_UNROLL for (int i = 0; i < kSums; ++i) {
      sums[i] = hn::MulAdd(factor, factor, sums[i]);
    }
  }
  NIBBLE_UNROLL for (int i = 1; i < kSums; ++i) {
    sums[0] = hn::Add(sums[0], sums[i]);
  }
  return hn::ReduceSum(d, sums[0]);
}

#if HWY_NATIVE_DOT_BF16
inline constexpr int64_t kDotMacs = 2 * hn::MaxLanes(hn::ScalableTag<float>());

float MultiplyBF16(int64_t rounds) {
  const hn::ScalableTag<float> d;
  const hn::Repartition<hwy::bfloat16_t, decltype(d)> dbf;
  const hn::RebindToUnsigned<decltype(d)> du;
  const auto factor = hn::BitCast(dbf, hn::Set(du, 0x3F003F00u));  // 0.5, 0.5
  hn::Vec<decltype(d)> sums[kSums];
  NIBBLE_UNROLL for (int i = 0; i < kSums; ++i) sums[i] = hn::Set(d, 1.0f * i);
  auto unused = hn::Zero(d);
  for (int64_t round = 0; round < rounds; ++round) {
    NIBBLE_UNROLL for (int i = 0; i < kSums; ++i) {
      sums[i] =
          hn::ReorderWidenMulAccumulate(d, factor, factor, sums[i], unused);
    }
  }
  NIBBLE_UNROLL for (int i = 1; i < kSums; ++i) {
    sums[0] = hn::Add(sums[0], sums[i]);
  }
  return hn::ReduceSum(d, sums[0]);
}
#else
inline constexpr int64_t kDotMacs = 0;

float MultiplyBF16(int64_t /*rounds*/) { return 0.0f; }
#endif

// sum += products of `code` and `value`, with VPDPBUSD or VPMADDUBSW. As
// assembly, since the compiler would merge equal products, and given the
// intrinsics keeps some of the sums in memory, which costs half of the speed.
template <class Sum, class Code, class Value>
HWY_INLINE void AddProducts(Code code, Value value, Sum& sum) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
  auto raw = sum.raw;  // an operand in memory would stay there
#if HWY_TARGET <= HWY_AVX3_DL
  asm("vpdpbusd %2, %1, %0" : "+v"(raw) : "v"(code.raw), "v"(value.raw));
#else
  auto products = raw;
  asm("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0"
      : "+v"(raw), "=&v"(products)
      : "v"(code.raw), "v"(value.raw));
#endif
  sum.raw = raw;
#else
#if HWY_ARCH_X86
  asm volatile("" : "+v"(value.raw));
#else
  hwy::PreventElision(value);
#endif
  const hn::DFromV<Sum> d;
  sum = hn::Add(sum, hn::SatWidenMulPairwiseAdd(d, code, value));
#endif
}

// Sums at most 127 * rounds in each lane: wraps, which costs the same.
int MultiplyInt8(int64_t rounds) {
  const hn::ScalableTag<uint8_t> du8;
  const hn::RebindToSigned<decltype(du8)> di8;
#if HWY_TARGET <= HWY_AVX3_DL
  const hn::Repartition<int32_t, decltype(du8)> d;
#else
  const hn::Repartition<int16_t, decltype(du8)> d;
#endif
  const auto code = hn::Set(du8, 3);
  const auto value = hn::Set(di8, 2);
  hn::Vec<decltype(d)> sums[kSums];
  NIBBLE_UNROLL for (int i = 0; i < kSums; ++i) sums[i] =
      hn::Set(d, static_cast<hn::TFromD<decltype(d)>>(i));
  for (int64_t round = 0; round < rounds; ++round) {
    NIBBLE_UNROLL for (int i = 0; i < kSums; ++i) {
      AddProducts(code, value, sums[i]);
    }
  }
  // Unrolled as well: an index that varies would keep `sums` in memory.
  auto total = sums[0];
  NIBBLE_UNROLL for (int i = 1; i < kSums; ++i) {
    total = hn::Add(total, sums[i]);
  }
  return static_cast<int>(hn::GetLane(total));
}

#if HWY_TARGET == HWY_AVX2
// VPDPBUSD of AVX-VNNI, for which Highway has no target.
int MultiplyInt8Vex(int64_t rounds) {
  const hn::ScalableTag<int32_t> di;
  const auto code = hn::Set(di, 0x03030303);
  hn::Vec<decltype(di)> sums[kSums];
  NIBBLE_UNROLL for (int i = 0; i < kSums; ++i) sums[i] = hn::Set(di, i);
  for (int64_t round = 0; round < rounds; ++round) {
    NIBBLE_UNROLL for (int i = 0; i < kSums; ++i) {
      auto sum = sums[i].raw;  // as in AddProducts
      asm("%{vex%} vpdpbusd %1, %1, %0" : "+x"(sum) : "x"(code.raw));
      sums[i].raw = sum;
    }
  }
  NIBBLE_UNROLL for (int i = 1; i < kSums; ++i) {
    sums[0] = hn::Add(sums[0], sums[i]);
  }
  return hn::ReduceSum(di, sums[0]);
}
#else
int MultiplyInt8Vex(int64_t rounds) { return MultiplyInt8(rounds); }
#endif

// Multiplies in one round; 0 without the instruction.
int64_t Int8MacsPerRound() {
  return kSums * hn::Lanes(hn::ScalableTag<int8_t>());
}
int64_t F32MacsPerRound() {
  return kSums * hn::Lanes(hn::ScalableTag<float>());
}
int64_t BF16MacsPerRound() { return kSums * kDotMacs; }

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
namespace {

HWY_EXPORT(ReadWords);
HWY_EXPORT(MultiplyF32);
HWY_EXPORT(MultiplyBF16);
HWY_EXPORT(MultiplyInt8);
HWY_EXPORT(MultiplyInt8Vex);
HWY_EXPORT(F32MacsPerRound);
HWY_EXPORT(BF16MacsPerRound);
HWY_EXPORT(Int8MacsPerRound);

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Multiplies of full AMX tiles in a round, into tiles of sums of their own, as
// in a product.
constexpr int64_t kTileMultiplies = 4;

bool OnTiles(MultiplyKind kind) {
  return kind != MultiplyKind::kF32 && ActiveIsa() == Isa::kAmx;
}

int64_t TileMacsPerRound(MultiplyKind kind) {
  const int64_t k = kind == MultiplyKind::kBF16Dot ? 32 : 64;
  return kTileMultiplies * kTileMaxRows * kTileMaxRows * k;
}

int MultiplyTiles(MultiplyKind kind, int64_t rounds) {
  TileShapes shapes;
  for (int tile = 0; tile < kTiles; ++tile) {
    shapes.Set(tile, kTileMaxRows, kTileRowBytes);
  }
  AmxTiles tiles(shapes);
  for (int64_t round = 0; round < rounds; ++round) {
    if (kind == MultiplyKind::kBF16Dot) {
      tiles.DotBF16<0, 4, 6>();
      tiles.DotBF16<1, 4, 7>();
      tiles.DotBF16<2, 5, 6>();
      tiles.DotBF16<3, 5, 7>();
    } else {
      tiles.DotI8<0, 4, 6>();
      tiles.DotI8<1, 4, 7>();
      tiles.DotI8<2, 5, 6>();
      tiles.DotI8<3, 5, 7>();
    }
  }
  int sums[kTileBytes / sizeof(int)];
  tiles.Store<0>(sums, kTileRowBytes);
  return sums[0];
}

int64_t MacsPerRound(MultiplyKind kind) {
  if (OnTiles(kind)) return TileMacsPerRound(kind);
  switch (kind) {
    case MultiplyKind::kF32:
      return HWY_DYNAMIC_DISPATCH(F32MacsPerRound)();
    case MultiplyKind::kBF16Dot:
      return HWY_DYNAMIC_DISPATCH(BF16MacsPerRound)();
    case MultiplyKind::kInt8Dot:
      return HWY_DYNAMIC_DISPATCH(Int8MacsPerRound)();
  }
  return 0;
}

// Something of the results, so that they must be computed.
int Multiply(MultiplyKind kind, int64_t rounds) {
  if (OnTiles(kind)) return MultiplyTiles(kind, rounds);
  switch (kind) {
    case MultiplyKind::kF32:
      return HWY_DYNAMIC_DISPATCH(MultiplyF32)(rounds) > 0;
    case MultiplyKind::kBF16Dot:
      return HWY_DYNAMIC_DISPATCH(MultiplyBF16)(rounds) > 0;
    case MultiplyKind::kInt8Dot:
      return ActiveIsa() == Isa::kAvxVnni
                 ? HWY_DYNAMIC_DISPATCH(MultiplyInt8Vex)(rounds)
                 : HWY_DYNAMIC_DISPATCH(MultiplyInt8)(rounds);
  }
  return 0;
}

}  // namespace

double TimeRead(absl::Span<const std::byte> buffer, ThreadPool& pool) {
  const auto* words = reinterpret_cast<const uint32_t*>(buffer.data());
  // In lines of 64 bytes, so that no line is read twice.
  constexpr int64_t kLineWords = 16;
  std::atomic<uint32_t> sink{0};
  const Clock::time_point start = Clock::now();
  pool.ParallelFor(static_cast<int64_t>(buffer.size() / 64),
                   [&](int64_t begin, int64_t end, int /*thread*/) {
                     sink += HWY_DYNAMIC_DISPATCH(ReadWords)(
                         words + begin * kLineWords,
                         static_cast<size_t>((end - begin) * kLineWords));
                   });
  return SecondsSince(start);
}

const char* MultiplyName(MultiplyKind kind) {
  if (kind == MultiplyKind::kF32) return "f32 fused multiply-add";
  if (kind == MultiplyKind::kBF16Dot) {
    return OnTiles(kind) ? "tdpbf16ps" : "vdpbf16ps";
  }
  switch (ActiveIsa()) {
    case Isa::kScalar:
    case Isa::kAvx2:
      return "vpmaddubsw (256 bits)";
    case Isa::kAvxVnni:
      return "vpdpbusd (256 bits)";
    case Isa::kAvx512:
      return "vpmaddubsw (512 bits)";
    case Isa::kAvx512Vnni:
    case Isa::kEmulatedAmx:
      return "vpdpbusd (512 bits)";
    case Isa::kAmx:
      return "tdpbssd";
  }
  return "unknown";
}

bool HasMultiply(MultiplyKind kind) {
  if (kind != MultiplyKind::kBF16Dot || OnTiles(kind)) return true;
  // A build that pins its ISA dispatches to it whatever the active one.
  return MacsPerRound(kind) != 0 &&
         HighwayTargetAllowed(HWY_AVX3_ZEN4 | HWY_AVX3_SPR);
}

double TimeMultiplies(MultiplyKind kind, int64_t macs, ThreadPool& pool,
                      int64_t& done) {
  const int64_t per_round = MacsPerRound(kind);
  const int64_t rounds =
      std::max<int64_t>(1, macs / per_round / pool.threads());
  std::atomic<int> sink{0};
  const Clock::time_point start = Clock::now();
  pool.ParallelFor(pool.threads(), [&](int64_t, int64_t, int) {
    sink += Multiply(kind, rounds);
  });
  const double seconds = SecondsSince(start);
  done = rounds * per_round * pool.threads();
  return seconds;
}

MachineLimits MeasureMachineLimits(ThreadPool& pool) {
  constexpr size_t kReadBytes = size_t{256} << 20;
  constexpr int64_t kMacs = 1000 * 1000 * 1000;
  constexpr int kRuns = 8;
  const AlignedBuffer buffer(kReadBytes, AlignedBuffer::Fill::kZero);
  const absl::Span<const std::byte> bytes(buffer.data(), buffer.size());
  MachineLimits limits;
  const auto raise = [](double rate, double& limit) {
    limit = std::max(limit, rate);
  };
  for (int run = 0; run < kRuns; ++run) {
    int64_t done = 0;
    raise(kReadBytes / TimeRead(bytes, pool), limits.read_bytes_per_second);
    double seconds = TimeMultiplies(MultiplyKind::kF32, kMacs, pool, done);
    raise(done / seconds, limits.f32_macs_per_second);
    seconds = TimeMultiplies(MultiplyKind::kInt8Dot, kMacs, pool, done);
    raise(done / seconds, limits.int8_macs_per_second);
    if (!HasMultiply(MultiplyKind::kBF16Dot)) continue;
    seconds = TimeMultiplies(MultiplyKind::kBF16Dot, kMacs, pool, done);
    raise(done / seconds, limits.bf16_macs_per_second);
  }
  return limits;
}

}  // namespace nibble
#endif  // HWY_ONCE
