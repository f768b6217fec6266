// Matrices that stay floats while a transform changes them: what they hold in
// the end, and where their rows are.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/convert/convert.h"
#include "models/checkpoint.h"
#include "models/coded_values.h"
#include "quantization/calibrated/calibrated_flow.h"
#include "quantization/calibrated/calibrated_test_fixture.h"
#include "tensor/bf16.h"
#include "tensor/coded_matrix.h"
#include "tensor/dtype.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;

constexpr int64_t kHeadDim = 16, kHeads = 4;

using Rows = std::vector<std::vector<float>>;

Rows RowsOf(const TensorSource& tensors, const std::string& name) {
  Rows rows;
  if (const CodedMatrix* codes = tensors.FindCoded(name); codes != nullptr) {
    CodedReader reader(*codes);
    for (int64_t i = 0; i < codes->form().outputs; ++i) {
      rows.emplace_back(static_cast<size_t>(codes->form().inputs));
      reader.Read(i, 1, absl::MakeSpan(rows.back()));
    }
    return rows;
  }
  const auto view = tensors.Find(name);
  EXPECT_THAT(view, IsOk());
  for (int64_t i = 0; view.ok() && i < view->shape.dim(0); ++i) {
    rows.emplace_back(static_cast<size_t>(view->shape.dim(1)));
    EXPECT_THAT(ConvertRowToF32(*view, i, absl::MakeSpan(rows.back())), IsOk());
  }
  return rows;
}

// c where `row` is c * before, in bf16.
double FactorOf(const std::vector<float>& row,
                const std::vector<float>& before) {
  double product = 0, square = 0;
  for (size_t j = 0; j < row.size(); ++j) {
    product += double{row[j]} * before[j];
    square += double{before[j]} * before[j];
  }
  const double factor = product / square;
  for (size_t j = 0; j < row.size(); ++j) {
    const double want = factor * before[j];
    // bf16 rounds by up to 2^-8, and the factor has the mean of 64 such errors.
    EXPECT_NEAR(row[j], want, 1.25 * 0x1p-8 * std::abs(want)) << "input " << j;
  }
  return factor;
}

void ExpectUnchanged(const std::vector<float>& row,
                     const std::vector<float>& before) {
  for (size_t j = 0; j < row.size(); ++j) {
    ASSERT_EQ(row[j], ToFloat(ToBF16(before[j]))) << "input " << j;
  }
}

class CalibratedKept : public CalibratedTest {
 protected:
  // The rows of v, in the order of KV heads; the others are checked.
  void SplitQkv(const TensorSource& result, bool interleaved, Rows& values,
                Rows& before) {
    const std::vector<RowRange>& ranges =
        checkpoint_.names.layers[0].qkv.weight;
    if (!interleaved) {
      ASSERT_EQ(ranges.size(), 3u);
      for (size_t part : {0, 1}) {
        const Rows got = RowsOf(result, ranges[part].tensor);
        const Rows want = RowsOf(*checkpoint_.tensors, ranges[part].tensor);
        for (size_t i = 0; i < got.size(); ++i) {
          ExpectUnchanged(got[i], want[i]);
        }
      }
      values = RowsOf(result, ranges[2].tensor);
      before = RowsOf(*checkpoint_.tensors, ranges[2].tensor);
      return;
    }
    // Of each head, its rows of q, of k, of v.
    const Rows got = RowsOf(result, ranges[0].tensor);
    const Rows want = RowsOf(*checkpoint_.tensors, ranges[0].tensor);
    ASSERT_EQ(got.size(), static_cast<size_t>(3 * kHeads * kHeadDim));
    for (size_t i = 0; i < got.size(); ++i) {
      if (i % (3 * kHeadDim) < 2 * kHeadDim) {
        ExpectUnchanged(got[i], want[i]);
      } else {
        values.push_back(got[i]);
        before.push_back(want[i]);
      }
    }
  }

  // Column j of the matrix behind the values has what their rows have lost.
  void ExpectTakenOver(const TensorSource& result,
                       const std::vector<double>& factors) {
    const std::string& name =
        checkpoint_.names.layers[0].attention.weight[0].tensor;
    const Rows got = RowsOf(result, name);
    const Rows before = RowsOf(*checkpoint_.tensors, name);
    const int64_t sharing =
        kHeads * kHeadDim / static_cast<int64_t>(factors.size());
    double error = 0, square = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      for (size_t j = 0; j < got[i].size(); ++j) {
        const size_t head = j / kHeadDim / static_cast<size_t>(sharing);
        const double want =
            before[i][j] / factors[head * kHeadDim + j % kHeadDim];
        error += (got[i][j] - want) * (got[i][j] - want);
        square += want * want;
      }
    }
    // 4 bits lose 0.07 of uniform weights, and clipping and columns of other
    // scales some more.
    EXPECT_LT(std::sqrt(error / square), 0.2);
  }
};

TEST_F(CalibratedKept, HoldsTheFoldedWeights) {
  for (const char* family : {"llama", "gpt_neox"}) {
    OpenFamily(family);
    const LayerTensors& names = checkpoint_.names.layers[0];
    for (const char* transform :
         {"transform: AWQ", "transform: TEQ teq { iterations: 2 batch: 2 }"}) {
      SCOPED_TRACE(absl::StrCat(family, ": ", transform));
      const auto result =
          Quantize(absl::StrCat("grid { group_size: 32 } ", transform,
                                " layers { pattern: \"qkv|down\" bits: 16 } "
                                "calibration { samples: 12 length: 24 }"),
                   Options());
      ASSERT_THAT(result, IsOk());
      const TensorSource& tensors = *result->checkpoint.tensors;
      for (const RowRange& range :
           {names.qkv.weight[0], names.down.weight[0]}) {
        EXPECT_EQ(tensors.FindCoded(range.tensor), nullptr);
        const auto view = tensors.Find(range.tensor);
        ASSERT_THAT(view, IsOk());
        EXPECT_EQ(view->dtype, DType::kBF16);
      }
      const std::string& down = names.down.weight[0].tensor;
      const Rows got = RowsOf(tensors, down);
      const Rows want = RowsOf(*checkpoint_.tensors, down);
      ASSERT_EQ(got.size(), want.size());
      for (size_t i = 0; i < got.size(); ++i) ExpectUnchanged(got[i], want[i]);

      Rows values, before;
      SplitQkv(tensors, std::string(family) == "gpt_neox", values, before);
      ASSERT_EQ(values.size(), before.size());
      std::vector<double> factors;
      bool changed = false;
      for (size_t i = 0; i < values.size(); ++i) {
        factors.push_back(FactorOf(values[i], before[i]));
        changed |= std::abs(factors.back() - 1) > 0.05;
      }
      EXPECT_TRUE(changed);
      ExpectTakenOver(tensors, factors);
      EXPECT_THAT(result->work.Remove(), IsOk());
    }
  }
}

}  // namespace
}  // namespace nibble
