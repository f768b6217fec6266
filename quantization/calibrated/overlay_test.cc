#include "quantization/calibrated/overlay.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/registry.h"
#include "quantization/block/block_weights.h"
#include "quantization/block/load_block.h"
#include "quantization/calibrated/block_file.h"
#include "quantization/export/export_test_models.h"
#include "tensor/bf16.h"
#include "tensor/view.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;

class OverlayTest : public ::testing::Test {
 protected:
  // All matrices as floats, as if a transform had changed them.
  void Overlay(const std::string& family) {
    const std::string folder = testing::ExportTestFolder();
    testing::WriteFamily(family, folder + "/model");
    auto checkpoint = OpenCheckpoint(folder + "/model");
    ASSERT_THAT(checkpoint, IsOk());
    checkpoint_ = *std::move(checkpoint);
    blocks_.clear();
    for (int64_t layer = 0; layer < checkpoint_.config.layers; ++layer) {
      const auto weights = LoadBlock(checkpoint_, layer, pool_);
      ASSERT_THAT(weights, IsOk());
      FinishedBlock finished;
      finished.transformed = &*weights;
      finished.report.set_layer(layer);
      const std::string path = absl::StrCat(folder, "/block-", layer, ".nib");
      ASSERT_THAT(WriteBlock(path, finished), IsOk());
      auto block = BlockFile::Open(path);
      ASSERT_THAT(block, IsOk());
      blocks_.push_back(*std::move(block));
    }
    auto result = OverlayCheckpoint(checkpoint_, blocks_, std::nullopt, pool_);
    ASSERT_THAT(result, IsOk());
    result_ = *std::move(result);
  }

  TensorView Find(const std::string& name) {
    const auto view = result_.tensors->Find(name);
    EXPECT_THAT(view, IsOk());
    return view.ok() ? *view : TensorView();
  }

  template <class T>
  static const std::byte* BytesOf(absl::Span<const T> values) {
    return reinterpret_cast<const std::byte*>(values.data());
  }

  ThreadPool pool_{2};
  Checkpoint checkpoint_;
  std::vector<std::shared_ptr<const BlockFile>> blocks_;
  Checkpoint result_;
};

TEST_F(OverlayTest, FloatsStayInTheMappedBlocks) {
  Overlay("llama");
  const LayerTensors& names = checkpoint_.names.layers[1];
  const BlockFile& block = *blocks_[1];
  for (const auto& [linear, id] :
       {std::pair(&names.qkv, LinearId::kQkv),
        std::pair(&names.attention, LinearId::kAttention),
        std::pair(&names.up, LinearId::kUp),
        std::pair(&names.down, LinearId::kDown)}) {
    const std::byte* next = BytesOf(block.floats(id));
    for (const RowRange& range : linear->weight) {
      const TensorView view = Find(range.tensor);
      EXPECT_EQ(view.shape.dim(0), range.rows);
      EXPECT_EQ(view.data, next) << range.tensor;
      next += view.bytes;
    }
  }
  EXPECT_EQ(Find(names.mlp_norm.weight).data,
            BytesOf(block.norm("mlp_norm.weight")));
}

TEST_F(OverlayTest, RowsThatLieApartAreGathered) {
  Overlay("gpt_neox");
  const LayerTensors& names = checkpoint_.names.layers[0];
  const absl::Span<const BF16> stored = blocks_[0]->floats(LinearId::kQkv);
  const TensorView view = Find(names.qkv.weight[0].tensor);
  const absl::Span<const BF16> values = view.As<BF16>();
  const TensorView bias = Find(names.qkv.bias[0].tensor);
  ASSERT_EQ(values.size(), stored.size());
  constexpr size_t kHeadDim = 16, kHidden = 64;
  for (size_t row = 0; row < 3 * kHidden; ++row) {
    const size_t head = row / (3 * kHeadDim);
    const size_t part = row / kHeadDim % 3;  // q, k or v
    const size_t from = part * kHidden + head * kHeadDim + row % kHeadDim;
    for (size_t j = 0; j < kHidden; ++j) {
      ASSERT_EQ(ToFloat(values[row * kHidden + j]),
                ToFloat(stored[from * kHidden + j]));
    }
    EXPECT_EQ(bias.As<float>()[row], blocks_[0]->bias(LinearId::kQkv)[from]);
  }
  EXPECT_EQ(Find(names.down.weight[0].tensor).data,
            BytesOf(blocks_[0]->floats(LinearId::kDown)));
}

}  // namespace
}  // namespace nibble
