#include "kernels/gradient/gradient_kernels.h"

#include <cmath>
#include <cstddef>
#include <limits>

#include "kernels/elementwise/simd_targets.h"
#include "kernels/gradient/reference.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gradient/gradient_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once per target.
#include "hwy/highway.h"
#include "kernels/elementwise/exp-inl.h"
#include "kernels/elementwise/normal_cdf-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using V = hn::Vec<F32>;

// Calls body(i, load, store) for whole vectors of [0, n) and for the tail,
// whose missing lanes load as zeros.
template <class Body>
HWY_INLINE void ForVectors(int64_t n, Body body) {
  const F32 d;
  const size_t N = hn::Lanes(d);
  const size_t size = static_cast<size_t>(n);
  size_t i = 0;
  for (; i + N <= size; i += N) {
    body([&](const float* p) { return hn::LoadU(d, p + i); },
         [&](V v, float* p) { hn::StoreU(v, d, p + i); });
  }
  if (i < size) {
    body([&](const float* p) { return hn::LoadN(d, p + i, size - i); },
         [&](V v, float* p) { hn::StoreN(v, d, p + i, size - i); });
  }
}

// ---- Activations: each is x gate(x), so that act' = gate + x gate'.

struct GateAndSlope {
  V gate;
  V slope;
};

// The gate and its derivative of sigmoid(u), where du/dx is `inner`. With e =
// exp(-u), 1 - gate is e gate, without cancellation. Where e is large the
// derivative is zero, and infinity times zero would be no number.
HWY_INLINE GateAndSlope SigmoidOf(V minus_u, V inner) {
  const F32 d;
  const V one = hn::Set(d, 1.0f);
  const V e = Exp(d, minus_u);
  const V gate = hn::Div(one, hn::Add(one, e));
  const V bounded = hn::IfThenElseZero(hn::Lt(e, hn::Set(d, 1e30f)), e);
  return {gate, hn::Mul(hn::Mul(inner, gate), hn::Mul(bounded, gate))};
}

struct Silu {
  HWY_INLINE GateAndSlope operator()(V x) const {
    return SigmoidOf(hn::Neg(x), hn::Set(F32(), 1.0f));
  }
};

struct Gelu {
  HWY_INLINE GateAndSlope operator()(V x) const {
    const F32 d;
    // Past 20 the density is zero, and the square must not overflow.
    const V size = hn::Min(hn::Abs(x), hn::Set(d, 20.0f));
    const V square = hn::Mul(hn::Mul(size, size), hn::Set(d, -0.5f));
    return {NormalCdf(d, x),
            hn::Mul(ExpNonPositive(d, square), hn::Set(d, 0.398942280f))};
  }
};

struct GeluTanh {
  HWY_INLINE GateAndSlope operator()(V x) const {
    const F32 d;
    // Past 20 the gate is 0 or 1, and the cube must not overflow.
    const V limit = hn::Set(d, 20.0f);
    x = hn::Min(hn::Max(x, hn::Neg(limit)), limit);
    const V square = hn::Mul(x, x);
    const V linear = hn::Set(d, 1.5957691216f);  // sqrt(8 / pi)
    const V cubic = hn::Set(d, 0.0713548163f);   // times 0.044715
    const V u = hn::Mul(x, hn::MulAdd(square, cubic, linear));
    const V inner =
        hn::MulAdd(square, hn::Mul(cubic, hn::Set(d, 3.0f)), linear);
    return SigmoidOf(hn::Neg(u), inner);
  }
};

struct QuickGelu {
  HWY_INLINE GateAndSlope operator()(V x) const {
    const V factor = hn::Set(F32(), 1.702f);
    return SigmoidOf(hn::Neg(hn::Mul(x, factor)), factor);
  }
};

template <class Gate>
void Activate(const float* x, const float* dy, int64_t n, float* dx) {
  ForVectors(n, [&](auto load, auto store) {
    const V v = load(x);
    const GateAndSlope g = Gate()(v);
    store(hn::Mul(load(dy), hn::MulAdd(v, g.slope, g.gate)), dx);
  });
}

template <class Gate>
void Gated(const float* gate, const float* up, const float* dy, int64_t n,
           float* d_gate, float* d_up) {
  ForVectors(n, [&](auto load, auto store) {
    const V v = load(gate);
    const V d = load(dy);
    const GateAndSlope g = Gate()(v);
    store(hn::Mul(hn::Mul(d, load(up)), hn::MulAdd(v, g.slope, g.gate)),
          d_gate);
    store(hn::Mul(d, hn::Mul(v, g.gate)), d_up);
  });
}

// ---- Norms

// The sum of term(load) over a row, in two vectors of partial sums. Terms of
// lanes past the end must be zeros, as they are where a factor was loaded.
template <class Term>
HWY_INLINE float SumOf(int64_t n, Term term) {
  const F32 d;
  V even = hn::Zero(d), odd = hn::Zero(d);
  ForVectors(n, [&](auto load, auto) {
    const V sum = term(load, odd);
    odd = even;
    even = sum;
  });
  return hn::ReduceSum(d, hn::Add(even, odd));
}

struct Moments {
  float mean;
  float inverse;
};

HWY_INLINE Moments MomentsOf(const NormGradientRow& row) {
  const float n = static_cast<float>(row.n);
  float mean = 0.0f;
  if (row.centred) {
    mean = SumOf(row.n,
                 [&](auto load, V sum) { return hn::Add(load(row.x), sum); }) /
           n;
  }
  const F32 d;
  const size_t N = hn::Lanes(d);
  // Not SumOf: where the mean is taken off, lanes past the end are not zero.
  V sum = hn::Zero(d);
  const V centre = hn::Set(d, mean);
  const size_t size = static_cast<size_t>(row.n);
  size_t i = 0;
  for (; i + N <= size; i += N) {
    const V u = hn::Sub(hn::LoadU(d, row.x + i), centre);
    sum = hn::MulAdd(u, u, sum);
  }
  if (i < size) {
    const V u = hn::Sub(hn::LoadNOr(centre, d, row.x + i, size - i), centre);
    sum = hn::MulAdd(u, u, sum);
  }
  return {mean, 1.0f / std::sqrt(hn::ReduceSum(d, sum) / n + row.eps)};
}

void Norm(const NormGradientRow& row, const float* base, float* dx) {
  const F32 d;
  const Moments m = MomentsOf(row);
  const float n = static_cast<float>(row.n);
  const V centre = hn::Set(d, m.mean);
  const V inverse = hn::Set(d, m.inverse);
  float sum = 0.0f;
  if (row.centred) {
    sum = SumOf(row.n, [&](auto load, V s) {
      return hn::MulAdd(load(row.dy), load(row.weight), s);
    });
  }
  const float along = SumOf(row.n, [&](auto load, V s) {
    const V u = hn::Sub(load(row.x), centre);
    return hn::MulAdd(hn::Mul(load(row.dy), load(row.weight)), u, s);
  });
  const V mean = hn::Set(d, sum / n);
  const V slope = hn::Set(d, along * m.inverse * m.inverse / n);
  ForVectors(row.n, [&](auto load, auto store) {
    const V u = hn::Sub(load(row.x), centre);
    const V g = hn::MulSub(load(row.dy), load(row.weight), mean);
    store(hn::MulAdd(inverse, hn::NegMulAdd(u, slope, g), load(base)), dx);
  });
}

void NormWeight(const NormGradientRow& row, float* weight) {
  const F32 d;
  const Moments m = MomentsOf(row);
  const V centre = hn::Set(d, m.mean);
  const V inverse = hn::Set(d, m.inverse);
  ForVectors(row.n, [&](auto load, auto store) {
    const V u = hn::Mul(hn::Sub(load(row.x), centre), inverse);
    store(hn::MulAdd(load(row.dy), u, load(weight)), weight);
  });
}

// ---- Softmax

void AttentionWeights(float scale, float slope, int64_t n, float* scores) {
  const F32 d;
  const size_t N = hn::Lanes(d);
  const size_t size = static_cast<size_t>(n);
  const V factor = hn::Set(d, scale);
  const V low = hn::Set(d, -std::numeric_limits<float>::infinity());
  V top = low;
  size_t i = 0;
  const auto score = [&](V s) {
    const V j = hn::Iota(d, static_cast<float>(i));
    return hn::MulAdd(s, factor, hn::Mul(j, hn::Set(d, slope)));
  };
  for (; i + N <= size; i += N) {
    const V s = score(hn::LoadU(d, scores + i));
    hn::StoreU(s, d, scores + i);
    top = hn::Max(top, s);
  }
  if (i < size) {
    const V s = score(hn::LoadN(d, scores + i, size - i));
    hn::StoreN(s, d, scores + i, size - i);
    top = hn::Max(top, hn::IfThenElse(hn::FirstN(d, size - i), s, low));
  }
  const V max = hn::Set(d, hn::ReduceMax(d, top));
  V sum = hn::Zero(d);
  for (i = 0; i + N <= size; i += N) {
    const V e = ExpNonPositive(d, hn::Sub(hn::LoadU(d, scores + i), max));
    hn::StoreU(e, d, scores + i);
    sum = hn::Add(sum, e);
  }
  if (i < size) {
    const V s = hn::LoadN(d, scores + i, size - i);
    const V e = hn::IfThenElseZero(hn::FirstN(d, size - i),
                                   ExpNonPositive(d, hn::Sub(s, max)));
    hn::StoreN(e, d, scores + i, size - i);
    sum = hn::Add(sum, e);
  }
  const V inverse = hn::Set(d, 1.0f / hn::ReduceSum(d, sum));
  ForVectors(n, [&](auto load, auto store) {
    store(hn::Mul(load(scores), inverse), scores);
  });
}

void Score(const float* weights, float scale, int64_t n, float* d_weights) {
  const F32 d;
  const V mean =
      hn::Set(d, SumOf(n, [&](auto load, V sum) {
                return hn::MulAdd(load(weights), load(d_weights), sum);
              }));
  const V factor = hn::Set(d, scale);
  ForVectors(n, [&](auto load, auto store) {
    const V w = hn::Mul(load(weights), factor);
    store(hn::Mul(w, hn::Sub(load(d_weights), mean)), d_weights);
  });
}

}  // namespace

GradientKernels GradientRow(const char* name, Isa isa) {
  return {name,
          isa,
          {&Activate<Silu>, &Activate<Gelu>, &Activate<GeluTanh>,
           &Activate<QuickGelu>},
          {&Gated<Silu>, &Gated<Gelu>, &Gated<GeluTanh>, &Gated<QuickGelu>},
          &Norm,
          &NormWeight,
          &AttentionWeights,
          &Score};
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/elementwise/simd_rows.h"

namespace nibble {

absl::Span<const GradientKernels> GradientTable() {
  static const GradientKernels kTable[] = {
      {"scalar",
       Isa::kScalar,
       {&reference::ActivateGradient<Activation::kSilu>,
        &reference::ActivateGradient<Activation::kGelu>,
        &reference::ActivateGradient<Activation::kGeluTanh>,
        &reference::ActivateGradient<Activation::kQuickGelu>},
       {&reference::GatedActivateGradient<Activation::kSilu>,
        &reference::GatedActivateGradient<Activation::kGelu>,
        &reference::GatedActivateGradient<Activation::kGeluTanh>,
        &reference::GatedActivateGradient<Activation::kQuickGelu>},
       &reference::NormGradient,
       &reference::NormWeightGradient,
       &reference::AttentionWeights,
       &reference::ScoreGradient},
      NIBBLE_SIMD_ROWS(GradientRow)};
  return kTable;
}

}  // namespace nibble
#endif  // HWY_ONCE
