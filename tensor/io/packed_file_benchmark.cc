// What a packed file of 4 GB costs: to open, to verify, to write. The file is
// made in the temporary folder, which needs as much room, and removed.
//
//   packed_file_benchmark --benchmark_filter=Open
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/log/check.h"
#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"
#include "tensor/io/checksum.h"
#include "tensor/io/packed_file.h"

namespace nibble {
namespace {

constexpr size_t kPieceBytes = size_t{4} << 20;

// The matrices of `layers` layers with the shapes of Llama 2 7B: 117 MB each.
std::vector<PackedTensorPlan> Plan(int layers) {
  const auto int4 = [](int64_t outputs, int64_t inputs) {
    return *PackedLayout::Create(WeightFormat::kInt4, outputs, inputs, 32,
                                 false);
  };
  std::vector<PackedTensorPlan> plan;
  for (int i = 0; i < layers; ++i) {
    const std::string layer = absl::StrCat("layers.", i, ".");
    plan.push_back({layer + "qkv.weight", int4(12288, 4096)});
    plan.push_back({layer + "attention.weight", int4(4096, 4096)});
    plan.push_back({layer + "up.weight", int4(22016, 4096)});
    plan.push_back({layer + "down.weight", int4(4096, 11008)});
    plan.push_back(
        {layer + "mlp_norm.weight", PlainTensor{DType::kF32, {4096}}});
  }
  return plan;
}

int64_t BytesOf(const std::vector<PackedTensorPlan>& plan) {
  int64_t bytes = 0;
  for (const PackedTensorPlan& tensor : plan) {
    bytes += *PackedKindBytes(tensor.what);
  }
  return bytes;
}

const std::vector<std::byte>& Piece() {
  static const auto* const piece = [] {
    auto* bytes = new std::vector<std::byte>(kPieceBytes);
    std::mt19937 random(1);
    // Without the highest bits, so that every scale is finite.
    for (std::byte& byte : *bytes) byte = std::byte(random() & 0x3F);
    return bytes;
  }();
  return *piece;
}

PackedFileWriter Streamed(const std::string& path,
                          const std::vector<PackedTensorPlan>& plan) {
  auto writer = PackedFileWriter::Create(
      path, {}, plan, {{"tokenizer.json", std::string(9'000'000, 'x')}});
  CHECK_OK(writer.status());
  for (int64_t left = BytesOf(plan); left > 0; left -= kPieceBytes) {
    CHECK_OK(writer->Append(absl::MakeConstSpan(Piece()).first(
        std::min<size_t>(kPieceBytes, static_cast<size_t>(left)))));
  }
  return *std::move(writer);
}

std::string TemporaryPath() {
  return std::filesystem::temp_directory_path() / "packed_file_benchmark.nib";
}

// A file of 4 GB, in the page cache.
class LargeFile {
 public:
  LargeFile() { CHECK_OK(Streamed(path_, Plan(36)).Commit()); }
  ~LargeFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  const std::string path_ = TemporaryPath();
};

const std::string& LargePath() {
  static const LargeFile file;
  return file.path();
}

// Kilobytes of this process that belong to no file.
int64_t PrivateKilobytes() {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    int64_t value = 0;
    if (std::sscanf(line.c_str(), "RssAnon: %ld", &value) == 1) return value;
  }
  return 0;
}

void BM_Open(benchmark::State& state) {
  const std::string& path = LargePath();
  const int64_t before = PrivateKilobytes();
  int64_t after = 0;
  for (auto _ : state) {
    const auto file = PackedFile::Open(path);
    CHECK_OK(file.status());
    after = std::max(after, PrivateKilobytes());
  }
  state.counters["private_kB"] = static_cast<double>(after - before);
}
BENCHMARK(BM_Open)->Unit(benchmark::kMillisecond);

void BM_Verify(benchmark::State& state) {
  const auto file = PackedFile::Open(LargePath());
  CHECK_OK(file.status());
  const int64_t threads = state.range(0);
  const auto run = [&](int64_t tasks, absl::FunctionRef<void(int64_t)> task) {
    std::vector<std::thread> pool;
    for (int64_t t = 0; t < threads; ++t) {
      pool.emplace_back([=] {
        for (int64_t i = t; i < tasks; i += threads) task(i);
      });
    }
    for (std::thread& thread : pool) thread.join();
  };
  for (auto _ : state) CHECK_OK((*file)->VerifyAll(run));
  state.SetBytesProcessed(
      state.iterations() *
      static_cast<int64_t>(std::filesystem::file_size(LargePath())));
}
BENCHMARK(BM_Verify)->Arg(1)->Arg(2)->ArgName("threads")->UseRealTime()->Unit(
    benchmark::kMillisecond);

// Into the page cache; how long Commit takes is the disk's affair.
void BM_Append(benchmark::State& state) {
  const std::vector<PackedTensorPlan> plan = Plan(9);
  for (auto _ : state) Streamed(TemporaryPath() + ".2", plan);
  state.SetBytesProcessed(state.iterations() * BytesOf(plan));
}
BENCHMARK(BM_Append)->UseRealTime()->Unit(benchmark::kMillisecond);

void BM_Checksum(benchmark::State& state) {
  const auto bytes =
      absl::MakeConstSpan(Piece()).first(static_cast<size_t>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(Crc32c(bytes));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_Checksum)->Arg(64 << 10)->Arg(512 << 10)->Arg(4 << 20);

}  // namespace
}  // namespace nibble
