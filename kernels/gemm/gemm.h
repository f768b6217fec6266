// Products of two float matrices, any of them transposed: what training needs
// beside MatMul (kernels/matmul), whose weights are packed beforehand.
//
//   GemmOptions bf16{.precision = GemmPrecision::kBF16};
//   GemmNT(x, w, {}, y, pool);      // y  [m, n] = x [m, k] w [n, k]^T
//   GemmNN(dy, w, bf16, dx, pool);  // dx [m, n] = dy [m, k] w [k, n]
//   GemmTN(dy, x, bf16, dw, pool);  // dw [m, n] = dy [k, m]^T x [k, n]
//   Syrk(x, {}, h, pool);           // h  [n, n] = x [k, n]^T x
//
// A second factor of many products is packed once:
//
//   GemmOperand transposed;
//   transposed.Pack(GemmForm::kNN, w, GemmPrecision::kBF16, pool);
//   GemmPacked(dy, transposed, /*accumulate=*/false, dx, pool);
//
// The bits of a result do not depend on the number of threads, nor on which of
// these functions computed it. Sums are f32 in the order of MatMul
// (kernels/matmul/matmul.h), whose bounds hold; each is added to c once.
// Scratch memory comes from the pool: at most about 100 MiB for k up to 64 Ki,
// above in proportion to k, of which some rows are packed whole.
#ifndef NIBBLE_KERNELS_GEMM_GEMM_H_
#define NIBBLE_KERNELS_GEMM_GEMM_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "tensor/buffer.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"

namespace nibble {

// kBF16: both factors are rounded to bf16 first, products and sums stay f32; up
// to twice as fast where the processor has AVX512_BF16 or AMX.
enum class GemmPrecision { kF32, kBF16 };

struct GemmOptions {
  GemmPrecision precision = GemmPrecision::kF32;
  bool accumulate = false;  // c += product
};

// c = a b^T. a: [m, k], b: [n, k], c: [m, n], each with any stride.
// REQUIRES, here and below: sizes agree and are positive; c overlaps no input.
void GemmNT(MatrixView<const float> a, MatrixView<const float> b,
            const GemmOptions& options, MatrixView<float> c, ThreadPool& pool);

// c = a b. a: [m, k], b: [k, n], c: [m, n].
void GemmNN(MatrixView<const float> a, MatrixView<const float> b,
            const GemmOptions& options, MatrixView<float> c, ThreadPool& pool);

// c = a^T b. a: [k, m], b: [k, n], c: [m, n].
void GemmTN(MatrixView<const float> a, MatrixView<const float> b,
            const GemmOptions& options, MatrixView<float> c, ThreadPool& pool);

// The same into doubles, to sum up over many calls: each call's sums are f32,
// so k should not exceed some thousands.
void GemmTN(MatrixView<const float> a, MatrixView<const float> b,
            const GemmOptions& options, MatrixView<double> c, ThreadPool& pool);

// h = x^T x, both triangles, bit for bit symmetric where the old h is. x: [k,
// n], h: [n, n]. Half the work of GemmTN.
void Syrk(MatrixView<const float> x, const GemmOptions& options,
          MatrixView<float> h, ThreadPool& pool);

// The same into doubles, on and above the diagonal only: what is below is not
// touched.
void SyrkUpper(MatrixView<const float> x, const GemmOptions& options,
               MatrixView<double> h, ThreadPool& pool);

enum class GemmForm { kNT, kNN, kTN };

// One product of a batch. Shapes as above.
struct GemmProduct {
  MatrixView<const float> a;
  MatrixView<const float> b;
  MatrixView<float> c;
};

// Each of `products` on one thread: for many small ones, as an attention's
// heads are. Sizes may differ. Scratch takes the packed factors of one product
// per thread. REQUIRES: no c overlaps another one.
void GemmBatch(GemmForm form, absl::Span<const GemmProduct> products,
               const GemmOptions& options, ThreadPool& pool);

// The second factor b of products that share it, packed. Move-only. Takes as
// many bytes as b, or half of them in bf16.
class GemmOperand {
 public:
  // Keeps its memory from one call to the next where it suffices. b: [n, k] of
  // kNT, [k, n] of kNN. REQUIRES: form != kTN.
  void Pack(GemmForm form, MatrixView<const float> b, GemmPrecision precision,
            ThreadPool& pool);

  int64_t n() const { return layout_.outputs; }
  int64_t k() const { return layout_.inputs; }
  GemmPrecision precision() const {
    return layout_.format == WeightFormat::kF32 ? GemmPrecision::kF32
                                                : GemmPrecision::kBF16;
  }
  const PackedLayout& layout() const { return layout_; }
  const std::byte* data() const { return memory_.data(); }

 private:
  PackedLayout layout_;
  AlignedBuffer memory_;
};

// c = a b, in the operand's precision. a: [m, b.k()], c: [m, b.n()].
void GemmPacked(MatrixView<const float> a, const GemmOperand& b,
                bool accumulate, MatrixView<float> c, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_GEMM_GEMM_H_
