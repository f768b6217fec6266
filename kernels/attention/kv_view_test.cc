#include "kernels/attention/kv_view.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/attention/attention_testing.h"
#include "kernels/attention/int8_page.h"
#include "kernels/attention/quantize_head.h"
#include "kernels/elementwise/kernel_testing.h"
#include "kernels/thread_pool.h"
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

// Element i of a token's key or value as an int8 page holds it.
float ReadInt8(const KvView& kv, bool key, int64_t token, int64_t head,
               int64_t i) {
  const Int8Page layout{kv.kv_heads, kv.head_dim, kv.page_tokens};
  const int64_t slot = token % kv.page_tokens;
  const std::byte* page =
      (key ? kv.key_pages : kv.value_pages)[token / kv.page_tokens];
  const std::byte* group = page + layout.Group(head, slot);
  const int code = key ? static_cast<int>(group[layout.Key(slot, i)]) - 128
                       : static_cast<int8_t>(group[layout.Value(slot, i)]);
  BF16 scale;
  std::memcpy(&scale, page + layout.Scale(head, slot), sizeof(scale));
  return static_cast<float>(code) * ToFloat(scale);
}

float LargestMagnitude(const float* x, int64_t count) {
  float largest = 0.0f;
  for (int64_t i = 0; i < count; ++i) {
    largest = std::max(largest, std::fabs(x[i]));
  }
  return largest;
}

TEST(StoreKvTest, Int8IsWithinHalfAStepOfEveryElement) {
  NormalNumbers normal(2);
  for (int64_t dim : {1, 6, 16, 20, 33, 64, 80, 128}) {
    const PagedCache cache({DType::kI8, 3, dim, 32, {}, {}}, 100);
    const KvView& kv = cache.view();
    const int64_t tokens = 77, width = 3 * dim, first = 13;
    const std::vector<float> keys = normal.Vector(tokens * width);
    const std::vector<float> values = normal.Vector(tokens * width);
    StoreKv({keys.data(), tokens, width}, {values.data(), tokens, width}, first,
            kv);
    for (int64_t row = 0; row < tokens * 3; ++row) {
      for (bool key : {true, false}) {
        const float* x = (key ? keys : values).data() + row * dim;
        // A step is amax / 127, at most 2^-7 more in bf16, which has 8 bits.
        const float step = LargestMagnitude(x, dim) / 127.0f * (1 + 0x1p-7f);
        for (int64_t i = 0; i < dim; ++i) {
          ASSERT_NEAR(ReadInt8(kv, key, first + row / 3, row % 3, i), x[i],
                      0.5f * step * (1 + 0x1p-20f))
              << "dim " << dim << " row " << row << " at " << i;
        }
      }
    }
    EXPECT_TRUE(std::isnan(ReadInt8(kv, true, first - 1, 0, 0)));
    EXPECT_TRUE(std::isnan(ReadInt8(kv, false, first + tokens, 2, dim - 1)));
  }
}

TEST(StoreKvTest, SameBytesWhetherTokensComeTogetherOrApartOrInParallel) {
  const int64_t tokens = 150, width = 4 * 64;
  NormalNumbers normal(3);
  const std::vector<float> keys = normal.Vector(tokens * width);
  const std::vector<float> values = normal.Vector(tokens * width);
  const MatrixView<const float> k(keys.data(), tokens, width);
  const MatrixView<const float> v(values.data(), tokens, width);
  ThreadPool pool(3);
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kI8}) {
    const KvView shape{dtype, 4, 64, 64, {}, {}};
    const PagedCache together(shape, tokens), apart(shape, tokens),
        parallel(shape, tokens);
    StoreKv(k, v, 0, together.view());
    for (int64_t t = 0; t < tokens; ++t) {
      StoreKv(k.Rows(t, 1), v.Rows(t, 1), t, apart.view());
    }
    StoreKv(k, v, 0, parallel.view(), pool);
    const size_t bytes = static_cast<size_t>(KvPageBytes(shape));
    for (size_t page = 0; page < together.view().key_pages.size(); ++page) {
      for (const PagedCache* other : {&apart, &parallel}) {
        EXPECT_EQ(std::memcmp(together.view().key_pages[page],
                              other->view().key_pages[page], bytes),
                  0);
        EXPECT_EQ(std::memcmp(together.view().value_pages[page],
                              other->view().value_pages[page], bytes),
                  0);
      }
    }
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
  // 3 * 16 * 66 = 3168, and 2 * 16 * (32 + 2) = 1088 with the head padded.
  EXPECT_EQ(KvPageBytes({DType::kI8, 3, 64, 16, {}, {}}), 3200);
  EXPECT_EQ(KvPageBytes({DType::kI8, 2, 20, 16, {}, {}}), 1088);
}

class QuantizeHeadTest : public VariantTest<QuantizeHeadKernels> {};
INSTANTIATE_VARIANTS(QuantizeHeadTest, QuantizeHeadTable());

TEST_P(QuantizeHeadTest, SameBitsAsTheReferenceForEverySizeAndMagnitude) {
  NormalNumbers normal(4);
  for (int64_t size : SweepSizes()) {
    for (float factor : {0.0f, 1e-35f, 0x1p-101f, 1e-20f, 1.0f, 1e37f}) {
      for (int offset : {0, 3}) {
        Misaligned x(normal.Vector(size, factor), offset);
        std::vector<int8_t> expected(size), got(size, 55);
        const BF16 scale =
            QuantizeHeadTable()[0].quantize(x.data(), size, expected.data());
        EXPECT_EQ(kernels().quantize(x.data(), size, got.data()), scale);
        EXPECT_EQ(got, expected) << size << " times " << factor;
      }
    }
  }
}

TEST_P(QuantizeHeadTest, NothingClipsAndTheLargestUsesTheRange) {
  NormalNumbers normal(5);
  for (int trial = 0; trial < 200; ++trial) {
    const std::vector<float> x = normal.Vector(64);
    std::vector<int8_t> codes(64);
    const float scale = ToFloat(kernels().quantize(x.data(), 64, codes.data()));
    int largest = 0;
    for (size_t i = 0; i < 64; ++i) {
      ASSERT_NEAR(codes[i] * scale, x[i], 0.5f * scale * (1 + 0x1p-20f));
      largest = std::max(largest, std::abs(int{codes[i]}));
    }
    EXPECT_LE(largest, 127);
    EXPECT_GE(largest, 125);  // 127 / (1 + 2^-7)
  }
}

TEST_P(QuantizeHeadTest, NanOrInfinityAnywhereMakesTheScaleNan) {
  const float inf = std::numeric_limits<float>::infinity();
  for (float poison : {std::nanf(""), -std::nanf(""), inf, -inf}) {
    for (size_t at : {0, 15, 16, 18}) {
      std::vector<float> x = NormalNumbers(6).Vector(19);
      x[at] = poison;
      std::vector<int8_t> codes(19, 1);
      EXPECT_TRUE(
          std::isnan(ToFloat(kernels().quantize(x.data(), 19, codes.data()))));
      EXPECT_EQ(codes, std::vector<int8_t>(19, 0));
    }
  }
}

}  // namespace
}  // namespace nibble
