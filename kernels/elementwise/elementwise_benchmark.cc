// Speed of every elementwise kernel, row by row of its table.
//
//   bazelw run -c opt //kernels/elementwise:elementwise_benchmark
//
// Bytes read and written per second, from L1 or L2: what these kernels cost
// between two matrix products. All run on one thread, timed by its CPU clock.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"
#include "kernels/cpu.h"
#include "kernels/elementwise/activation_kernels.h"
#include "kernels/elementwise/activation_type.h"
#include "kernels/elementwise/kernel_testing.h"
#include "kernels/elementwise/norm_kernels.h"
#include "kernels/elementwise/rope_kernels.h"
#include "kernels/elementwise/softmax_kernels.h"
#include "kernels/elementwise/topk.h"
#include "kernels/elementwise/topk_kernels.h"
#include "kernels/elementwise/vector_kernels.h"

namespace nibble {
namespace {

constexpr int64_t kHidden = 4096;
constexpr int64_t kVocabulary = 128256;
constexpr int64_t kPairs = 64;  // of a head of 128

// Vectors that the bodies below use.
struct Inputs {
  std::vector<float> x = NormalNumbers(1).Vector(kVocabulary);
  std::vector<float> y = NormalNumbers(2).Vector(kVocabulary);
  std::vector<float> weight = NormalNumbers(3).Vector(kHidden);
  std::vector<float> out = std::vector<float>(kHidden);
};

Inputs& Shared() {
  static Inputs* const inputs = new Inputs;
  return *inputs;
}

using Body = std::function<void(Inputs&)>;

void Add(const std::string& name, Isa isa, int64_t bytes, const Body& body) {
  if (!CpuSupports(isa)) return;
  benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
    Inputs& inputs = Shared();
    for (auto _ : state) {
      body(inputs);
      benchmark::ClobberMemory();
    }
    state.SetBytesProcessed(state.iterations() * bytes);
  });
}

void AddNorms() {
  for (const NormKernels& k : NormTable()) {
    Add(absl::StrCat("RmsNorm/4096/", k.name), k.isa, 3 * 4 * kHidden,
        [&k](Inputs& in) {
          k.rms_norm(in.x.data(), in.weight.data(), kHidden, 1e-5f,
                     in.out.data());
        });
    Add(absl::StrCat("LayerNorm/4096/", k.name), k.isa, 4 * 4 * kHidden,
        [&k](Inputs& in) {
          k.layer_norm(in.x.data(), in.weight.data(), in.y.data(), kHidden,
                       1e-5f, in.out.data());
        });
  }
}

void AddActivations() {
  const char* const names[] = {"Silu", "Gelu", "GeluTanh", "QuickGelu"};
  for (int a = 0; a < 4; ++a) {
    for (const ActivationKernels& k : ActivationTable()) {
      Add(absl::StrCat("Gated", names[a], "/4096/", k.name), k.isa,
          3 * 4 * kHidden, [&k, a](Inputs& in) {
            k.gated[a](in.x.data(), in.y.data(), kHidden, in.out.data());
          });
    }
  }
}

void AddRope() {
  for (const RopeKernels& k : RopeKernelTable()) {
    Add(absl::StrCat("RopeHalf/128/", k.name), k.isa, 4 * 4 * kPairs,
        [&k](Inputs& in) {
          k.half(in.weight.data(), in.weight.data() + kPairs, kPairs,
                 in.out.data());
        });
    Add(absl::StrCat("RopeInterleaved/128/", k.name), k.isa, 4 * 4 * kPairs,
        [&k](Inputs& in) {
          k.interleaved(in.weight.data(), in.weight.data() + kPairs, kPairs,
                        in.out.data());
        });
  }
}

void AddVocabularyScans() {
  for (const SoftmaxKernels& k : SoftmaxTable()) {
    Add(absl::StrCat("Softmax/4096/", k.name), k.isa, 2 * 4 * kHidden,
        [&k](Inputs& in) { k.softmax(in.out.data(), kHidden); });
    Add(absl::StrCat("LogSumExp/128256/", k.name), k.isa, 4 * kVocabulary,
        [&k](Inputs& in) {
          benchmark::DoNotOptimize(k.log_sum_exp(in.x.data(), kVocabulary));
        });
  }
  for (const SearchKernels& k : SearchTable()) {
    Add(absl::StrCat("Max/128256/", k.name), k.isa, 4 * kVocabulary,
        [&k](Inputs& in) {
          benchmark::DoNotOptimize(k.max(in.x.data(), kVocabulary));
        });
  }
  Add("TopK/40_of_128256/best", Isa::kScalar, 4 * kVocabulary, [](Inputs& in) {
    ScoredIndex best[40];
    benchmark::DoNotOptimize(TopK(in.x, absl::MakeSpan(best)));
  });
}

void AddVectors() {
  for (const VectorKernels& k : VectorTable()) {
    Add(absl::StrCat("Add/4096/", k.name), k.isa, 3 * 4 * kHidden,
        [&k](Inputs& in) { k.add(in.y.data(), kHidden, in.out.data()); });
  }
}

const bool kRegistered = (AddNorms(), AddActivations(), AddRope(),
                          AddVocabularyScans(), AddVectors(), true);

}  // namespace
}  // namespace nibble
