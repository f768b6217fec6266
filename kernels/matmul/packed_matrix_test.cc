#include "kernels/matmul/packed_matrix.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/convert/convert.h"
#include "kernels/matmul/test_matrices.h"
#include "tensor/bf16.h"
#include "tensor/packed_layout.h"
#include "tensor/shape.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

TensorView View(DType dtype, int64_t outputs, int64_t inputs,
                const std::vector<uint8_t>& bytes) {
  return TensorView{dtype, *Shape::Create({outputs, inputs}),
                    reinterpret_cast<const std::byte*>(bytes.data()),
                    bytes.size()};
}

// Tiles of 16 outputs; of each, lines of 16 words of 4 bytes.
template <class T>
T At(const PackedMatrix& packed, int64_t output, int64_t input) {
  constexpr int64_t kPerWord = 4 / sizeof(T);
  const int64_t lines = (packed.inputs() + kPerWord - 1) / kPerWord;
  T value;
  std::memcpy(&value,
              packed.data() + (output / 16 * lines + input / kPerWord) * 64 +
                  output % 16 * 4 + input % kPerWord * sizeof(T),
              sizeof(value));
  return value;
}

TEST(PackedMatrix, LaysOutF32StepByStep) {
  ThreadPool pool(2);
  const std::vector<float> w = RandomValues(35 * 18, 1);
  const PackedMatrix packed = Pack(w, 35, 18, WeightFormat::kF32, pool);
  EXPECT_EQ(packed.outputs(), 35);
  EXPECT_EQ(packed.inputs(), 18);
  ASSERT_EQ(packed.bytes(), size_t{3 * 18 * 64});
  for (int64_t n = 0; n < 35; ++n) {
    for (int64_t k = 0; k < 18; ++k) {
      ASSERT_EQ(At<float>(packed, n, k), w[n * 18 + k]);
    }
  }
}

TEST(PackedMatrix, LaysOutBF16InPairs) {
  ThreadPool pool(2);
  const std::vector<float> w = RandomValues(20 * 7, 1);
  const PackedMatrix packed = Pack(w, 20, 7, WeightFormat::kBF16, pool);
  ASSERT_EQ(packed.bytes(), size_t{2 * 4 * 64});
  for (int64_t n = 0; n < 20; ++n) {
    for (int64_t k = 0; k < 7; ++k) {
      ASSERT_EQ(At<BF16>(packed, n, k).bits, ToBF16(w[n * 7 + k]).bits);
    }
  }
  // By hand: tile 1, step 2 holds k = 4 and 5 of outputs 16 to 31.
  BF16 pair[2];
  std::memcpy(pair, packed.data() + 1 * 4 * 64 + 2 * 64 + 3 * 4, sizeof(pair));
  EXPECT_EQ(pair[0].bits, ToBF16(w[19 * 7 + 4]).bits);
  EXPECT_EQ(pair[1].bits, ToBF16(w[19 * 7 + 5]).bits);
}

TEST(PackedMatrix, PadsOutputsAndTheOddInputWithZeros) {
  ThreadPool pool(1);
  const std::vector<float> w(3 * 5, 1.0f);
  for (WeightFormat dtype : {WeightFormat::kF32, WeightFormat::kBF16}) {
    const PackedMatrix packed = Pack(w, 3, 5, dtype, pool);
    const int64_t value_bytes = dtype == WeightFormat::kF32 ? 4 : 2;
    const int64_t slots = static_cast<int64_t>(packed.bytes()) / value_bytes;
    int64_t set = 0;
    for (int64_t i = 0; i < slots; ++i) {
      const std::vector<std::byte> zero(value_bytes);
      set += std::memcmp(packed.data() + i * value_bytes, zero.data(),
                         value_bytes) != 0;
    }
    EXPECT_EQ(set, 3 * 5);
  }
}

TEST(PackedMatrix, IsTheSameForAnyNumberOfThreads) {
  ThreadPool one(1), three(3);
  const std::vector<float> w = RandomValues(100 * 33, 1);
  for (WeightFormat dtype : {WeightFormat::kF32, WeightFormat::kBF16}) {
    const PackedMatrix a = Pack(w, 100, 33, dtype, one);
    const PackedMatrix b = Pack(w, 100, 33, dtype, three);
    ASSERT_EQ(a.bytes(), b.bytes());
    EXPECT_EQ(std::memcmp(a.data(), b.data(), a.bytes()), 0);
  }
}

TEST(PackedMatrix, ReadsEveryDtypeThatConvertReads) {
  ThreadPool pool(2);
  for (int i = 0; i < kDTypeCount; ++i) {
    const DType dtype = static_cast<DType>(i);
    if (!CanConvertToF32(dtype)) continue;
    constexpr int64_t kOutputs = 18, kInputs = 256;
    // Bytes below 0x40 make finite values in every format.
    std::vector<uint8_t> bytes(kOutputs * kInputs / DTypeBlockElements(dtype) *
                               DTypeBlockBytes(dtype));
    for (size_t b = 0; b < bytes.size(); ++b) bytes[b] = (b * 37 + 11) % 0x40;
    const TensorView view = View(dtype, kOutputs, kInputs, bytes);
    std::vector<float> values(kOutputs * kInputs);
    ASSERT_TRUE(ConvertToF32(view, absl::MakeSpan(values)).ok());
    const PackedMatrix f32 = *PackMatrix(view, WeightFormat::kF32, pool);
    const PackedMatrix bf16 = *PackMatrix(view, WeightFormat::kBF16, pool);
    for (int64_t n = 0; n < kOutputs; ++n) {
      for (int64_t k = 0; k < kInputs; ++k) {
        const float value = values[n * kInputs + k];
        ASSERT_EQ(At<float>(f32, n, k), value) << DTypeName(dtype);
        ASSERT_EQ(At<BF16>(bf16, n, k).bits, ToBF16(value).bits)
            << DTypeName(dtype);
      }
    }
  }
}

TEST(PackedMatrix, KeepsInfinitiesAndNaNs) {
  ThreadPool pool(1);
  const std::vector<float> w = {1.0f, INFINITY, -INFINITY, NAN};
  for (WeightFormat dtype : {WeightFormat::kF32, WeightFormat::kBF16}) {
    const PackedMatrix packed = Pack(w, 2, 2, dtype, pool);
    const auto value = [&](int64_t n, int64_t k) {
      return dtype == WeightFormat::kF32 ? At<float>(packed, n, k)
                                         : ToFloat(At<BF16>(packed, n, k));
    };
    EXPECT_EQ(value(0, 1), INFINITY);
    EXPECT_EQ(value(1, 0), -INFINITY);
    EXPECT_TRUE(value(1, 1) != value(1, 1));
  }
}

TEST(PackedMatrix, RejectsWhatIsNotAMatrix) {
  ThreadPool pool(1);
  const std::vector<uint8_t> bytes(64);
  TensorView view = View(DType::kF32, 4, 4, bytes);
  for (const Shape& shape :
       {*Shape::Create({16}), *Shape::Create({2, 2, 4}), *Shape::Create({}),
        *Shape::Create({0, 4}), *Shape::Create({4, 0})}) {
    view.shape = shape;
    const absl::Status status =
        PackMatrix(view, WeightFormat::kF32, pool).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr("not a matrix"));
  }
}

TEST(PackedMatrix, RejectsDtypesItCannotReadOrPack) {
  ThreadPool pool(1);
  const std::vector<uint8_t> bytes(128);
  const absl::Status integers =
      PackMatrix(View(DType::kI64, 4, 4, bytes), WeightFormat::kF32, pool)
          .status();
  EXPECT_EQ(integers.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(integers.message(), HasSubstr("i64"));
  const absl::Status target =
      PackMatrix(View(DType::kF32, 4, 4, bytes), WeightFormat::kInt4, pool)
          .status();
  EXPECT_EQ(target.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(target.message(), HasSubstr("int4"));
}

}  // namespace
}  // namespace nibble
