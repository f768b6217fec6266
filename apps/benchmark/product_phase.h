// The matrix products of a model, alone: on the engine's own weights, layer
// after layer, so that they come from memory.
//
//   absl::Status status = MeasureProducts(session, {"layer"}, {1, 4, 512});
#ifndef NIBBLE_APPS_BENCHMARK_PRODUCT_PHASE_H_
#define NIBBLE_APPS_BENCHMARK_PRODUCT_PHASE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "apps/benchmark/bench_session.h"
#include "apps/benchmark/measure.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/decoder.h"
#include "tensor/buffer.h"

namespace nibble {

// "qkv", "attention", "up", "down", "head" and "layer": a layer's four
// matrices, one after another.
std::vector<std::string> ProductNames();

// One product, or a layer's four, with random activations; the next layer's at
// each call.
class ProductRotation {
 public:
  // REQUIRES: `name` is one of ProductNames(), rows >= 1. `decoder` and `pool`
  // must outlive it.
  ProductRotation(absl::string_view name, int64_t rows, const Decoder& decoder,
                  ThreadPool& pool);

  // Seconds of one unit.
  double Run();

  // Of one unit: packed bytes, and multiply-accumulates.
  double bytes() const { return bytes_; }
  double macs() const { return macs_; }

  // The rotation as work: the limits are sampled, and caches emptied, once a
  // turn of the layers unless a turn exceeds `cache_bytes` many times.
  Work AsWork(int64_t cache_bytes);

 private:
  using Unit = std::vector<const PackedMatrix*>;

  const int64_t rows_;
  ThreadPool& pool_;
  MatMulOptions options_;
  std::vector<Unit> units_;
  size_t next_ = 0;
  double bytes_ = 0;
  double macs_ = 0;
  Array<float> x_;  // [rows, the most inputs]
  Array<float> y_;  // [rows, the most outputs]
};

// A row of the report for each matrix and number of activation rows. All of one
// matrix are measured in turn; where one row is among them, the others are also
// compared with it.
absl::Status MeasureProducts(BenchSession& session,
                             absl::Span<const std::string> names,
                             absl::Span<const int64_t> rows);

}  // namespace nibble

#endif  // NIBBLE_APPS_BENCHMARK_PRODUCT_PHASE_H_
