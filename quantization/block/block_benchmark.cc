// Speed of a block's passes as shares of the multiply peak, which is measured
// in turn with them.
//
//   bazel run //quantization/block:block_benchmark -- [SHAPE [THREADS
//   [PRECISION]]]
//
// PRECISION is bf16 or f32; both without it. Shapes: smollm2 (135M; 8 sequences
// of 512 tokens, as SignRound takes them) and llama7b (one sequence: a batch is
// taken in parts). Multiply-adds are those of the four linears and, of
// attention, of the pairs of query and key that see each other. With one
// thread, times are its CPU clock, which ignores busy neighbours; rates are of
// the 20th percentile of times.

#include <time.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/gemm/gemm.h"
#include "kernels/machine_limits.h"
#include "kernels/thread_pool.h"
#include "models/decoder_config.h"
#include "quantization/block/block.h"
#include "quantization/block/block_weights.h"
#include "tensor/buffer.h"
#include "tensor/view.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

constexpr int64_t kLength = 512;

struct BlockSize {
  DecoderConfig config;
  int64_t sequences;
};

BlockSize SizeOf(const std::string& name) {
  DecoderConfig c;
  c.vocabulary = 32;
  c.layers = 1;
  c.max_positions = 2048;
  c.windows = {0};
  const bool large = name == "llama7b";
  c.hidden = large ? 4096 : 576;
  c.heads = large ? 32 : 9;
  c.kv_heads = large ? 32 : 3;
  c.head_dim = large ? 128 : 64;
  c.ffn = large ? 11008 : 1536;
  c.rope.rotary_dims = c.head_dim;
  c.rope.max_positions = c.max_positions;
  return {c, large ? 1 : 8};
}

Array<float> Values(int64_t count, float size) {
  testing::RandomValues random(1);
  Array<float> values(static_cast<size_t>(count));
  for (float& v : values) {
    v = size * static_cast<float>(2 * random.Unit() - 1);
  }
  return values;
}

BlockWeights<float> Weights(const DecoderConfig& c) {
  BlockWeights<float> weights;
  weights.attention_norm.weight = Values(c.hidden, 1.0f);
  weights.mlp_norm.weight = Values(c.hidden, 1.0f);
  const auto set = [&](LinearId id, int64_t outputs, int64_t inputs) {
    weights[id].outputs = outputs;
    weights[id].inputs = inputs;
    weights[id].weight = Values(outputs * inputs, 0.05f);
  };
  set(LinearId::kQkv, c.qkv_dim(), c.hidden);
  set(LinearId::kAttention, c.hidden, c.q_dim());
  set(LinearId::kUp, 2 * c.ffn, c.hidden);
  set(LinearId::kDown, c.hidden, c.ffn);
  return weights;
}

double Now(bool thread) {
  timespec time;
  clock_gettime(thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) +
         static_cast<double>(time.tv_nsec) * 1e-9;
}

double Typical(std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 5];
}

// Times `work`, of `macs` multiply-adds, in turn with as many of the peak.
void Report(const char* name, GemmPrecision precision, double macs,
            ThreadPool& pool, absl::FunctionRef<void()> work) {
  const MultiplyKind kind =
      precision == GemmPrecision::kBF16 && HasMultiply(MultiplyKind::kBF16Dot)
          ? MultiplyKind::kBF16Dot
          : MultiplyKind::kF32;
  const bool thread = pool.threads() == 1;
  work();  // grows all memory
  std::vector<double> times, peaks;
  const double end = Now(false) + 2.5;
  for (int i = 0; i < 5 || (Now(false) < end && i < 200); ++i) {
    double start = Now(thread);
    work();
    times.push_back(Now(thread) - start);
    int64_t done = 0;
    start = Now(thread);
    TimeMultiplies(kind, static_cast<int64_t>(macs / 8), pool, done);
    peaks.push_back((Now(thread) - start) / static_cast<double>(done));
  }
  const double seconds = Typical(times);
  std::printf("%-32s %8.2f ms %7.1f GMAC/s %5.1f%% of %s\n", name,
              seconds * 1e3, macs / seconds * 1e-9,
              100 * macs / seconds * Typical(peaks), MultiplyName(kind));
}

void Run(const BlockSize& shape, GemmPrecision precision, ThreadPool& pool) {
  const DecoderConfig& c = shape.config;
  const int64_t tokens = shape.sequences * kLength;
  const BlockWeights<float> weights = Weights(c);
  const Array<float> x = Values(tokens * c.hidden, 1.0f);
  const MatrixView<const float> view(x.data(), tokens, c.hidden);
  double linears = 0;
  for (const LinearId id : kAllLinears) {
    linears += static_cast<double>(weights[id].outputs * weights[id].inputs);
  }
  linears *= static_cast<double>(tokens);
  const double qkv =
      static_cast<double>(tokens * c.qkv_dim() * c.hidden);  // no gradient by x
  // One product of attention: pairs times dimensions of all heads.
  const double attention =
      static_cast<double>(tokens * (kLength + 1) / 2 * c.q_dim());
  const std::string suffix =
      precision == GemmPrecision::kBF16 ? ", bf16" : ", f32";

  Block<float> block(c, 0, kLength, precision);
  BlockActivations<float> acts;
  BlockGradients<float> gradients;
  block.SetWeights(weights, /*gradients=*/false, pool);
  Report(("forward" + suffix).c_str(), precision, linears + 2 * attention, pool,
         [&] { block.Forward(view, acts, pool); });
  Report(("pack weights" + suffix).c_str(), precision,
         linears / static_cast<double>(tokens), pool,
         [&] { block.SetWeights(weights, /*gradients=*/true, pool); });
  Report(("forward, kept" + suffix).c_str(), precision, linears + 2 * attention,
         pool, [&] { block.Forward(view, acts, pool); });
  Report(("backward" + suffix).c_str(), precision,
         2 * linears - qkv + 5 * attention, pool,
         [&] { block.Backward(view, acts, view, gradients, pool); });
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  nibble::ThreadPool pool(argc > 2 ? std::atoi(argv[2]) : 1);
  const nibble::BlockSize shape =
      nibble::SizeOf(argc > 1 ? argv[1] : "smollm2");
  const std::string precision = argc > 3 ? argv[3] : "";
  if (precision != "f32") {
    nibble::Run(shape, nibble::GemmPrecision::kBF16, pool);
  }
  if (precision != "bf16") {
    nibble::Run(shape, nibble::GemmPrecision::kF32, pool);
  }
}
