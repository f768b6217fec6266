// The steps that a block's passes are made of: fast on floats, plain in double.
//
//   std::unique_ptr<BlockSteps<double>> steps = MakePlainSteps(shape);
//
// Block (block.h) puts them together. Gradients carry the name of what they are
// by: dy is dLoss/dy.
#ifndef NIBBLE_QUANTIZATION_BLOCK_BLOCK_STEPS_H_
#define NIBBLE_QUANTIZATION_BLOCK_BLOCK_STEPS_H_

#include <cstdint>
#include <memory>

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "quantization/block/block_shape.h"  // IWYU pragma: export
#include "quantization/block/block_weights.h"
#include "tensor/view.h"

namespace nibble {

template <class T>
class BlockSteps {
 public:
  using In = MatrixView<const T>;
  using Out = MatrixView<T>;
  using Vector = absl::Span<const T>;

  virtual ~BlockSteps() = default;

  // `gradients`: InputGradient will be called.
  virtual void SetLinear(LinearId id, In weight, bool gradients,
                         ThreadPool& pool) = 0;

  // y = x w^T + bias, or y += that.
  virtual void Product(LinearId id, In x, Vector bias, bool accumulate, Out y,
                       ThreadPool& pool) = 0;
  // inner = act(gate) . up of x's product with kUp, or act(up). The product
  // stays in `up`, if that has memory.
  virtual void Inner(In x, Vector bias, Out up, Out inner,
                     ThreadPool& pool) = 0;
  // dx = dy w, or dx += that.
  virtual void InputGradient(LinearId id, In dy, bool accumulate, Out dx,
                             ThreadPool& pool) = 0;
  // dw = dy^T x, or dw += that.
  virtual void WeightGradient(In dy, In x, bool accumulate, Out dw,
                              ThreadPool& pool) = 0;
  // db += the sum of dy's rows.
  virtual void BiasGradient(In dy, absl::Span<T> db, ThreadPool& pool) = 0;

  virtual void Norm(const BlockNorm<T>& norm, In x, Out y,
                    ThreadPool& pool) = 0;
  // dx = base + the gradient through the norm. `base` may be dx.
  virtual void NormInputGradient(const BlockNorm<T>& norm, In x, In dy, In base,
                                 Out dx, ThreadPool& pool) = 0;
  // Adds to the norm's own gradients; bias may be empty.
  virtual void NormWeightGradient(In x, In dy, absl::Span<T> weight,
                                  absl::Span<T> bias, ThreadPool& pool) = 0;

  // Rotates q and k within qkv and attends. qkv: [tokens, qkv_dim].
  virtual void Attend(Out qkv, Out attended, ThreadPool& pool) = 0;
  // From qkv as Attend left it; d_qkv is by q and k before the rotation.
  virtual void AttendGradient(In qkv, In d_attended, Out d_qkv,
                              ThreadPool& pool) = 0;
  // The gradient by kUp's product from that by its activation.
  virtual void InnerGradient(In up, In d_inner, Out d_up, ThreadPool& pool) = 0;

  // sum = base, row by row.
  virtual void Copy(In base, Out sum, ThreadPool& pool) = 0;
};

// `shape` must outlive the steps.
std::unique_ptr<BlockSteps<float>> MakeFastSteps(const BlockShape& shape);
std::unique_ptr<BlockSteps<double>> MakePlainSteps(const BlockShape& shape);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_BLOCK_BLOCK_STEPS_H_
