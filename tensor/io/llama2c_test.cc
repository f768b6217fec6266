#include "tensor/io/llama2c.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/shape.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

// dim 8, hidden 12, 2 layers, 2 heads, 1 kv head, vocabulary 5, sequence 3.
constexpr int32_t kDim = 8;
constexpr int32_t kHidden = 12;
constexpr int32_t kLayers = 2;
constexpr int32_t kVocabulary = 5;
constexpr int32_t kSequence = 3;

std::vector<int32_t> TiedHeader() {
  return {kDim,           kHidden,     kLayers,  /*heads=*/2,
          /*kv_heads=*/1, kVocabulary, kSequence};
}

// Written out by hand from the layout in the header file.
int64_t FloatsFor(bool tied) {
  const int64_t embedding = kVocabulary * kDim;
  const int64_t norms = 2 * kLayers * kDim + kDim;
  const int64_t attention = kLayers * (8 * 8 + 4 * 8 + 4 * 8 + 8 * 8);
  const int64_t mlp = kLayers * 3 * kHidden * kDim;
  const int64_t rope = kSequence * 4;
  return embedding + norms + attention + mlp + rope + (tied ? 0 : embedding);
}

// A file whose float number i has the value i.
std::vector<float> FileWords(const std::vector<int32_t>& header,
                             int64_t floats) {
  std::vector<float> words(header.size() + static_cast<size_t>(floats));
  std::memcpy(words.data(), header.data(), header.size() * sizeof(int32_t));
  for (int64_t i = 0; i < floats; ++i) {
    words[header.size() + static_cast<size_t>(i)] = static_cast<float>(i);
  }
  return words;
}

absl::Span<const std::byte> Bytes(const std::vector<float>& words) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(words.data()),
                             words.size() * sizeof(float));
}

std::string ErrorFor(const std::vector<int32_t>& header, int64_t floats) {
  const std::vector<float> words = FileWords(header, floats);
  const auto file = Llama2cFile::Parse("model.bin", Bytes(words));
  EXPECT_FALSE(file.ok());
  EXPECT_THAT(std::string(file.status().message()), HasSubstr("model.bin"));
  return std::string(file.status().message());
}

std::string ErrorForField(size_t field, int32_t value) {
  std::vector<int32_t> header = TiedHeader();
  header[field] = value;
  return ErrorFor(header, FloatsFor(true));
}

TEST(Llama2cTest, ReadsHeaderAndTensorsInPlace) {
  const std::vector<float> words = FileWords(TiedHeader(), FloatsFor(true));
  const auto file = Llama2cFile::Parse("model.bin", Bytes(words));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->header().dim, kDim);
  EXPECT_EQ((*file)->header().vocabulary, kVocabulary);
  EXPECT_EQ((*file)->header().sequence_length, kSequence);
  EXPECT_TRUE((*file)->header().tied_head);
  EXPECT_EQ((*file)->names().size(), 2u + 9u * kLayers);

  // Layer 1 of q follows the embedding, both attention norms and layer 0 of q.
  const auto q = (*file)->Find("blk.1.attn_q.weight");
  ASSERT_TRUE(q.ok()) << q.status();
  EXPECT_EQ(q->shape, Shape({kDim, kDim}));
  EXPECT_EQ(q->As<float>()[0], static_cast<float>(5 * 8 + 2 * 8 + 64));
  const auto k = (*file)->Find("blk.0.attn_k.weight");
  ASSERT_TRUE(k.ok());
  EXPECT_EQ(k->shape, Shape({4, kDim}));
  const auto down = (*file)->Find("blk.0.ffn_down.weight");
  ASSERT_TRUE(down.ok());
  EXPECT_EQ(down->shape, Shape({kDim, kHidden}));
  EXPECT_FALSE((*file)->Contains("output.weight"));
  EXPECT_EQ((*file)->Find("output.weight").status().code(),
            absl::StatusCode::kNotFound);
}

TEST(Llama2cTest, NegativeVocabularyMeansAHeadOfItsOwn) {
  std::vector<int32_t> header = TiedHeader();
  header[5] = -kVocabulary;
  const std::vector<float> words = FileWords(header, FloatsFor(false));
  const auto file = Llama2cFile::Parse("model.bin", Bytes(words));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_FALSE((*file)->header().tied_head);
  const auto head = (*file)->Find("output.weight");
  ASSERT_TRUE(head.ok());
  EXPECT_EQ(head->shape, Shape({kVocabulary, kDim}));
  // It is the end of the file, behind the rotary tables.
  EXPECT_EQ(head->As<float>().back(), static_cast<float>(FloatsFor(false) - 1));
}

TEST(Llama2cTest, OpensAFileOnDisk) {
  const std::string path = ::testing::TempDir() + "/llama2c_test.bin";
  const std::vector<float> words = FileWords(TiedHeader(), FloatsFor(true));
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(words.data()),
             static_cast<std::streamsize>(words.size() * sizeof(float)));
  const auto file = Llama2cFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->path(), path);
  EXPECT_EQ((*file)->Find("token_embd.weight")->As<float>()[3], 3.0f);
}

TEST(Llama2cTest, RejectsFileShorterThanItsHeader) {
  EXPECT_THAT(ErrorFor({kDim, kHidden}, 0), HasSubstr("28 bytes"));
}

TEST(Llama2cTest, RejectsLengthThatDoesNotFitTheHeader) {
  EXPECT_THAT(ErrorFor(TiedHeader(), FloatsFor(true) - 1),
              HasSubstr("asks for"));
  EXPECT_THAT(ErrorFor(TiedHeader(), FloatsFor(true) + 1),
              HasSubstr("asks for"));
}

TEST(Llama2cTest, RejectsSizesOutOfRange) {
  EXPECT_THAT(ErrorForField(0, 0), HasSubstr("dim is 0"));
  EXPECT_THAT(ErrorForField(0, -8), HasSubstr("dim is -8"));
  EXPECT_THAT(ErrorForField(1, INT32_MAX), HasSubstr("hidden_dim"));
  EXPECT_THAT(ErrorForField(2, -1), HasSubstr("layers is -1"));
  EXPECT_THAT(ErrorForField(2, INT32_MAX), HasSubstr("layers"));
  EXPECT_THAT(ErrorForField(3, 0), HasSubstr("heads is 0"));
  EXPECT_THAT(ErrorForField(4, 0), HasSubstr("kv_heads is 0"));
  EXPECT_THAT(ErrorForField(5, 0), HasSubstr("vocabulary is 0"));
  EXPECT_THAT(ErrorForField(5, INT32_MIN), HasSubstr("vocabulary"));
  EXPECT_THAT(ErrorForField(6, 0), HasSubstr("sequence is 0"));
}

TEST(Llama2cTest, RejectsHeadsThatDoNotDivide) {
  EXPECT_THAT(ErrorForField(3, 3), HasSubstr("head dimension"));
  EXPECT_THAT(ErrorForField(3, 8), HasSubstr("even head dimension"));
  EXPECT_THAT(ErrorForField(4, 4), HasSubstr("do not divide"));
}

}  // namespace
}  // namespace nibble
