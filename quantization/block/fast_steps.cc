// The steps on floats: the decoder's own kernels forward, kernels/gemm and
// kernels/gradient backward.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/log/check.h"
#include "kernels/attention/attention.h"
#include "kernels/attention/kv_view.h"
#include "kernels/elementwise/activation.h"
#include "kernels/elementwise/norm.h"
#include "kernels/elementwise/rope.h"
#include "kernels/elementwise/row_parallel.h"
#include "kernels/elementwise/vector_ops.h"
#include "kernels/gemm/gemm.h"
#include "kernels/gradient/gradient.h"
#include "kernels/matmul/matmul.h"
#include "quantization/block/attention_gradient.h"
#include "quantization/block/block_steps.h"
#include "quantization/block/grow_matrix.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"

namespace nibble {
namespace {

class FastSteps : public BlockSteps<float> {
 public:
  explicit FastSteps(const BlockShape& shape)
      : shape_(shape), c_(shape.config), back_sines_(shape.sines) {
    for (float& sine : back_sines_) sine = -sine;
  }

  void SetLinear(LinearId id, In weight, bool gradients,
                 ThreadPool& pool) override {
    Linear& linear = linears_[static_cast<size_t>(id)];
    linear.forward.Pack(GemmForm::kNT, weight, shape_.precision, pool);
    if (!gradients) return;
    linear.backward.Pack(GemmForm::kNN, weight, shape_.precision, pool);
  }

  void Product(LinearId id, In x, Vector bias, bool accumulate, Out y,
               ThreadPool& pool) override {
    MatMulOptions options = Options(bias);
    options.accumulate = accumulate;
    MatMul(x, Matrix(id), options, y, pool);
  }

  void Inner(In x, Vector bias, Out up, Out inner, ThreadPool& pool) override {
    MatMulOptions options = Options(bias);
    const PackedMatrix matrix = Matrix(LinearId::kUp);
    if (up.data == nullptr) {
      if (c_.gated) options.gated = c_.activation;
      MatMul(x, matrix, options, inner, pool);
      if (!c_.gated) ActivateRows(c_.activation, inner, pool);
      return;
    }
    MatMul(x, matrix, options, up, pool);
    if (c_.gated) {
      GatedActivateRows(c_.activation, up.Columns(0, c_.ffn),
                        up.Columns(c_.ffn, c_.ffn), inner, pool);
    } else {
      Copy(up, inner, pool);
      ActivateRows(c_.activation, inner, pool);
    }
  }

  void InputGradient(LinearId id, In dy, bool accumulate, Out dx,
                     ThreadPool& pool) override {
    GemmPacked(dy, linears_[static_cast<size_t>(id)].backward, accumulate, dx,
               pool);
  }

  void WeightGradient(In dy, In x, bool accumulate, Out dw,
                      ThreadPool& pool) override {
    GemmTN(dy, x, {shape_.precision, accumulate}, dw, pool);
  }

  void BiasGradient(In dy, absl::Span<float> db, ThreadPool& pool) override {
    SumRows(dy.rows, db, pool, [&](int64_t row, absl::Span<float> sum) {
      AddInPlace(dy.row_span(row), sum);
    });
  }

  void Norm(const BlockNorm<float>& norm, In x, Out y,
            ThreadPool& pool) override {
    if (c_.norm == NormKind::kRms) {
      RmsNormRows(x, norm.weight.span(), c_.norm_eps, y, pool);
    } else {
      LayerNormRows(x, norm.weight.span(), norm.bias.span(), c_.norm_eps, y,
                    pool);
    }
  }

  void NormInputGradient(const BlockNorm<float>& norm, In x, In dy, In base,
                         Out dx, ThreadPool& pool) override {
    ForEachRow(x.rows, x.cols, pool, [&](int64_t t) {
      NormGradient(norm_options(), x.row_span(t), norm.weight.span(),
                   dy.row_span(t), base.row_span(t), dx.row_span(t));
    });
  }

  void NormWeightGradient(In x, In dy, absl::Span<float> weight,
                          absl::Span<float> bias, ThreadPool& pool) override {
    SumRows(x.rows, weight, pool, [&](int64_t t, absl::Span<float> sum) {
      nibble::NormWeightGradient(norm_options(), x.row_span(t), dy.row_span(t),
                                 sum);
    });
    if (!bias.empty()) BiasGradient(dy, bias, pool);
  }

  // As Decoder does it, with a cache of one page per sequence.
  void Attend(Out qkv, Out attended, ThreadPool& pool) override {
    const int64_t length = shape_.length;
    const int64_t sequences = qkv.rows / length;
    std::vector<AttentionSequence> batch = Sequences(qkv, attended);
    const MatrixView<float> k = qkv.Columns(c_.q_dim(), c_.kv_dim());
    const MatrixView<float> v =
        qkv.Columns(c_.q_dim() + c_.kv_dim(), c_.kv_dim());
    CHECK_EQ(static_cast<int64_t>(batch.size()), sequences);
    ForEachRow(qkv.rows, qkv.cols, pool, [&](int64_t row) {
      const int64_t t = row % length;
      Rotate(t, shape_.sines, qkv.row_span(row));
      StoreKv(k.Rows(row, 1), v.Rows(row, 1), t,
              batch[static_cast<size_t>(row / length)].kv);
    });
    AttentionParams params;
    params.heads = c_.heads;
    params.scale = static_cast<float>(shape_.score_scale);
    params.window = shape_.window;
    if (!shape_.alibi_slopes.empty()) {
      params.alibi_slopes = shape_.alibi_slopes.data();
    }
    Attention(batch, params, pool);
  }

  void AttendGradient(In qkv, In d_attended, Out d_qkv,
                      ThreadPool& pool) override {
    attention_gradient_.Run(shape_, {qkv, d_attended, d_qkv}, pool);
    if (shape_.pairs == 0) return;
    ForEachRow(d_qkv.rows, d_qkv.cols, pool, [&](int64_t row) {
      Rotate(row % shape_.length, back_sines_, d_qkv.row_span(row));
    });
  }

  void InnerGradient(In up, In d_inner, Out d_up, ThreadPool& pool) override {
    const size_t ffn = static_cast<size_t>(c_.ffn);
    ForEachRow(up.rows, up.cols, pool, [&](int64_t t) {
      const absl::Span<const float> pre = up.row_span(t);
      const absl::Span<float> d_pre = d_up.row_span(t);
      if (c_.gated) {
        GatedActivateGradient(c_.activation, pre.first(ffn), pre.subspan(ffn),
                              d_inner.row_span(t), d_pre.first(ffn),
                              d_pre.subspan(ffn));
      } else {
        ActivateGradient(c_.activation, pre, d_inner.row_span(t), d_pre);
      }
    });
  }

  void Copy(In base, Out sum, ThreadPool& pool) override {
    ForEachRow(base.rows, base.cols, pool, [&](int64_t t) {
      std::memcpy(sum.row(t), base.row(t),
                  static_cast<size_t>(base.cols) * sizeof(float));
    });
  }

 private:
  struct Linear {
    GemmOperand forward;   // y = x w^T
    GemmOperand backward;  // dx = dy w
  };

  PackedMatrix Matrix(LinearId id) const {
    const GemmOperand& packed = linears_[static_cast<size_t>(id)].forward;
    return PackedMatrix::View(packed.layout(), packed.data());
  }

  NormOptions norm_options() const {
    return {c_.norm == NormKind::kLayer, c_.norm_eps};
  }

  MatMulOptions Options(Vector bias) const {
    MatMulOptions options;
    options.bias = bias.empty() ? nullptr : bias.data();
    options.activations = shape_.precision == GemmPrecision::kBF16
                              ? Activations::kBF16
                              : Activations::kF32;
    return options;
  }

  // q and k of the token at position t; `sines` may be of the way back.
  void Rotate(int64_t t, const std::vector<float>& sines,
              absl::Span<float> qkv) const {
    const size_t pairs = static_cast<size_t>(shape_.pairs);
    const size_t first = static_cast<size_t>(t) * pairs;
    ApplyRopeHeads(c_.rope.style,
                   absl::MakeConstSpan(shape_.cosines).subspan(first, pairs),
                   absl::MakeConstSpan(sines).subspan(first, pairs),
                   qkv.first(static_cast<size_t>(c_.q_dim() + c_.kv_dim())),
                   c_.head_dim);
  }

  // The sequences of a batch over pages of their own in `pages_`.
  std::vector<AttentionSequence> Sequences(In qkv, Out attended) {
    const int64_t length = shape_.length;
    const size_t sequences = static_cast<size_t>(qkv.rows / length);
    KvView kv;
    kv.dtype = DType::kF32;
    kv.kv_heads = c_.kv_heads;
    kv.head_dim = c_.head_dim;
    kv.page_tokens = length;
    const size_t page = static_cast<size_t>(KvPageBytes(kv));
    if (pages_.size() < 2 * sequences * page) {
      pages_ = AlignedBuffer();
      pages_ = AlignedBuffer(2 * sequences * page);
    }
    page_list_.clear();
    for (size_t i = 0; i < 2 * sequences; ++i) {
      page_list_.push_back(pages_.data() + i * page);
    }
    std::vector<AttentionSequence> batch;
    for (size_t i = 0; i < sequences; ++i) {
      const absl::Span<std::byte* const> pages =
          absl::MakeConstSpan(page_list_).subspan(2 * i, 2);
      kv.key_pages = pages.first(1);
      kv.value_pages = pages.subspan(1);
      const int64_t row = static_cast<int64_t>(i) * length;
      batch.push_back({qkv.Rows(row, length).Columns(0, c_.q_dim()),
                       attended.Rows(row, length), 0, length, kv});
    }
    return batch;
  }

  // sum += add(row) over all rows, in parts of fixed size that are then joined
  // in their order: the bits do not depend on the threads.
  void SumRows(int64_t rows, absl::Span<float> sum, ThreadPool& pool,
               absl::FunctionRef<void(int64_t, absl::Span<float>)> add) {
    constexpr int64_t kPart = 256;
    const int64_t parts = (rows + kPart - 1) / kPart;
    const MatrixView<float> sums =
        sums_.Resize(parts, static_cast<int64_t>(sum.size()));
    pool.ParallelFor(parts, [&](int64_t begin, int64_t end, int) {
      for (int64_t part = begin; part < end; ++part) {
        const absl::Span<float> own = sums.row_span(part);
        std::fill(own.begin(), own.end(), 0.0f);
        const int64_t last = std::min(rows, (part + 1) * kPart);
        for (int64_t row = part * kPart; row < last; ++row) add(row, own);
      }
    });
    for (int64_t part = 0; part < parts; ++part) {
      AddInPlace(sums.row_span(part), sum);
    }
  }

  const BlockShape& shape_;
  const DecoderConfig& c_;
  std::vector<float> back_sines_;  // of the rotation back
  std::array<Linear, kLinearCount> linears_;
  AlignedBuffer pages_;                // [sequences, 2] pages
  std::vector<std::byte*> page_list_;  // into pages_
  AttentionGradient attention_gradient_;
  GrowMatrix<float> sums_;
};

}  // namespace

std::unique_ptr<BlockSteps<float>> MakeFastSteps(const BlockShape& shape) {
  return std::make_unique<FastSteps>(shape);
}

}  // namespace nibble
