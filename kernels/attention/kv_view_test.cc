#include "kernels/attention/kv_view.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/attention/attention_testing.h"
#include "kernels/elementwise/kernel_testing.h"
#include "tensor/bf16.h"

namespace nibble {
namespace {

float Read(const KvView& kv, absl::Span<std::byte* const> pages, int64_t token,
           int64_t head, int64_t i) {
  const int64_t at =
      (head * kv.page_tokens + token % kv.page_tokens) * kv.head_dim + i;
  const std::byte* page = pages[token / kv.page_tokens];
  if (kv.dtype == DType::kF32) return reinterpret_cast<const float*>(page)[at];
  return ToFloat(reinterpret_cast<const BF16*>(page)[at]);
}

TEST(StoreKvTest, TokensLandInTheirPagesRoundedToNearest) {
  NormalNumbers normal(1);
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    const PagedCache cache({dtype, 3, 20, 16, {}, {}}, 50);
    const KvView& kv = cache.view();
    const int64_t tokens = 40, width = 60, stride = 70, first = 7;
    const std::vector<float> keys = normal.Vector(tokens * stride);
    const std::vector<float> values = normal.Vector(tokens * stride);
    StoreKv({keys.data(), tokens, width, stride},
            {values.data(), tokens, width, stride}, first, kv);
    const auto rounded = [&](float v) {
      return dtype == DType::kF32 ? v : ToFloat(ToBF16(v));
    };
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t h = 0; h < 3; ++h) {
        for (int64_t i = 0; i < 20; ++i) {
          const int64_t at = t * stride + h * 20 + i;
          ASSERT_EQ(Read(kv, kv.key_pages, first + t, h, i), rounded(keys[at]));
          ASSERT_EQ(Read(kv, kv.value_pages, first + t, h, i),
                    rounded(values[at]));
        }
      }
    }
    // The neighbours are untouched: still the NaNs of a new cache.
    EXPECT_TRUE(std::isnan(Read(kv, kv.key_pages, first - 1, 0, 0)));
    EXPECT_TRUE(std::isnan(Read(kv, kv.value_pages, first + tokens, 2, 19)));
  }
}

TEST(StoreKvDeathTest, RefusesTokensPastThePages) {
  const PagedCache cache({DType::kF32, 1, 4, 16, {}, {}}, 32);
  const std::vector<float> rows(8, 0.0f);
  EXPECT_DEATH(
      StoreKv({rows.data(), 2, 4}, {rows.data(), 2, 4}, 31, cache.view()),
      "cache of 32");
}

TEST(KvViewTest, PageBytesFollowDtype) {
  EXPECT_EQ(KvPageBytes({DType::kBF16, 3, 64, 16, {}, {}}), 3 * 64 * 16 * 2);
  EXPECT_EQ(KvPageBytes({DType::kF32, 3, 64, 16, {}, {}}), 3 * 64 * 16 * 4);
}

}  // namespace
}  // namespace nibble
