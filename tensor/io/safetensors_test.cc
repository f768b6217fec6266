// Safetensors files and folders that are sound, and the writer.
#include "tensor/io/safetensors.h"

#include <cstdint>
#include <memory>
#include <string>
#include <thread>  // NOLINT: several readers at once
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/bf16.h"
#include "tensor/dtype.h"
#include "tensor/io/tensor_source.h"
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
using testing::MakeTestFolder;
using testing::SafetensorsBytes;
using testing::WriteFile;

std::unique_ptr<TensorSource> Parse(const AlignedBytes& bytes) {
  auto source = ParseSafetensors("test.safetensors", bytes.span());
  EXPECT_TRUE(source.ok()) << source.status();
  return source.ok() ? *std::move(source) : nullptr;
}

std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

TEST(SafetensorsTest, ReadsTensorsInAnyOrder) {
  const AlignedBytes bytes(SafetensorsBytes(
      R"({"__metadata__": {"format": "pt"},
          "b": {"dtype": "F32", "shape": [2, 1], "data_offsets": [4, 12]},
          "a": {"data_offsets": [0, 4], "shape": [2], "dtype": "BF16"}})",
      std::string("\x80\x3f\x00\x40", 4) + LittleEndian(1.5f) +
          LittleEndian(-2.0f)));
  const auto source = Parse(bytes);
  ASSERT_NE(source, nullptr);
  EXPECT_EQ(source->path(), "test.safetensors");
  EXPECT_THAT(source->names(), ElementsAre("a", "b"));
  EXPECT_TRUE(source->Contains("a"));
  EXPECT_FALSE(source->Contains("__metadata__"));
  const absl::StatusOr<TensorView> b = source->Find("b");
  ASSERT_TRUE(b.ok()) << b.status();
  EXPECT_EQ(b->shape, Shape({2, 1}));
  EXPECT_THAT(b->As<float>(), ElementsAre(1.5f, -2.0f));
  const absl::StatusOr<TensorView> a = source->Find("a");
  ASSERT_TRUE(a.ok()) << a.status();
  EXPECT_EQ(ToFloat(a->As<BF16>()[0]), 1.0f);
  EXPECT_EQ(ToFloat(a->As<BF16>()[1]), 2.0f);
}

TEST(SafetensorsTest, ReadsEveryDtype) {
  struct Case {
    const char* name;
    DType dtype;
    int bytes;
  };
  const Case cases[] = {{"F32", DType::kF32, 4}, {"F16", DType::kF16, 2},
                        {"F64", DType::kF64, 8}, {"BF16", DType::kBF16, 2},
                        {"I8", DType::kI8, 1},   {"U8", DType::kU8, 1},
                        {"I16", DType::kI16, 2}, {"I32", DType::kI32, 4},
                        {"I64", DType::kI64, 8}, {"BOOL", DType::kBool, 1}};
  for (const Case& c : cases) {
    const AlignedBytes bytes(SafetensorsBytes(
        absl::StrCat(R"({"t":{"dtype":")", c.name,
                     R"(","shape":[3],"data_offsets":[0,)", 3 * c.bytes, "]}}"),
        std::string(3 * c.bytes, 'x')));
    const auto source = Parse(bytes);
    ASSERT_NE(source, nullptr);
    EXPECT_EQ(source->Find("t")->dtype, c.dtype);
    EXPECT_EQ(source->Find("t")->bytes, static_cast<size_t>(3 * c.bytes));
  }
}

// Old GPT-J files hold such a buffer.
TEST(SafetensorsTest, ReadsScalarsAndEmptyTensors) {
  const AlignedBytes bytes(SafetensorsBytes(
      R"({"scalar": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
          "empty": {"dtype": "I64", "shape": [0, 7], "data_offsets": [4, 4]},
          "first": {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}})",
      LittleEndian(-1e9f)));
  const auto source = Parse(bytes);
  ASSERT_NE(source, nullptr);
  EXPECT_EQ(source->Find("scalar")->shape.rank(), 0);
  EXPECT_EQ(source->Find("scalar")->As<float>()[0], -1e9f);
  EXPECT_EQ(source->Find("empty")->shape, Shape({0, 7}));
  EXPECT_EQ(source->Find("empty")->bytes, 0u);
  EXPECT_TRUE(source->Find("first").ok());
}

TEST(SafetensorsTest, ReadsAFileWithoutTensors) {
  const AlignedBytes bytes(SafetensorsBytes("{}  ", ""));
  const auto source = Parse(bytes);
  ASSERT_NE(source, nullptr);
  EXPECT_THAT(source->names(), IsEmpty());
}

TEST(SafetensorsTest, CopiesTensorsThatAreNotAligned) {
  // Whatever the header's length, one of these two starts off a multiple of 4.
  const AlignedBytes bytes(SafetensorsBytes(
      R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
          "b": {"dtype": "U8", "shape": [1], "data_offsets": [4, 5]},
          "c": {"dtype": "F32", "shape": [2], "data_offsets": [5, 13]}})",
      LittleEndian(1.0f) + "x" + LittleEndian(2.0f) + LittleEndian(3.0f)));
  const auto source = Parse(bytes);
  ASSERT_NE(source, nullptr);
  const std::byte* const begin = bytes.span().data();
  const std::byte* const end = begin + bytes.span().size();
  int copies = 0;
  for (const char* name : {"a", "c"}) {
    const absl::StatusOr<TensorView> view = source->Find(name);
    ASSERT_TRUE(view.ok()) << view.status();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view->data) % 4, 0u);
    copies += view->data < begin || view->data >= end;
    EXPECT_EQ(source->Find(name)->data, view->data) << "one copy is enough";
  }
  EXPECT_GE(copies, 1);
  EXPECT_THAT(source->Find("a")->As<float>(), ElementsAre(1.0f));
  EXPECT_THAT(source->Find("c")->As<float>(), ElementsAre(2.0f, 3.0f));
}

TEST(SafetensorsTest, MisalignedTensorsMayBeFoundFromSeveralThreads) {
  std::string json =
      R"({"pad":{"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  std::string data = "x";
  for (int i = 0; i < 20; ++i) {
    absl::StrAppend(&json, ",\"", i,
                    R"(":{"dtype":"I32","shape":[1],"data_offsets":[)",
                    data.size(), ",", data.size() + 4, "]}");
    data += LittleEndian<int32_t>(i);
  }
  // The data starts at a multiple of four, so that all the numbers are off.
  json += "}";
  json.append((8 - json.size() % 8) % 8, ' ');
  const AlignedBytes bytes(SafetensorsBytes(json, data));
  const auto source = Parse(bytes);
  ASSERT_NE(source, nullptr);
  std::vector<std::thread> threads;
  std::vector<int> sums(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&source, &sums, t] {
      for (int i = 0; i < 20; ++i) {
        sums[t] += source->Find(absl::StrCat(i))->As<int32_t>()[0];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(sums, ElementsAre(190, 190, 190, 190));
}

TEST(SafetensorsTest, UnsupportedDtypeIsNamedWhenTheTensorIsAskedFor) {
  const AlignedBytes bytes(SafetensorsBytes(
      R"({"old": {"dtype": "U16", "shape": [2], "data_offsets": [0, 4]},
          "new": {"dtype": "F4", "shape": [2], "data_offsets": [4, 5]},
          "ok": {"dtype": "I8", "shape": [1], "data_offsets": [5, 6]}})",
      "123456"));
  const auto source = Parse(bytes);
  ASSERT_NE(source, nullptr);
  EXPECT_TRUE(source->Find("ok").ok());
  EXPECT_TRUE(source->Contains("new"));
  const absl::Status status = source->Find("old").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(Message(status),
              HasSubstr("test.safetensors: tensor 'old' has dtype 'U16'"));
  EXPECT_THAT(Message(source->Find("new").status()), HasSubstr("'F4'"));
}

TEST(SafetensorsTest, AbsentTensorIsNotFoundAndNamed) {
  const AlignedBytes bytes(SafetensorsBytes("{}", ""));
  const auto source = Parse(bytes);
  ASSERT_NE(source, nullptr);
  const absl::Status status = source->Find("lm_head.weight").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(status), HasSubstr("test.safetensors: there is no tensor "
                                         "'lm_head.weight'"));
}

// ---- Folders.

// A file of one tensor `name` of one float.
std::string OneTensor(absl::string_view name, float value) {
  return SafetensorsBytes(
      absl::StrCat("{\"", name,
                   R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})"),
      LittleEndian(value));
}

TEST(SafetensorsFolderTest, OpensTheSingleFile) {
  const std::string dir = MakeTestFolder();
  WriteFile(dir + "/model.safetensors", OneTensor("a", 7.0f));
  // Ignored, as Hugging Face's own loader does.
  WriteFile(dir + "/model.safetensors.index.json", "nonsense");
  const auto source = OpenSafetensorsFolder(dir);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->Find("a")->As<float>()[0], 7.0f);
  EXPECT_EQ((*source)->path(), dir + "/model.safetensors");
}

TEST(SafetensorsFolderTest, OpensShardsByTheirIndex) {
  const std::string dir = MakeTestFolder();
  WriteFile(dir + "/one.safetensors", OneTensor("b", 1.0f));
  WriteFile(dir + "/two.safetensors", OneTensor("a", 2.0f));
  WriteFile(dir + "/model.safetensors.index.json",
            R"({"metadata": {"total_size": 8, "deep": [[{"weight_map": 1}]]},
                "weight_map": {"b": "one.safetensors",
                               "a": "two.safetensors"},
                "later": null})");
  const auto source = OpenSafetensorsFolder(dir);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_THAT((*source)->names(), ElementsAre("a", "b"));
  EXPECT_TRUE((*source)->Contains("a"));
  EXPECT_FALSE((*source)->Contains("c"));
  EXPECT_EQ((*source)->Find("a")->As<float>()[0], 2.0f);
  EXPECT_EQ((*source)->Find("b")->As<float>()[0], 1.0f);
  EXPECT_EQ((*source)->path(), dir + "/model.safetensors.index.json");
  EXPECT_THAT(Message((*source)->Find("c").status()), HasSubstr("index.json"));
}

}  // namespace
}  // namespace nibble
