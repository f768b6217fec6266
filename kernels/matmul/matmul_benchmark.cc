// Speed of every variant of the matrix product, as shares of what the machine
// can do, measured in turn with it.
//
//   bazel run //kernels/matmul:matmul_benchmark --
//       --benchmark_filter='int4_int8.*/g:128/.*/rows:1/'
//
// One row reads every weight once and is bound by memory: share_of_bandwidth is
// what counts. Many rows are bound by multiplies: share_of_peak. Weights rotate
// through copies that together exceed any last-level cache.
//
// Each iteration times the product, then a plain read of as many bytes from
// memory, then register-only multiplies. Other processes only ever add time, so
// rates are taken at the 10th percentile of times, of both sides alike.
#include <algorithm>
#include <chrono>  // NOLINT: wall time is what is measured
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/log/check.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "benchmark/benchmark.h"
#include "kernels/cpu.h"
#include "kernels/machine_limits.h"
#include "kernels/matmul/kernel.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/run_kernel.h"
#include "kernels/matmul/table.h"
#include "kernels/thread_pool.h"
#include "tensor/bf16.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/packed_layout.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace nibble {
namespace {

using Clock = std::chrono::steady_clock;

struct Case {
  int64_t rows;
  int64_t inputs;
  int64_t outputs;
};

// TinyLlama-1.1B's MLP and attention matrices, at decode, few rows, prefill.
constexpr Case kCases[] = {
    {1, 2048, 5632},    {1, 5632, 2048},   {1, 2048, 2048},   {2, 2048, 5632},
    {4, 2048, 5632},    {8, 2048, 5632},   {16, 2048, 5632},  {32, 2048, 5632},
    {128, 2048, 2048},  {128, 2048, 5632}, {512, 2048, 5632}, {512, 5632, 2048},
    {2048, 2048, 2048},
};

// Together the copies of the weights take this much.
constexpr int64_t kWeightBytes = int64_t{192} << 20;
constexpr size_t kReadBytes = size_t{192} << 20;

// The 10th percentile.
double Typical(std::vector<double> seconds) {
  const auto at = seconds.begin() + seconds.size() / 10;
  std::nth_element(seconds.begin(), at, seconds.end());
  return *at;
}

// Reads memory in slices, each from where the last ended, so that none of it is
// in a cache when its turn comes.
class MemoryReader {
 public:
  explicit MemoryReader(size_t slice)
      : slice_(slice), memory_(kReadBytes, AlignedBuffer::Fill::kZero) {}

  double TimeSlice(ThreadPool& pool) {
    if (next_ + slice_ > memory_.size()) next_ = 0;
    const absl::Span<const std::byte> slice(memory_.data() + next_, slice_);
    next_ += slice_;
    return TimeRead(slice, pool);
  }

 private:
  const size_t slice_;
  size_t next_ = 0;
  AlignedBuffer memory_;
};

// Values that neither vanish nor grow: any will do, their cost is the same.
Array<float> Values(int64_t count) {
  Array<float> values(count);
  for (int64_t i = 0; i < count; ++i) {
    values[i] = static_cast<float>(i * 7919 % 1021 - 510) / 512.0f;
  }
  return values;
}

// Random codes with scales of 1/64 and zero points of 7 or minimums of 1/64.
PackedMatrix RandomIntegers(const PackedLayout& layout, uint32_t seed) {
  const int64_t size = layout.bytes();
  AlignedBuffer memory(static_cast<size_t>(size));
  uint32_t state = seed;
  uint8_t* const bytes = reinterpret_cast<uint8_t*>(memory.data());
  for (int64_t i = 0; i < size; ++i) {
    state = state * 1664525 + 1013904223;
    bytes[i] = static_cast<uint8_t>(state >> 24);
  }
  const F16 scale = ToF16(1.0f / 64);
  for (int64_t record = 0; record < layout.records(); ++record) {
    uint8_t* at = bytes + record * layout.record_bytes();
    for (int64_t i = 0; i < layout.groups() * layout.record_outputs(); ++i) {
      std::memcpy(at + i * sizeof(scale), &scale, sizeof(scale));
    }
    if (layout.has_minimums()) {
      std::memcpy(at + layout.minimums_offset(), at, layout.minimums_offset());
    } else {
      std::memset(at + layout.zeros_offset(), 0x77,
                  layout.codes_offset() - layout.zeros_offset());
    }
  }
  return PackedMatrix::Own(layout, std::move(memory));
}

std::vector<PackedMatrix> CopiesOf(const PackedLayout& layout) {
  std::vector<PackedMatrix> copies;
  do {
    copies.push_back(
        RandomIntegers(layout, static_cast<uint32_t>(copies.size())));
  } while (static_cast<int64_t>(copies.size()) * layout.bytes() < kWeightBytes);
  return copies;
}

std::vector<PackedMatrix> PackCopies(const Case& c, WeightFormat format,
                                     ThreadPool& pool) {
  const Array<float> values = Values(c.inputs * c.outputs);
  const TensorView view =
      MakeTensorView(values.span(), *Shape::Create({c.outputs, c.inputs}));
  std::vector<PackedMatrix> copies;
  do {
    copies.push_back(*PackMatrix(view, format, pool));
  } while (static_cast<int64_t>(copies.size() * copies[0].bytes()) <
           kWeightBytes);
  return copies;
}

void Report(benchmark::State& state, const Case& c, double bytes,
            double product_seconds, double read_rate, double peak_rate) {
  const double macs = static_cast<double>(c.rows * c.inputs * c.outputs);
  state.counters["GB/s"] = bytes / product_seconds / 1e9;
  state.counters["GMAC/s"] = macs / product_seconds / 1e9;
  state.counters["share_of_bandwidth"] = bytes / product_seconds / read_rate;
  state.counters["share_of_peak"] = macs / product_seconds / peak_rate;
  state.counters["read_GB/s"] = read_rate / 1e9;
  state.counters["peak_GMAC/s"] = peak_rate / 1e9;
}

// Groups of integer weights, and whether inputs have an order of their own.
struct Groups {
  int64_t size;
  enum Offset { kSymmetric, kZeros, kMinimums } offset;
  bool ordered = false;
};

PackedLayout LayoutOf(const MatMulKernel& kernel, const Case& c,
                      const Groups& groups) {
  PackedLayout layout;
  layout.format = kernel.weights;
  layout.outputs = c.outputs;
  layout.inputs = c.inputs;
  layout.group_size = groups.size;
  layout.symmetric = groups.offset == Groups::kSymmetric;
  layout.minimums = groups.offset == Groups::kMinimums;
  return *PackedLayout::Checked(layout);
}

// A permutation without a pattern that prefetchers could follow.
Array<int32_t> ShuffledInputs(int64_t inputs) {
  Array<int32_t> order(inputs);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::minstd_rand(1));
  return order;
}

MultiplyKind KindOf(const MatMulKernel& kernel) {
  switch (kernel.panel) {
    case DType::kI8:
      return MultiplyKind::kInt8Dot;
    case DType::kBF16:
      return MultiplyKind::kBF16Dot;
    default:
      return MultiplyKind::kF32;
  }
}

Activations ActivationsOf(const MatMulKernel& kernel) {
  if (kernel.panel == DType::kI8) return Activations::kInt8;
  return kernel.panel == DType::kBF16 ? Activations::kBF16 : Activations::kF32;
}

void RunCase(benchmark::State& state, const MatMulKernel& kernel, const Case& c,
             const Groups& groups, int threads) {
  const Isa before = ActiveIsa();
  CHECK_OK(LimitIsa(kernel.isa));
  ThreadPool pool(threads);
  const std::vector<PackedMatrix> weights =
      IsInteger(kernel.weights) ? CopiesOf(LayoutOf(kernel, c, groups))
                                : PackCopies(c, kernel.weights, pool);
  const Array<float> x = Values(c.rows * c.inputs);
  Array<float> y(c.rows * c.outputs);
  const Array<int32_t> order = ShuffledInputs(c.inputs);
  MatMulOptions options;
  options.activations = ActivationsOf(kernel);
  if (groups.ordered) options.input_order = order.data();
  const MultiplyKind kind = KindOf(kernel);
  MemoryReader reader(std::min(weights[0].bytes(), kReadBytes));
  // About a millisecond: shorter than a time slice of the scheduler.
  const int64_t peak_macs = int64_t{100'000'000} * threads;
  std::vector<double> product, read, peak;
  int64_t done = 0;
  size_t next = 0;
  for (auto _ : state) {
    const Clock::time_point start = Clock::now();
    RunKernel(kernel, MatrixView<const float>(x.data(), c.rows, c.inputs),
              weights[next++ % weights.size()], options,
              MatrixView<float>(y.data(), c.rows, c.outputs), pool);
    product.push_back(
        std::chrono::duration<double>(Clock::now() - start).count());
    state.SetIterationTime(product.back());
    read.push_back(reader.TimeSlice(pool));
    peak.push_back(TimeMultiplies(kind, peak_macs, pool, done));
  }
  const double bytes = static_cast<double>(
      weights[0].bytes() + x.size() * sizeof(float) + y.size() * sizeof(float));
  const double read_bytes = std::min(weights[0].bytes(), kReadBytes);
  Report(state, c, bytes, Typical(product), read_bytes / Typical(read),
         done / Typical(peak));
  CHECK_OK(LimitIsa(before));
}

// Packing [5632, 2048]: bytes read and written a second, memory included.
void RunPack(benchmark::State& state, DType from, WeightFormat to) {
  constexpr int64_t kOutputs = 5632, kInputs = 2048;
  ThreadPool pool(AvailableCores());
  const AlignedBuffer source(kOutputs * kInputs * DTypeBlockBytes(from),
                             AlignedBuffer::Fill::kZero);
  const TensorView view = {from, *Shape::Create({kOutputs, kInputs}),
                           source.data(), source.size()};
  std::vector<double> seconds;
  for (auto _ : state) {
    const Clock::time_point start = Clock::now();
    const PackedMatrix packed = *PackMatrix(view, to, pool);
    benchmark::DoNotOptimize(packed.data());
    seconds.push_back(
        std::chrono::duration<double>(Clock::now() - start).count());
    state.SetIterationTime(seconds.back());
  }
  const double bytes = kOutputs * kInputs *
                       static_cast<double>(DTypeBlockBytes(from) +
                                           (to == WeightFormat::kF32 ? 4 : 2));
  state.counters["GB/s"] = bytes / Typical(seconds) / 1e9;
}

void RegisterPacking() {
  for (DType from : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (WeightFormat to : {WeightFormat::kF32, WeightFormat::kBF16}) {
      const std::string name =
          absl::StrCat("pack/", DTypeName(from), "_to_", WeightFormatName(to));
      benchmark::RegisterBenchmark(
          name.c_str(),
          [from, to](benchmark::State& state) { RunPack(state, from, to); })
          ->UseManualTime()
          ->Unit(benchmark::kMicrosecond);
    }
  }
}

// What a kernel is measured with: float weights have no groups, and integers
// that are decoded to floats cost the same with any.
std::vector<Groups> GroupsOf(const MatMulKernel& kernel) {
  constexpr auto kSymmetric = Groups::kSymmetric, kZeros = Groups::kZeros,
                 kMinimums = Groups::kMinimums;
  if (!IsInteger(kernel.weights)) return {{0, kSymmetric}};
  if (kernel.panel != DType::kI8) return {{128, kSymmetric}};
  if (kernel.weights == WeightFormat::kInt8) {
    return {{128, kSymmetric}, {32, kSymmetric}};
  }
  return {{128, kSymmetric}, {128, kZeros}, {128, kZeros, true},
          {32, kSymmetric},  {32, kZeros},  {32, kMinimums}};
}

void RegisterCase(const MatMulKernel& kernel, const Case& c,
                  const Groups& groups, int threads) {
  std::string name = kernel.name;
  if (groups.size != 0) {
    constexpr const char* kOffsets[] = {"/sym", "/asym", "/min"};
    absl::StrAppend(&name, "/g:", groups.size, kOffsets[groups.offset],
                    groups.ordered ? "/ordered" : "");
  }
  absl::StrAppend(&name, "/rows:", c.rows, "/inputs:", c.inputs,
                  "/outputs:", c.outputs, "/threads:", threads);
  benchmark::RegisterBenchmark(
      name.c_str(),
      [&kernel, c, groups, threads](benchmark::State& state) {
        RunCase(state, kernel, c, groups, threads);
      })
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond);
}

void RegisterAll() {
  RegisterPacking();
  const int cores = AvailableCores();
  for (const MatMulKernel& kernel : MatMulKernels()) {
    if (!KernelAllowed(kernel) || kernel.isa == Isa::kScalar) continue;
    for (const Groups& groups : GroupsOf(kernel)) {
      for (const Case& c : kCases) {
        for (int threads = 1; threads <= cores;
             threads += std::max(1, cores - 1)) {
          RegisterCase(kernel, c, groups, threads);
        }
      }
    }
  }
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::AddCustomContext("cpu", nibble::CpuModelName());
  benchmark::AddCustomContext("isa",
                              std::string(nibble::IsaName(nibble::BestIsa())));
  nibble::RegisterAll();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
