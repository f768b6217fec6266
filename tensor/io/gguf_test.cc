// GGUF files that are sound: what they hold comes back.
#include "tensor/io/gguf.h"

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/dtype.h"
#include "tensor/io/test_files.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace nibble {
namespace {

using testing::AlignedBytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::LittleEndian;
using testing::RawGguf;

std::unique_ptr<GgufFile> Parse(const AlignedBytes& bytes) {
  absl::StatusOr<std::unique_ptr<GgufFile>> file =
      GgufFile::Parse("test.gguf", bytes.span());
  EXPECT_TRUE(file.ok()) << file.status();
  return file.ok() ? *std::move(file) : nullptr;
}

std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

// Both versions have the same layout.
class GgufVersionTest : public ::testing::TestWithParam<uint32_t> {};
INSTANTIATE_TEST_SUITE_P(Versions, GgufVersionTest, ::testing::Values(2, 3));

TEST_P(GgufVersionTest, ReadsMetadataAndTensors) {
  const std::string values = LittleEndian(1.5f) + LittleEndian(-2.0f);
  const AlignedBytes bytes(RawGguf(GetParam())
                               .String("general.architecture", "llama")
                               .U32("llama.block_count", 5)
                               .Tensor("norm", {2}, 0, values)
                               .Build());
  const auto file = Parse(bytes);
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(file->version(), GetParam());
  EXPECT_EQ(file->path(), "test.gguf");
  EXPECT_THAT(file->keys(),
              ElementsAre("general.architecture", "llama.block_count"));
  EXPECT_EQ(*file->GetString("general.architecture"), "llama");
  EXPECT_EQ(*file->GetUint("llama.block_count"), 5u);
  const absl::StatusOr<TensorView> norm = file->Find("norm");
  ASSERT_TRUE(norm.ok()) << norm.status();
  EXPECT_THAT(norm->As<float>(), ElementsAre(1.5f, -2.0f));
}

TEST(GgufTest, ReadsAFileWithoutTensors) {
  const AlignedBytes bytes(RawGguf().String("k", "v").Build());
  const auto file = Parse(bytes);
  ASSERT_NE(file, nullptr);
  EXPECT_THAT(file->names(), IsEmpty());
  EXPECT_TRUE(file->HasKey("k"));
  EXPECT_FALSE(file->HasKey("K"));
}

TEST(GgufTest, MetadataAloneReadsAsAFileWithoutTensors) {
  const AlignedBytes bytes(RawGguf()
                               .String("a", "text")
                               .Strings("b", {"x", "yz"})
                               .Alignment(64)
                               .Tensor("norm", {2}, 0, std::string(8, '\1'))
                               .Build());
  const auto file = Parse(bytes);
  ASSERT_NE(file, nullptr);
  const AlignedBytes head(file->MetadataBytes());
  EXPECT_LT(head.span().size(), bytes.span().size());
  const auto metadata = Parse(head);
  ASSERT_NE(metadata, nullptr);
  EXPECT_EQ(metadata->keys(), file->keys());
  EXPECT_EQ(*metadata->GetString("a"), "text");
  EXPECT_THAT(*metadata->GetStringArray("b"), ElementsAre("x", "yz"));
  EXPECT_THAT(metadata->names(), IsEmpty());
  EXPECT_EQ(metadata->MetadataBytes(), file->MetadataBytes());
}

TEST(GgufTest, IntegersOfEveryTypeReadAsUint) {
  const AlignedBytes bytes(
      RawGguf()
          .Pair("u8", 0, LittleEndian<uint8_t>(200))
          .Pair("i8", 1, LittleEndian<int8_t>(100))
          .Pair("u16", 2, LittleEndian<uint16_t>(60000))
          .Pair("i16", 3, LittleEndian<int16_t>(30000))
          .Pair("u32", 4, LittleEndian<uint32_t>(4000000000))
          .Pair("i32", 5, LittleEndian<int32_t>(2000000000))
          .Pair("u64", 10, LittleEndian<uint64_t>(~uint64_t{0}))
          .Pair("i64", 11, LittleEndian<int64_t>(int64_t{1} << 62))
          .Build());
  const auto file = Parse(bytes);
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(*file->GetUint("u8"), 200u);
  EXPECT_EQ(*file->GetUint("i8"), 100u);
  EXPECT_EQ(*file->GetUint("u16"), 60000u);
  EXPECT_EQ(*file->GetUint("i16"), 30000u);
  EXPECT_EQ(*file->GetUint("u32"), 4000000000u);
  EXPECT_EQ(*file->GetUint("i32"), 2000000000u);
  EXPECT_EQ(*file->GetUint("u64"), ~uint64_t{0});
  EXPECT_EQ(*file->GetUint("i64"), uint64_t{1} << 62);
}

TEST(GgufTest, FloatsAndBoolsRead) {
  const AlignedBytes bytes(RawGguf()
                               .F32("f32", 1e-5f)
                               .Pair("f64", 12, LittleEndian(1e-300))
                               .F32("nan", std::nanf(""))
                               .Bool("yes", true)
                               .Bool("no", false)
                               .Build());
  const auto file = Parse(bytes);
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(*file->GetFloat("f32"), 1e-5f);
  EXPECT_EQ(*file->GetFloat("f64"), 1e-300);
  EXPECT_TRUE(std::isnan(*file->GetFloat("nan")));
  EXPECT_TRUE(*file->GetBool("yes"));
  EXPECT_FALSE(*file->GetBool("no"));
}

TEST(GgufTest, ArraysRead) {
  const std::string nul("a\0b", 3);
  const AlignedBytes bytes(RawGguf()
                               .Strings("tokens", {"<unk>", "", nul, "\xff"})
                               .Numbers<float>("f32", 6, {0.5f, -1.0f})
                               .Numbers<double>("f64", 12, {0.25})
                               .Numbers<int32_t>("i32", 5, {-1, 6})
                               .Numbers<uint8_t>("u8", 0, {255})
                               .Numbers<int64_t>("none", 11, {})
                               .Build());
  const auto file = Parse(bytes);
  ASSERT_NE(file, nullptr);
  EXPECT_THAT(*file->GetStringArray("tokens"),
              ElementsAre("<unk>", "", nul, "\xff"));
  EXPECT_THAT(*file->GetStringViews("tokens"),
              ElementsAre("<unk>", "", nul, "\xff"));
  EXPECT_THAT(*file->GetFloatArray("f32"), ElementsAre(0.5f, -1.0f));
  EXPECT_THAT(*file->GetFloatArray("f64"), ElementsAre(0.25f));
  EXPECT_THAT(*file->GetIntArray("i32"), ElementsAre(-1, 6));
  EXPECT_THAT(*file->GetIntArray("u8"), ElementsAre(255));
  EXPECT_THAT(*file->GetIntArray("none"), IsEmpty());
}

TEST(GgufTest, AbsentKeyIsNotFoundAndNamed) {
  const AlignedBytes bytes(RawGguf().U32("a", 1).Build());
  const auto file = Parse(bytes);
  ASSERT_NE(file, nullptr);
  const absl::Status status = file->GetUint("llama.block_count").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(status), HasSubstr("test.gguf"));
  EXPECT_THAT(Message(status), HasSubstr("'llama.block_count'"));
}

// Every getter refuses every value that is not of its kind, and says so.
TEST(GgufTest, WrongTypeForAKeyIsNamed) {
  const AlignedBytes bytes(RawGguf()
                               .U32("number", 1)
                               .String("text", "ten")
                               .F32("float", 1.0f)
                               .Bool("bool", true)
                               .Strings("strings", {"a"})
                               .Numbers<float>("floats", 6, {1.0f})
                               .Numbers<int32_t>("ints", 5, {1})
                               .Numbers<uint8_t>("bools", 7, {1})
                               .Build());
  const auto file = Parse(bytes);
  ASSERT_NE(file, nullptr);
  for (const std::string& key : file->keys()) {
    const std::vector<std::pair<std::string, absl::Status>> getters = {
        {"text", file->GetString(key).status()},
        {"number", file->GetUint(key).status()},
        {"float", file->GetFloat(key).status()},
        {"bool", file->GetBool(key).status()},
        {"strings", file->GetStringArray(key).status()},
        {"strings", file->GetStringViews(key).status()},
        {"floats", file->GetFloatArray(key).status()},
        {"ints", file->GetIntArray(key).status()},
    };
    for (const auto& [right_key, status] : getters) {
      if (right_key == key) {
        EXPECT_TRUE(status.ok()) << status;
      } else {
        EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
        EXPECT_THAT(Message(status), HasSubstr(absl::StrCat("'", key, "'")));
        EXPECT_THAT(Message(status), HasSubstr("test.gguf"));
      }
    }
  }
  EXPECT_THAT(Message(file->GetFloatArray("ints").status()),
              HasSubstr("array of i32"));
}

TEST(GgufTest, NegativeIntegerIsNoUint) {
  const AlignedBytes bytes(RawGguf()
                               .Pair("i8", 1, LittleEndian<int8_t>(-1))
                               .Pair("i64", 11, LittleEndian<int64_t>(-5))
                               .Build());
  const auto file = Parse(bytes);
  ASSERT_NE(file, nullptr);
  EXPECT_THAT(Message(file->GetUint("i8").status()), HasSubstr("is -1 (i8)"));
  EXPECT_FALSE(file->GetUint("i64").ok());
}

TEST(GgufTest, IntegerAbove63BitsIsNoInt) {
  const AlignedBytes bytes(
      RawGguf().Numbers<uint64_t>("u64", 10, {1, ~uint64_t{0}}).Build());
  const auto file = Parse(bytes);
  ASSERT_NE(file, nullptr);
  EXPECT_THAT(Message(file->GetIntArray("u64").status()),
              HasSubstr("within 64 bits"));
}

TEST(GgufTest, DimensionsTurnOutermostFirst) {
  const AlignedBytes bytes(
      RawGguf()
          .Tensor("a", {3, 2}, 24, "abcdef")  // i8
          .Tensor("b", {2, 3, 4, 1}, 24, std::string(24, 'x'))
          .Build());
  const auto file = Parse(bytes);
  ASSERT_NE(file, nullptr);
  const absl::StatusOr<TensorView> a = file->Find("a");
  ASSERT_TRUE(a.ok()) << a.status();
  EXPECT_EQ(a->shape, Shape({2, 3}));
  EXPECT_EQ(a->As<int8_t>()[3], 'd');  // Row 1, column 0.
  EXPECT_EQ(file->Find("b")->shape, Shape({1, 4, 3, 2}));
}

TEST(GgufTest, EverySupportedTypeIsFound) {
  struct Case {
    uint32_t type;
    const char* name;
    DType dtype;
    size_t bytes;
  };
  const Case cases[] = {
      {0, "F32", DType::kF32, 1024},   {1, "F16", DType::kF16, 512},
      {2, "Q4_0", DType::kQ4_0, 144},  {3, "Q4_1", DType::kQ4_1, 160},
      {6, "Q5_0", DType::kQ5_0, 176},  {7, "Q5_1", DType::kQ5_1, 192},
      {8, "Q8_0", DType::kQ8_0, 272},  {12, "Q4_K", DType::kQ4_K, 144},
      {13, "Q5_K", DType::kQ5_K, 176}, {14, "Q6_K", DType::kQ6_K, 210},
      {24, "I8", DType::kI8, 256},     {25, "I16", DType::kI16, 512},
      {26, "I32", DType::kI32, 1024},  {27, "I64", DType::kI64, 2048},
      {28, "F64", DType::kF64, 2048},  {30, "BF16", DType::kBF16, 512},
  };
  RawGguf builder;
  for (const Case& c : cases) {
    builder.Tensor(c.name, {256}, c.type, std::string(c.bytes, 'x'));
  }
  const AlignedBytes bytes(builder.Build());
  const auto file = Parse(bytes);
  ASSERT_NE(file, nullptr);
  for (const Case& c : cases) {
    const absl::StatusOr<TensorView> view = file->Find(c.name);
    ASSERT_TRUE(view.ok()) << view.status();
    EXPECT_EQ(view->dtype, c.dtype);
    EXPECT_EQ(view->bytes, c.bytes);
    EXPECT_EQ(*file->TensorTypeName(c.name), c.name);
  }
}

// One exotic tensor must not keep the rest of a file from being looked at.
TEST(GgufTest, UnsupportedTypeIsNamedWhenTheTensorIsAskedFor) {
  const AlignedBytes bytes(RawGguf()
                               .Tensor("exotic", {256}, 16, "")
                               .Tensor("future", {256}, 999, "")
                               .Tensor("plain", {1}, 24, "x")
                               .Build());
  const auto file = Parse(bytes);
  ASSERT_NE(file, nullptr);
  EXPECT_TRUE(file->Find("plain").ok());
  EXPECT_THAT(file->names(), ElementsAre("exotic", "future", "plain"));
  EXPECT_TRUE(file->Contains("exotic"));
  const absl::Status status = file->Find("exotic").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(Message(status), HasSubstr("tensor 'exotic' has type IQ2_XXS"));
  EXPECT_THAT(Message(file->Find("future").status()), HasSubstr("type 999"));
  EXPECT_EQ(*file->TensorTypeName("future"), "type 999");
}

TEST(GgufTest, AbsentTensorIsNotFoundAndNamed) {
  const AlignedBytes bytes(RawGguf().Tensor("a", {1}, 24, "x").Build());
  const auto file = Parse(bytes);
  ASSERT_NE(file, nullptr);
  EXPECT_FALSE(file->Contains("b"));
  const absl::Status status = file->Find("b").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(status), HasSubstr("test.gguf"));
  EXPECT_THAT(Message(status), HasSubstr("'b'"));
  EXPECT_FALSE(file->TensorTypeName("b").ok());
}

TEST(GgufTest, HonoursTheAlignmentKey) {
  for (uint32_t alignment : {8, 64, 4096, 65536}) {
    const AlignedBytes bytes(RawGguf()
                                 .Alignment(alignment)
                                 .Tensor("a", {3}, 24, "abc")
                                 .Tensor("b", {1}, 0, LittleEndian(2.5f))
                                 .Build());
    const auto file = Parse(bytes);
    ASSERT_NE(file, nullptr);
    EXPECT_EQ(file->Find("a")->As<int8_t>()[2], 'c');
    EXPECT_EQ(file->Find("b")->As<float>()[0], 2.5f);
    const size_t offset = file->Find("b")->data - file->Find("a")->data;
    EXPECT_EQ(offset, alignment);
  }
}

TEST(GgufTest, EmptyTensorHasNoBytes) {
  const AlignedBytes bytes(RawGguf().Tensor("a", {4, 0}, 0, "").Build());
  const auto file = Parse(bytes);
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(file->Find("a")->bytes, 0u);
  EXPECT_EQ(file->Find("a")->shape, Shape({0, 4}));
}

TEST(GgufTest, SummariesAreOnePrintableLine) {
  const AlignedBytes bytes(RawGguf()
                               .String("name", "a\nb")
                               .String("long", std::string(5000, 'x'))
                               .U32("u32", 7)
                               .Pair("u8", 0, LittleEndian<uint8_t>(65))
                               .Bool("bool", true)
                               .F32("f32", 0.5f)
                               .Strings("tokens", {"a", "b", "c", "d", "e"})
                               .Numbers<int32_t>("ints", 5, {1, 2})
                               .Numbers<uint8_t>("bools", 7, {1, 0})
                               .Build());
  const auto file = Parse(bytes);
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(file->ValueSummary("name"), "'a\\nb'");
  EXPECT_LT(file->ValueSummary("long").size(), 200u);
  EXPECT_THAT(file->ValueSummary("long"), HasSubstr("(5000 bytes)"));
  EXPECT_EQ(file->ValueSummary("u32"), "7");
  EXPECT_EQ(file->ValueSummary("u8"), "65");
  EXPECT_EQ(file->ValueSummary("bool"), "true");
  EXPECT_EQ(file->ValueSummary("f32"), "0.5");
  EXPECT_EQ(file->ValueSummary("tokens"), "[5 string] 'a', 'b', 'c', 'd', ...");
  EXPECT_EQ(file->ValueSummary("ints"), "[2 i32] 1, 2");
  EXPECT_EQ(file->ValueSummary("bools"), "[2 bool] true, false");
  EXPECT_EQ(file->ValueSummary("absent"), "");
}

TEST(GgufTest, OpensAMappedFile) {
  const std::string path = testing::MakeTestFolder() + "/a.gguf";
  testing::WriteFile(path, RawGguf()
                               .Strings("tokens", {"a", "b"})
                               .Tensor("t", {1}, 0, LittleEndian(3.0f))
                               .Build());
  const auto file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->path(), path);
  EXPECT_THAT(*(*file)->GetStringViews("tokens"), ElementsAre("a", "b"));
  EXPECT_EQ((*file)->Find("t")->As<float>()[0], 3.0f);
  EXPECT_TRUE((*file)->CheckUnchanged().ok());
  testing::WriteFile(path, testing::ReadFile(path) + "more");
  EXPECT_EQ((*file)->CheckUnchanged().code(), absl::StatusCode::kAborted);
}

}  // namespace
}  // namespace nibble
