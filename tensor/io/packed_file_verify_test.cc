// What verifying finds that opening does not read: damaged tensors, on several
// threads, and values that are not finite. packed_file_hostile_test flips every
// bit of a file.
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/io/packed_file.h"
#include "tensor/io/packed_test_files.h"
#include "tensor/io/test_files.h"

namespace nibble {
namespace {

using testing::FiniteBytes;
using ::testing::HasSubstr;
using testing::MakeTestFolder;
using testing::ReadFile;
using testing::WriteFile;

// A tensor of several stretches, verified by two threads.
TEST(PackedFileVerifyTest, ThreadsVerifyTogether) {
  const std::string path = MakeTestFolder() + "/a.nib";
  const PackedLayout layout =
      *PackedLayout::Create(WeightFormat::kInt8, 70, 20000, 32);
  const size_t plain_bytes = 4 * 300'000;
  const std::string data =
      FiniteBytes(plain_bytes + static_cast<size_t>(layout.bytes()), 1);
  auto writer = PackedFileWriter::Create(
      path, {}, {{"a", PlainTensor{DType::kF32, {300'000}}}, {"b", layout}},
      {});
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE(
      writer
          ->Append(absl::MakeConstSpan(
              reinterpret_cast<const std::byte*>(data.data()), data.size()))
          .ok());
  ASSERT_TRUE(writer->Commit().ok());
  const auto two_threads = [](int64_t tasks,
                              absl::FunctionRef<void(int64_t)> task) {
    EXPECT_GE(tasks, 5);
    const auto every_other = [&](int64_t first) {
      for (int64_t i = first; i < tasks; i += 2) task(i);
    };
    std::thread thread(every_other, 1);
    every_other(0);
    thread.join();
  };
  EXPECT_TRUE((*PackedFile::Open(path))->VerifyAll(two_threads).ok());

  std::string bytes = ReadFile(path);
  for (const size_t at : {size_t{4096}, bytes.size() - 1}) bytes[at] ^= 1;
  WriteFile(path, bytes);
  const std::shared_ptr<const PackedFile> file = *PackedFile::Open(path);
  const std::vector<absl::Status> damage = file->FindDamage(two_threads);
  ASSERT_EQ(damage.size(), 2u);
  EXPECT_THAT(damage[0].message(), HasSubstr("tensor 'a' is damaged"));
  EXPECT_THAT(damage[1].message(), HasSubstr("tensor 'b' is damaged"));
  EXPECT_EQ(file->VerifyTensor("a"), file->VerifyAll());
}

// Writes one tensor of zeros with `value` at byte `at`, and verifies it.
template <class Value>
absl::Status VerifyWith(const PackedKind& what, size_t at, Value value) {
  const std::string path = MakeTestFolder() + "/a.nib";
  std::vector<std::byte> data(static_cast<size_t>(*PackedKindBytes(what)));
  std::memcpy(data.data() + at, &value, sizeof(value));
  auto writer = PackedFileWriter::Create(path, {}, {{"t", what}}, {});
  EXPECT_TRUE(writer.ok() && writer->Append(data).ok() &&
              writer->Commit().ok());
  return (*PackedFile::Open(path))->VerifyTensor("t");
}

TEST(PackedFileVerifyTest, ScalesThatAreNotFiniteAreNamed) {
  // Two records of a scale line, zero points and codes.
  const PackedLayout int4 =
      *PackedLayout::Create(WeightFormat::kInt4, 64, 64, 32, false);
  const auto record = static_cast<size_t>(int4.record_bytes());
  constexpr uint16_t kInfinity = 0x7C00, kNan = 0xFE01, kLargest = 0x7BFF;
  const auto refused = [](const absl::Status& status) {
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_THAT(status.message(), HasSubstr("tensor 't' holds a scale or "));
  };
  for (const size_t at : {size_t{0}, size_t{126}, record, record + 126}) {
    refused(VerifyWith(int4, at, kInfinity));
    refused(VerifyWith(int4, at, kNan));
    EXPECT_TRUE(VerifyWith(int4, at, kLargest).ok());
  }
  // Zero points and codes may have any bits.
  EXPECT_TRUE(VerifyWith(int4, 128, kNan).ok());
  EXPECT_TRUE(VerifyWith(int4, record - 2, kNan).ok());
  const PackedLayout wide =
      *PackedLayout::Create(WeightFormat::kInt8, 64, 64, 32, true, true);
  refused(VerifyWith(wide, static_cast<size_t>(wide.record_bytes()) + 252,
                     -std::numeric_limits<float>::infinity()));
  EXPECT_TRUE(VerifyWith(wide, 256, std::nanf("")).ok());
}

TEST(PackedFileVerifyTest, MinimumsThatAreNotFiniteAreNamed) {
  PackedLayout layout =
      *PackedLayout::Create(WeightFormat::kInt4, 64, 64, 32, false);
  layout.minimums = true;
  layout = *PackedLayout::Checked(layout);
  const auto record = static_cast<size_t>(layout.record_bytes());
  constexpr uint16_t kInfinity = 0x7C00, kNan = 0xFE01, kLargest = 0xFBFF;
  for (const size_t at : {size_t{128}, size_t{254}, record + 254}) {
    for (const uint16_t bad : {kInfinity, kNan}) {
      EXPECT_THAT(VerifyWith(layout, at, bad).message(),
                  HasSubstr("tensor 't' holds a scale or "));
    }
    EXPECT_TRUE(VerifyWith(layout, at, kLargest).ok());
  }
  EXPECT_TRUE(VerifyWith(layout, 256, kNan).ok());  // a code
}

TEST(PackedFileVerifyTest, FloatWeightsThatAreNotFiniteAreNamed) {
  const PackedLayout f32 = *PackedLayout::Create(WeightFormat::kF32, 16, 3);
  const PackedLayout bf16 = *PackedLayout::Create(WeightFormat::kBF16, 16, 3);
  const uint16_t bf16_nan = 0xFFC0;
  const float nan = std::nanf("");
  for (const absl::Status& status :
       {VerifyWith(f32, 188, nan), VerifyWith(bf16, 126, bf16_nan),
        VerifyWith(PlainTensor{DType::kF32, {3}}, 8, nan),
        VerifyWith(PlainTensor{DType::kBF16, {3}}, 4, bf16_nan),
        VerifyWith(PlainTensor{DType::kF16, {3}}, 2, uint16_t{0x7C00}),
        VerifyWith(PlainTensor{DType::kF64, {3}}, 16, std::nan(""))}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_THAT(status.message(), HasSubstr("tensor 't' holds a scale or "));
  }
  EXPECT_TRUE(VerifyWith(PlainTensor{DType::kI32, {3}}, 8, nan).ok());
}

}  // namespace
}  // namespace nibble
