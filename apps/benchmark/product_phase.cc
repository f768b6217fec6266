#include "apps/benchmark/product_phase.h"

#include <algorithm>
#include <chrono>  // NOLINT: wall time is what is measured
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/log/check.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "models/decoder_weights.h"
#include "tensor/view.h"

namespace nibble {
namespace {

using Clock = std::chrono::steady_clock;

// A turn through this many times the last-level cache finds nothing in it.
constexpr int64_t kCachesPerTurn = 4;

// Activations without a pattern that a kernel could profit from: -1 .. 1.
void FillActivations(Array<float>& x) {
  uint32_t state = 12345;
  for (float& value : x) {
    state = state * 1664525u + 1013904223u;  // Numerical Recipes
    value = static_cast<float>(static_cast<int32_t>(state)) * 0x1p-31f;
  }
}

std::vector<std::vector<const PackedMatrix*>> UnitsOf(
    absl::string_view name, const DecoderWeights& weights) {
  if (name == "head") return {{&weights.head.matrix}};
  std::vector<std::vector<const PackedMatrix*>> units;
  for (const LayerWeights& layer : weights.layers) {
    if (name == "qkv") {
      units.push_back({&layer.qkv.matrix});
    } else if (name == "attention") {
      units.push_back({&layer.attention.matrix});
    } else if (name == "up") {
      units.push_back({&layer.up.matrix});
    } else if (name == "down") {
      units.push_back({&layer.down.matrix});
    } else {
      CHECK_EQ(name, "layer");
      units.push_back({&layer.qkv.matrix, &layer.attention.matrix,
                       &layer.up.matrix, &layer.down.matrix});
    }
  }
  return units;
}

BenchRow ProductRow(const std::string& name, int64_t rows,
                    const ProductRotation& rotation,
                    const Measurement& measured) {
  BenchRow row;
  row.phase = BenchPhase::kProduct;
  row.matrix = name;
  row.activation_rows = rows;
  row.milliseconds = measured.milliseconds;
  row.tokens = static_cast<double>(rows);
  row.bytes = rotation.bytes();
  row.macs = rotation.macs();
  row.read_bytes_per_second = measured.read_bytes_per_second;
  row.peak_macs_per_second = measured.macs_per_second;
  return row;
}

}  // namespace

std::vector<std::string> ProductNames() {
  return {"qkv", "attention", "up", "down", "head", "layer"};
}

ProductRotation::ProductRotation(absl::string_view name, int64_t rows,
                                 const Decoder& decoder, ThreadPool& pool)
    : rows_(rows), pool_(pool), units_(UnitsOf(name, decoder.weights())) {
  options_.activations = decoder.activations();
  int64_t inputs = 0, outputs = 0;
  for (const PackedMatrix* matrix : units_[0]) {
    inputs = std::max(inputs, matrix->inputs());
    outputs = std::max(outputs, matrix->outputs());
    bytes_ += static_cast<double>(matrix->bytes());
    macs_ += static_cast<double>(rows * matrix->inputs() * matrix->outputs());
  }
  x_ = Array<float>(static_cast<size_t>(rows * inputs));
  y_ = Array<float>(static_cast<size_t>(rows * outputs));
  FillActivations(x_);
}

double ProductRotation::Run() {
  const Unit& unit = units_[next_++ % units_.size()];
  const Clock::time_point start = Clock::now();
  for (const PackedMatrix* matrix : unit) {
    MatMul(MatrixView<const float>(x_.data(), rows_, matrix->inputs()), *matrix,
           options_, MatrixView<float>(y_.data(), rows_, matrix->outputs()),
           pool_);
  }
  return std::chrono::duration<double>(Clock::now() - start).count();
}

Work ProductRotation::AsWork(int64_t cache_bytes) {
  Work work;
  work.run = [this]() -> absl::StatusOr<double> { return Run(); };
  const double turn = bytes_ * static_cast<double>(units_.size());
  const bool leaves_caches =
      turn >= static_cast<double>(kCachesPerTurn * cache_bytes);
  work.units_between_samples =
      leaves_caches ? int64_t{1} << 30 : static_cast<int64_t>(units_.size());
  return work;
}

absl::Status MeasureProducts(BenchSession& session,
                             absl::Span<const std::string> names,
                             absl::Span<const int64_t> rows) {
  for (const std::string& name : names) {
    session.progress(absl::StrCat("products: ", name));
    std::vector<std::unique_ptr<ProductRotation>> rotations;
    std::vector<Work> works;
    for (const int64_t count : rows) {
      rotations.push_back(std::make_unique<ProductRotation>(
          name, count, session.engine.decoder(), session.engine.pool()));
      works.push_back(rotations.back()->AsWork(session.last_level_cache_bytes));
    }
    const absl::StatusOr<std::vector<Measurement>> measured =
        MeasureInTurn(works, session.probe, session.measure);
    if (!measured.ok()) return measured.status();
    const auto one_row = std::find(rows.begin(), rows.end(), 1);
    for (size_t i = 0; i < rows.size(); ++i) {
      BenchRow row = ProductRow(name, rows[i], *rotations[i], (*measured)[i]);
      if (one_row != rows.end()) {
        const Measurement& one =
            (*measured)[static_cast<size_t>(one_row - rows.begin())];
        row.time_ratio_to_one_row =
            row.milliseconds.median / one.milliseconds.median;
      }
      session.report.rows.push_back(row);
    }
  }
  return absl::OkStatus();
}

}  // namespace nibble
