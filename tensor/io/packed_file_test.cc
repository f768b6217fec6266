// Packed files that are sound: what was written comes back.
#include "tensor/io/packed_file.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/io/gguf.h"
#include "tensor/io/packed_test_files.h"
#include "tensor/io/test_files.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using testing::FiniteBytes;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::MakeTestFolder;
using testing::RawGguf;
using testing::ReadFile;
using testing::WriteFile;

absl::Span<const std::byte> Bytes(absl::string_view text) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()),
                             text.size());
}

absl::string_view Text(const std::byte* data, size_t bytes) {
  return absl::string_view(reinterpret_cast<const char*>(data), bytes);
}

// Writes a file whose tensors hold `data`, one after another.
absl::Status Write(const std::string& path, const PackedManifest& manifest,
                   const std::vector<PackedTensorPlan>& plan,
                   const std::vector<EmbeddedFile>& files,
                   absl::string_view data) {
  absl::StatusOr<PackedFileWriter> writer =
      PackedFileWriter::Create(path, manifest, plan, files);
  if (!writer.ok()) return writer.status();
  if (absl::Status s = writer->Append(Bytes(data)); !s.ok()) return s;
  return writer->Commit();
}

std::shared_ptr<const PackedFile> Opened(const std::string& path) {
  absl::StatusOr<std::shared_ptr<const PackedFile>> file =
      PackedFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  return file.ok() ? *file : nullptr;
}

PackedTensorPlan Plain(const std::string& name, int64_t elements) {
  return {name, PlainTensor{DType::kF32, {elements}}};
}

std::vector<PackedLayout> EveryLayout() {
  std::vector<PackedLayout> layouts = {
      *PackedLayout::Create(WeightFormat::kF32, 33, 7),
      *PackedLayout::Create(WeightFormat::kBF16, 16, 65)};
  for (const int64_t inputs : {1, 96, 200, 2048}) {
    for (const int64_t group : {32, 64, 128, 256, 512, 1024, 4096}) {
      for (const bool wide : {false, true}) {
        for (const bool symmetric : {false, true}) {
          layouts.push_back(*PackedLayout::Create(
              WeightFormat::kInt4, 40, inputs, group, symmetric, wide));
        }
        layouts.push_back(layouts.back());
        layouts.back().symmetric = false;
        layouts.back().minimums = true;
        layouts.push_back(*PackedLayout::Create(WeightFormat::kInt8, 31, inputs,
                                                group, true, wide));
      }
    }
  }
  return layouts;
}

TEST(PackedFileTest, EveryLayoutComesBack) {
  const std::vector<PackedLayout> layouts = EveryLayout();
  std::vector<PackedTensorPlan> plan;
  std::vector<std::string> contents;
  for (size_t i = 0; i < layouts.size(); ++i) {
    plan.push_back({absl::StrCat("t", i), layouts[i]});
    contents.push_back(FiniteBytes(static_cast<size_t>(layouts[i].bytes()),
                                   static_cast<uint32_t>(i)));
  }
  std::string data;
  for (const std::string& content : contents) data += content;
  const std::string path = MakeTestFolder() + "/a.nib";
  ASSERT_TRUE(Write(path, {}, plan, {}, data).ok());

  const auto file = Opened(path);
  ASSERT_NE(file, nullptr);
  for (size_t i = 0; i < layouts.size(); ++i) {
    EXPECT_TRUE(file->IsPacked(plan[i].name));
    const absl::StatusOr<PackedTensor> tensor = file->FindPacked(plan[i].name);
    ASSERT_TRUE(tensor.ok()) << tensor.status();
    EXPECT_TRUE(tensor->layout == layouts[i]);
    EXPECT_EQ(Text(tensor->data, contents[i].size()), contents[i]);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor->data) % 4096, 0u);
    EXPECT_TRUE(file->VerifyTensor(plan[i].name).ok());
  }
  EXPECT_TRUE(file->VerifyAll().ok()) << file->VerifyAll();
}

TEST(PackedFileTest, PlainTensorsComeBack) {
  const std::vector<PackedTensorPlan> plan = {
      {"b", PlainTensor{DType::kBF16, {3, 5}}},
      {"a", PlainTensor{DType::kF32, {2}}},
      {"q", PlainTensor{DType::kQ8_0, {2, 32}}}};
  const std::string data = FiniteBytes(30 + 8 + 68, 1);
  const std::string path = MakeTestFolder() + "/a.nib";
  ASSERT_TRUE(Write(path, {}, plan, {}, data).ok());
  const auto file = Opened(path);
  ASSERT_NE(file, nullptr);
  EXPECT_THAT(file->names(), ElementsAre("a", "b", "q"));
  const TensorView b = *file->Find("b"), a = *file->Find("a");
  EXPECT_EQ(b.dtype, DType::kBF16);
  EXPECT_EQ(b.shape, (Shape{3, 5}));
  EXPECT_EQ(Text(b.data, b.bytes), data.substr(0, 30));
  EXPECT_EQ(Text(a.data, a.bytes), data.substr(30, 8));
  EXPECT_EQ(file->Find("q")->bytes, 68u);
  EXPECT_TRUE(file->VerifyAll().ok());
}

TEST(PackedFileTest, ManifestAndEmbeddedFilesComeBack) {
  PackedManifest manifest;
  manifest.mutable_config()->set_layers(32);
  manifest.mutable_config()->set_norm(ModelConfig::RMS);
  manifest.mutable_config()->mutable_rope()->set_theta(0.1);
  manifest.mutable_config()->add_windows(0);
  manifest.mutable_config()->add_windows(4096);
  manifest.mutable_record()->set_method("rtn");
  manifest.mutable_record()->add_overrides()->set_tensor("head.weight");
  const std::string gguf = RawGguf().String("k", "v").Build();
  const std::string path = MakeTestFolder() + "/a.nib";
  ASSERT_TRUE(Write(path, manifest, {},
                    {{"tokenizer.json", "{}"}, {"metadata.gguf", gguf}}, "")
                  .ok());
  const auto file = Opened(path);
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(file->manifest().config().SerializeAsString(),
            manifest.config().SerializeAsString());
  EXPECT_EQ(file->manifest().record().SerializeAsString(),
            manifest.record().SerializeAsString());
  EXPECT_THAT(file->file_names(),
              ElementsAre("metadata.gguf", "tokenizer.json"));
  EXPECT_EQ(*file->FindFile("tokenizer.json"), "{}");
  // Aligned as the reader of GGUF needs it.
  const auto inner =
      GgufFile::Parse("inner", Bytes(*file->FindFile("metadata.gguf")));
  ASSERT_TRUE(inner.ok()) << inner.status();
  EXPECT_EQ(*(*inner)->GetString("k"), "v");
  EXPECT_TRUE(file->VerifyAll().ok());
}

TEST(PackedFileTest, AFileWithoutPartsIsItsManifest) {
  const std::string path = MakeTestFolder() + "/a.nib";
  ASSERT_TRUE(Write(path, {}, {}, {}, "").ok());
  EXPECT_EQ(ReadFile(path).size(), 64u);
  const auto file = Opened(path);
  ASSERT_NE(file, nullptr);
  EXPECT_THAT(file->names(), IsEmpty());
  EXPECT_TRUE(file->VerifyAll().ok());
}

// The bytes that docs/packed_format.md draws. They never change: a change of
// the format takes a new version.
TEST(PackedFileTest, BytesAreThoseOfTheDocument) {
  const std::string path = MakeTestFolder() + "/a.nib";
  ASSERT_TRUE(
      Write(path, {}, {Plain("a", 1)}, {}, std::string("\0\0\x80\x3F", 4))
          .ok());
  std::string head;
  ASSERT_TRUE(absl::HexStringToBytes(
      absl::StrCat("4E4942424C451A0A",  // magic
                   "0100000000000000",  // version, flags
                   "4000000000000000",  // the manifest's offset
                   "2800000000000000",  // and length
                   "0410000000000000",  // the file's length
                   "90F0C0D9",          // the manifest's checksum
                   "00000000000000000000000000000000",  // reserved
                   "C876FCE0",                          // the header's checksum
                   "1A26",                              // a tensor, 38 bytes:
                   "0A0161",                            // name 'a'
                   "1217",                              // range, 23 bytes:
                   "090010000000000000",                // offset 4096
                   "110400000000000000",                // 4 bytes
                   "1DABC454DD",                        // checksum
                   "2208",                              // plain, 8 bytes:
                   "0A03663332120101"),                 // dtype 'f32', dims [1]
      &head));
  const std::string bytes = ReadFile(path);
  ASSERT_EQ(bytes.size(), 4096u + 4u);
  for (size_t i = 0; i < head.size(); ++i) {
    EXPECT_EQ(bytes[i], head[i]) << "byte " << i;
  }
  EXPECT_EQ(bytes.substr(head.size(), 4096 - head.size()),
            std::string(4096 - head.size(), '\0'));
  EXPECT_EQ(bytes.substr(4096), std::string("\0\0\x80\x3F", 4));
}

// {scales, zeros or minimums, codes, record, records, all}
std::vector<int64_t> Sizes(const absl::StatusOr<PackedLayout>& layout) {
  return {layout->zeros_offset(),
          layout->codes_offset() - layout->zeros_offset(),
          layout->record_bytes() - layout->codes_offset(),
          layout->record_bytes(),
          layout->records(),
          layout->bytes()};
}

TEST(PackedFileTest, SizesAreThoseOfTheDocument) {
  const auto layout = PackedLayout::Create;
  constexpr auto kInt4 = WeightFormat::kInt4, kInt8 = WeightFormat::kInt8;
  EXPECT_THAT(Sizes(layout(kInt4, 5632, 2048, 128, false, false)),
              ElementsAre(1024, 256, 32768, 34048, 176, 5992448));
  EXPECT_THAT(Sizes(layout(kInt4, 5632, 2048, 32, true, false)),
              ElementsAre(4096, 0, 32768, 36864, 176, 6488064));
  EXPECT_THAT(Sizes(layout(kInt4, 40, 200, 128, false, false)),
              ElementsAre(128, 64, 3200, 3392, 2, 6784));
  EXPECT_THAT(Sizes(layout(kInt4, 32, 64, 64, false, true)),
              ElementsAre(128, 64, 1024, 1216, 1, 1216));
  PackedLayout minimums = *layout(kInt4, 5632, 2048, 32, false, false);
  minimums.minimums = true;
  EXPECT_THAT(Sizes(minimums),
              ElementsAre(4096, 4096, 32768, 40960, 176, 7208960));
  EXPECT_THAT(Sizes(layout(kInt8, 31, 10, 10, true, false)),
              ElementsAre(64, 0, 384, 448, 1, 448));
  EXPECT_THAT(Sizes(layout(WeightFormat::kBF16, 100, 65, 0, true, false)),
              ElementsAre(0, 0, 2112, 2112, 7, 14784));
  EXPECT_THAT(Sizes(layout(WeightFormat::kF32, 33, 7, 0, true, false)),
              ElementsAre(0, 0, 448, 448, 3, 1344));
}

TEST(PackedFileTest, PiecesOfAnySizeMakeTheSameFile) {
  const std::string dir = MakeTestFolder();
  const std::vector<PackedTensorPlan> plan = {Plain("a", 2000), Plain("b", 3),
                                              Plain("c", 1024)};
  const std::string data = FiniteBytes(4 * (2000 + 3 + 1024), 1);
  ASSERT_TRUE(Write(dir + "/whole", {}, plan, {}, data).ok());
  for (const size_t piece : {1u, 7u, 4096u, 9000u}) {
    const std::string path = absl::StrCat(dir, "/", piece);
    absl::StatusOr<PackedFileWriter> writer =
        PackedFileWriter::Create(path, {}, plan, {});
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (size_t i = 0; i < data.size(); i += piece) {
      ASSERT_TRUE(writer->Append(Bytes(data.substr(i, piece))).ok());
    }
    ASSERT_TRUE(writer->Append({}).ok());
    ASSERT_TRUE(writer->Commit().ok());
    EXPECT_EQ(ReadFile(path), ReadFile(dir + "/whole")) << piece;
  }
}

// Pieces around the size of a write, so that parts begin and end anywhere in
// it.
TEST(PackedFileTest, LargeTensorsSurviveAnyCutIntoWrites) {
  const int64_t write = int64_t{1} << 20;  // Elements of 4 MB.
  const std::vector<PackedTensorPlan> plan = {
      Plain("a", write - 1024), Plain("b", write), Plain("c", 3 * write + 7)};
  const std::string data =
      FiniteBytes(static_cast<size_t>(4 * (5 * write - 1024 + 7)), 1);
  const std::string path = MakeTestFolder() + "/a.nib";
  for (const size_t piece : {size_t{3} << 20, size_t{9} << 20, data.size()}) {
    absl::StatusOr<PackedFileWriter> writer =
        PackedFileWriter::Create(path, {}, plan, {{"f", "x"}});
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (size_t i = 0; i < data.size(); i += piece) {
      ASSERT_TRUE(writer->Append(Bytes(data).subspan(i, piece)).ok());
    }
    ASSERT_TRUE(writer->Commit().ok());
    const auto file = Opened(path);
    ASSERT_NE(file, nullptr);
    const TensorView b = *file->Find("b"), c = *file->Find("c");
    EXPECT_TRUE(Text(b.data, b.bytes) ==
                absl::string_view(data).substr(4 * (write - 1024), b.bytes));
    EXPECT_TRUE(Text(c.data, c.bytes) ==
                absl::string_view(data).substr(data.size() - c.bytes));
    EXPECT_TRUE(file->VerifyAll().ok()) << file->VerifyAll();
  }
}

TEST(PackedFileTest, WhatIsNotThereOrOfTheOtherKindIsNamed) {
  const std::string path = MakeTestFolder() + "/a.nib";
  const PackedLayout layout =
      *PackedLayout::Create(WeightFormat::kInt4, 1, 32, 32);
  ASSERT_TRUE(Write(path, {}, {Plain("plain", 1), {"packed", layout}}, {},
                    std::string(4 + layout.bytes(), '\0'))
                  .ok());
  const auto file = Opened(path);
  ASSERT_NE(file, nullptr);
  const auto expect = [&](const absl::Status& status, absl::StatusCode code,
                          absl::string_view what) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(status.message(), HasSubstr(path));
    EXPECT_THAT(status.message(), HasSubstr(what));
  };
  using Code = absl::StatusCode;
  expect(file->Find("x").status(), Code::kNotFound, "tensor 'x'");
  expect(file->FindPacked("x").status(), Code::kNotFound, "tensor 'x'");
  expect(file->FindFile("x").status(), Code::kNotFound, "file 'x'");
  expect(file->VerifyTensor("x"), Code::kNotFound, "tensor 'x'");
  expect(file->Find("packed").status(), Code::kUnimplemented, "packed as int4");
  expect(file->FindPacked("plain").status(), Code::kInvalidArgument,
         "'plain' is a plain tensor");
  EXPECT_FALSE(file->IsPacked("plain"));
  EXPECT_FALSE(file->IsPacked("x"));
  EXPECT_TRUE(file->Contains("packed"));
  EXPECT_FALSE(file->Contains("x"));
}

TEST(PackedFileTest, SaysWhenItChangedWhileMapped) {
  const std::string path = MakeTestFolder() + "/a.nib";
  ASSERT_TRUE(Write(path, {}, {Plain("a", 1)}, {}, FiniteBytes(4, 1)).ok());
  const std::string bytes = ReadFile(path);
  const auto file = Opened(path);
  ASSERT_NE(file, nullptr);
  EXPECT_TRUE(file->CheckUnchanged().ok());
  // Replaced, as the writer does: the map shows the old file.
  ASSERT_TRUE(Write(path, {}, {Plain("b", 1)}, {}, FiniteBytes(4, 2)).ok());
  EXPECT_TRUE(file->CheckUnchanged().ok());
  EXPECT_TRUE(file->VerifyAll().ok());
  const auto other = Opened(path);
  ASSERT_NE(other, nullptr);
  WriteFile(path, bytes + "x");
  EXPECT_EQ(other->CheckUnchanged().code(), absl::StatusCode::kAborted);
}

}  // namespace
}  // namespace nibble
