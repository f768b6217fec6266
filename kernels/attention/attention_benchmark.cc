// Speed of attention, as a share of what the machine can do at the time.
//
//   bazelw run -c opt //kernels/attention:attention_benchmark
//
// Decode is bound by reading the cache once: its figure is GB/s of keys and
// values, with the share of read bandwidth. The caches cycled through are 192
// MiB together, so that none of them is still in a cache of the processor.
// Prefill is bound by multiplying: its figure is GMAC/s over the visible pairs
// of query and key, with the share of the FMA peak; for an int8 cache of half
// the peak of int8 dot products, since one factor has 16 bits. The limits are
// measured before and after each benchmark, with its threads. One thread is
// timed by its CPU clock, which ignores busy neighbours, more threads by the
// wall clock.
//
// DecodeResident repeats one cache of 256 tokens: the bound that the arithmetic
// sets when memory does not.

#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"
#include "kernels/attention/attention.h"
#include "kernels/attention/attention_testing.h"
#include "kernels/attention/kv_view.h"
#include "kernels/elementwise/kernel_testing.h"
#include "kernels/machine_limits.h"
#include "kernels/thread_pool.h"
#include "tensor/buffer.h"

namespace nibble {
namespace {

constexpr int64_t kPageTokens = 64;
constexpr int64_t kColdBytes = int64_t{192} << 20;

struct Model {
  const char* name;
  int64_t heads, kv_heads, head_dim;
};

constexpr Model kModels[] = {
    {"smollm2_135m", 9, 3, 64}, {"tinyllama", 32, 4, 64},
    {"llama2_7b", 32, 32, 128}, {"llama3_8b", 32, 8, 128},
    {"falcon_7b", 71, 1, 64},
};

// [n], of normal numbers that repeat: drawing all of them takes longer than the
// benchmarks.
std::vector<float> SomeNumbers(int64_t n) {
  const std::vector<float> some = NormalNumbers(1).Vector(4099);
  std::vector<float> values(n);
  for (int64_t i = 0; i < n; ++i) values[i] = some[i % some.size()];
  return values;
}

// Caches of `depth` tokens each, filled.
class Caches {
 public:
  Caches(const Model& model, DType dtype, int64_t depth, int64_t bytes) {
    KvView shape{dtype, model.kv_heads, model.head_dim, kPageTokens, {}, {}};
    const int64_t width = model.kv_heads * model.head_dim;
    bytes_ = 2 * depth * KvPageBytes(shape) / kPageTokens;
    const std::vector<float> rows = SomeNumbers(depth * width);
    const MatrixView<const float> all(rows.data(), depth, width);
    for (int64_t n = std::max<int64_t>(1, bytes / bytes_); n > 0; --n) {
      caches_.emplace_back(shape, depth);
      StoreKv(all, all, 0, caches_.back().view());
    }
  }
  int64_t bytes() const { return bytes_; }  // of one cache
  const KvView& Next() {
    next_ = (next_ + 1) % caches_.size();
    return caches_[next_].view();
  }

 private:
  int64_t bytes_;
  size_t next_ = 0;
  std::deque<PagedCache> caches_;
};

AttentionParams ParamsOf(const Model& model) {
  AttentionParams params;
  params.heads = model.heads;
  params.scale = 1.0f / std::sqrt(static_cast<float>(model.head_dim));
  return params;
}

// What a clock says of `work`: with one thread the CPU's, which does not run
// while a neighbour does; with more the wall's.
double SecondsOf(int threads, absl::FunctionRef<void()> work) {
  const clockid_t clock =
      threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
  const auto now = [clock] {
    timespec time;
    clock_gettime(clock, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * time.tv_nsec;
  };
  const double start = now();
  work();
  return now() - start;
}

double BestReadRate(ThreadPool& pool, double best) {
  static const AlignedBuffer* const buffer =
      new AlignedBuffer(kColdBytes, AlignedBuffer::Fill::kZero);
  for (int i = 0; i < 3; ++i) {
    const double seconds = SecondsOf(pool.threads(), [&] {
      TimeRead({buffer->data(), buffer->size()}, pool);
    });
    best = std::max(best, static_cast<double>(kColdBytes) / seconds);
  }
  return best;
}

double BestMultiplyRate(DType dtype, ThreadPool& pool, double best) {
  const bool int8 = dtype == DType::kI8;
  for (int i = 0; i < 3; ++i) {
    int64_t done = 0;
    const double seconds = SecondsOf(pool.threads(), [&] {
      TimeMultiplies(int8 ? MultiplyKind::kInt8Dot : MultiplyKind::kF32,
                     int64_t{1} << (int8 ? 31 : 28), pool, done);
    });
    const double products = static_cast<double>(done) / (int8 ? 2 : 1);
    best = std::max(best, products / seconds);
  }
  return best;
}

void Decode(benchmark::State& state, const Model& model, DType dtype,
            int64_t depth, int64_t cold_bytes, int threads) {
  ThreadPool pool(threads);
  Caches caches(model, dtype, depth, cold_bytes);
  const int64_t width = model.heads * model.head_dim;
  const std::vector<float> q = SomeNumbers(width);
  std::vector<float> out(width);
  double limit = BestReadRate(pool, 0.0);
  for (auto _ : state) {
    const AttentionSequence sequence{{q.data(), 1, width},
                                     {out.data(), 1, width},
                                     depth - 1,
                                     depth,
                                     caches.Next()};
    Attention({&sequence, 1}, ParamsOf(model), pool);
    benchmark::DoNotOptimize(out.data());
  }
  limit = BestReadRate(pool, limit);
  const double bytes = static_cast<double>(state.iterations() * caches.bytes());
  using benchmark::Counter;
  state.counters["GB/s"] = Counter(bytes * 1e-9, Counter::kIsRate);
  state.counters["share"] = Counter(bytes / limit, Counter::kIsRate);
}

void Prefill(benchmark::State& state, const Model& model, DType dtype,
             int64_t first, int64_t tokens, int threads) {
  ThreadPool pool(threads);
  Caches caches(model, dtype, first + tokens, 0);
  const int64_t width = model.heads * model.head_dim;
  const std::vector<float> q = SomeNumbers(tokens * width);
  std::vector<float> out(q.size());
  const AttentionSequence sequence{{q.data(), tokens, width},
                                   {out.data(), tokens, width},
                                   first,
                                   first + tokens,
                                   caches.Next()};
  double limit = BestMultiplyRate(dtype, pool, 0.0);
  for (auto _ : state) {
    Attention({&sequence, 1}, ParamsOf(model), pool);
    benchmark::DoNotOptimize(out.data());
  }
  limit = BestMultiplyRate(dtype, pool, limit);
  const double pairs = static_cast<double>(tokens) * first +
                       0.5 * static_cast<double>(tokens) * (tokens + 1);
  const double macs =
      2.0 * pairs * width * static_cast<double>(state.iterations());
  using benchmark::Counter;
  state.counters["GMAC/s"] = Counter(macs * 1e-9, Counter::kIsRate);
  state.counters["share"] = Counter(macs / limit, Counter::kIsRate);
}

template <class... Args>
void Add(const std::string& name, int threads, Args... args) {
  benchmark::internal::Benchmark* const registered =
      benchmark::RegisterBenchmark(name.c_str(), args..., threads);
  registered->Unit(benchmark::kMicrosecond);
  if (threads > 1) registered->UseRealTime();
}

void Register() {
  for (int threads : {1, 2}) {
    for (DType dtype : {DType::kI8, DType::kBF16, DType::kF32}) {
      for (const Model& model : kModels) {
        const std::string suffix = absl::StrCat(
            model.name, "/", DTypeName(dtype), "/threads:", threads);
        for (int64_t depth : {512, 1024, 3072, 4096}) {
          Add(absl::StrCat("Decode/", suffix, "/depth:", depth), threads,
              Decode, model, dtype, depth, kColdBytes);
        }
        Add(absl::StrCat("DecodeResident/", suffix), threads, Decode, model,
            dtype, int64_t{256}, int64_t{0});
        for (int64_t first : {0, 1536}) {
          Add(absl::StrCat("Prefill/", suffix, "/first:", first), threads,
              Prefill, model, dtype, first, int64_t{512});
        }
      }
    }
  }
}

const bool kRegistered = (Register(), true);

}  // namespace
}  // namespace nibble
