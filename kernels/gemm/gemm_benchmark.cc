// Speed of the products of training, packing included, as shares of the
// multiply peak, which is measured in turn with them.
//
//   bazel run //kernels/gemm:gemm_benchmark --
//       --benchmark_filter='tn/bf16/.*outputs:4096'
//
// nt, nn and tn are a linear's output, its input's gradient and its weight's
// gradient at 4096 tokens; packed is nt with the weight packed beforehand; syrk
// counts half of the products. Scores are those of attention heads, 512 tokens
// x 64, as a batch. Other processes only ever add time, so rates are taken at
// the 10th percentile of times, of both sides alike. One thread is timed by its
// CPU clock, which ignores busy neighbours, more threads by the wall clock.
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"
#include "kernels/cpu.h"
#include "kernels/gemm/gemm.h"
#include "kernels/machine_limits.h"
#include "kernels/thread_pool.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Seconds of the calling thread, or of everybody.
double Now(bool thread) {
  timespec time;
  clock_gettime(thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) +
         static_cast<double>(time.tv_nsec) * 1e-9;
}

constexpr int64_t kTokens = 4096;

// A linear's weight [outputs, inputs]: SmolLM2-135M's, and two of a 7B model.
struct Linear {
  int64_t outputs, inputs;
};
constexpr Linear kLinears[] = {{576, 576},  {960, 576},   {3072, 576},
                               {576, 1536}, {4096, 4096}, {22016, 4096}};
constexpr int64_t kSyrkSizes[] = {576, 1536, 4096, 11008};

// Values that neither vanish nor grow, and repeat.
Array<float> Values(int64_t count) {
  constexpr int64_t kPeriod = 1021;
  Array<float> values(count);
  for (int64_t i = 0; i < count; ++i) {
    values[i] = i < kPeriod ? static_cast<float>(i * 7919 % kPeriod - 510) / 512
                            : values[i - kPeriod];
  }
  return values;
}

double Typical(std::vector<double> seconds) {
  const auto at = seconds.begin() + seconds.size() / 10;
  std::nth_element(seconds.begin(), at, seconds.end());
  return *at;
}

// Times `product`, of so many products of numbers, in turn with the peak.
void Measure(benchmark::State& state, GemmPrecision precision, double macs,
             ThreadPool& pool, absl::FunctionRef<void()> product) {
  const MultiplyKind kind =
      precision == GemmPrecision::kBF16 && HasMultiply(MultiplyKind::kBF16Dot)
          ? MultiplyKind::kBF16Dot
          : MultiplyKind::kF32;
  std::vector<double> seconds, peak;
  int64_t done = 0;
  product();
  for (auto _ : state) {
    const bool alone = pool.threads() == 1;
    const double start = Now(alone);
    product();
    const double end = Now(alone);
    seconds.push_back(end - start);
    state.SetIterationTime(seconds.back());
    TimeMultiplies(kind, int64_t{100'000'000} * pool.threads(), pool, done);
    peak.push_back(Now(alone) - end);
  }
  const double rate = macs / Typical(seconds);
  const double peak_rate = static_cast<double>(done) / Typical(peak);
  state.counters["GMAC/s"] = rate / 1e9;
  state.counters["peak_GMAC/s"] = peak_rate / 1e9;
  state.counters["share_of_peak"] = rate / peak_rate;
}

using Product = void (*)(MatrixView<const float> x, MatrixView<float> w,
                         MatrixView<float> y, const GemmOptions& options,
                         const GemmOperand& packed, ThreadPool& pool);

// x: [tokens, inputs], w: [outputs, inputs], y: [tokens, outputs].
constexpr std::pair<const char*, Product> kProducts[] = {
    {"nt", [](auto x, auto w, auto y, auto& options, auto&,
              ThreadPool& pool) { GemmNT(x, w, options, y, pool); }},
    {"nn",
     [](auto x, auto w, auto y, auto& options, auto&, ThreadPool& pool) {
       GemmNN(y, w, options,
              MatrixView<float>(const_cast<float*>(x.data), x.rows, x.cols),
              pool);
     }},
    {"tn", [](auto x, auto w, auto y, auto& options, auto&,
              ThreadPool& pool) { GemmTN(y, x, options, w, pool); }},
    {"packed", [](auto x, auto, auto y, auto&, auto& packed,
                  ThreadPool& pool) { GemmPacked(x, packed, false, y, pool); }},
};

void RunLinear(benchmark::State& state, Product product, const Linear& linear,
               GemmPrecision precision, int threads) {
  ThreadPool pool(threads);
  Array<float> x = Values(kTokens * linear.inputs);
  Array<float> w = Values(linear.outputs * linear.inputs);
  Array<float> y = Values(kTokens * linear.outputs);
  const MatrixView<float> weights(w.data(), linear.outputs, linear.inputs);
  GemmOperand packed;
  packed.Pack(GemmForm::kNT, weights, precision, pool);
  GemmOptions options;
  options.precision = precision;
  const double macs = static_cast<double>(kTokens) *
                      static_cast<double>(linear.outputs * linear.inputs);
  Measure(state, precision, macs, pool, [&] {
    product(MatrixView<const float>(x.data(), kTokens, linear.inputs), weights,
            MatrixView<float>(y.data(), kTokens, linear.outputs), options,
            packed, pool);
  });
}

void RunSyrk(benchmark::State& state, int64_t n, GemmPrecision precision,
             int threads) {
  ThreadPool pool(threads);
  const Array<float> x = Values(kTokens * n);
  Array<double> h(n * n, Array<double>::Fill::kZero);
  GemmOptions options;
  options.precision = precision;
  options.accumulate = true;
  const double macs =
      static_cast<double>(kTokens) * static_cast<double>(n * (n + 1) / 2);
  Measure(state, precision, macs, pool, [&] {
    SyrkUpper(MatrixView<const float>(x.data(), kTokens, n), options,
              MatrixView<double>(h.data(), n, n), pool);
  });
}

// 32 heads' scores, q k^T.
void RunScores(benchmark::State& state, GemmPrecision precision, int threads) {
  constexpr int64_t kHeads = 32, kLength = 512, kDim = 64;
  ThreadPool pool(threads);
  const Array<float> q = Values(kLength * kHeads * kDim);
  const Array<float> k = Values(kLength * kHeads * kDim);
  Array<float> scores(kHeads * kLength * kLength);
  const MatrixView<const float> queries(q.data(), kLength, kHeads * kDim);
  const MatrixView<const float> keys(k.data(), kLength, kHeads * kDim);
  std::vector<GemmProduct> products;
  for (int64_t head = 0; head < kHeads; ++head) {
    products.push_back(
        {queries.Columns(head * kDim, kDim), keys.Columns(head * kDim, kDim),
         MatrixView<float>(scores.data() + head * kLength * kLength, kLength,
                           kLength)});
  }
  GemmOptions options;
  options.precision = precision;
  constexpr double kMacs = 1.0 * kHeads * kLength * kLength * kDim;
  Measure(state, precision, kMacs, pool,
          [&] { GemmBatch(GemmForm::kNT, products, options, pool); });
}

// What one thread does for 128 queries of a head: scores, their products with
// the values, and the values' gradient. The matrices are small enough for L2.
void RunHead(benchmark::State& state, GemmForm form, GemmPrecision precision) {
  constexpr int64_t kQueries = 128, kKeys = 512, kDim = 64, kStride = 1728;
  ThreadPool pool(1);
  const Array<float> heads = Values(kKeys * kStride);
  const Array<float> scores = Values(kQueries * kKeys);
  Array<float> out(kKeys * kKeys);
  const MatrixView<const float> q(heads.data(), kQueries, kDim, kStride);
  const MatrixView<const float> k(heads.data() + kDim, kKeys, kDim, kStride);
  const MatrixView<const float> p(scores.data(), kQueries, kKeys);
  GemmOptions options;
  options.precision = precision;
  options.accumulate = form == GemmForm::kTN;
  constexpr double kMacs = 1.0 * kQueries * kKeys * kDim;
  Measure(state, precision, kMacs, pool, [&] {
    if (form == GemmForm::kNT) {
      GemmNT(q, k, options, {out.data(), kQueries, kKeys}, pool);
    } else if (form == GemmForm::kNN) {
      GemmNN(p, k, options, {out.data(), kQueries, kDim}, pool);
    } else {
      GemmTN(p, q, options, {out.data(), kKeys, kDim}, pool);
    }
  });
}

// With one thread, then with all.
template <class Run>
void Register(const std::string& name, const Run& run) {
  const int cores = AvailableCores();
  for (int threads = 1; threads <= cores; threads += std::max(1, cores - 1)) {
    benchmark::RegisterBenchmark(
        absl::StrCat(name, "/threads:", threads).c_str(),
        [run, threads](benchmark::State& state) { run(state, threads); })
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
  }
}

void RegisterAll(GemmPrecision precision, const char* kind) {
  for (const auto& [name, product] : kProducts) {
    for (const Linear& linear : kLinears) {
      Register(absl::StrCat(name, kind, "/outputs:", linear.outputs,
                            "/inputs:", linear.inputs),
               [product = product, linear, precision](benchmark::State& state,
                                                      int threads) {
                 RunLinear(state, product, linear, precision, threads);
               });
    }
  }
  for (int64_t n : kSyrkSizes) {
    Register(absl::StrCat("syrk", kind, "/n:", n),
             [n, precision](benchmark::State& state, int threads) {
               RunSyrk(state, n, precision, threads);
             });
  }
  for (const auto& [name, form] :
       {std::pair("nt", GemmForm::kNT), std::pair("nn", GemmForm::kNN),
        std::pair("tn", GemmForm::kTN)}) {
    benchmark::RegisterBenchmark(
        absl::StrCat("head_", name, kind).c_str(),
        [form = form, precision](benchmark::State& state) {
          RunHead(state, form, precision);
        })
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
  }
  Register(absl::StrCat("scores", kind),
           [precision](benchmark::State& state, int threads) {
             RunScores(state, precision, threads);
           });
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::AddCustomContext("cpu", nibble::CpuModelName());
  benchmark::AddCustomContext("isa",
                              std::string(nibble::IsaName(nibble::BestIsa())));
  nibble::RegisterAll(nibble::GemmPrecision::kF32, "/f32");
  nibble::RegisterAll(nibble::GemmPrecision::kBF16, "/bf16");
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
