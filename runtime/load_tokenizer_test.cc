#include "runtime/load_tokenizer.h"

#include <filesystem>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/checkpoint.h"
#include "models/registry.h"
#include "testing/gguf_builder.h"
#include "testing/matchers.h"
#include "testing/shared_data.h"
#include "testing/tiny_model.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using ::nibble::testing::IsOk;
using ::nibble::testing::RunfilePath;
using ::nibble::testing::SharedDataPath;
using ::nibble::testing::StatusIs;
using ::testing::HasSubstr;

constexpr char kText[] = "Prince Andrew looked at the naïve Count Ilyá.";

TEST(OpenTokenizerTest, FolderJsonAndModelAgree) {
  const std::string json = RunfilePath("apps/bundled_model/tokenizer.json");
  const std::string folder = fs::path(json).parent_path().string();
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto from_folder, OpenTokenizer(folder));
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto from_json, OpenTokenizer(json));
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto from_model,
                              OpenTokenizer(folder + "/tokenizer.model"));
  const auto ids = from_folder->Encode(kText);
  EXPECT_GT(ids.size(), 5u);
  EXPECT_EQ(from_json->Encode(kText), ids);
  Tokenizer::EncodeOptions plain;
  plain.add_special_tokens = false;  // tokenizer.model says nothing of them
  EXPECT_EQ(from_model->Encode(kText, plain),
            from_folder->Encode(kText, plain));
}

TEST(OpenTokenizerTest, GgufIsRecognisedByItsMagic) {
  const std::string path = ::testing::TempDir() + "/vocabulary.bin";
  nibble::testing::GgufBuilder builder;
  builder.String("tokenizer.ggml.model", "llama")
      .Strings("tokenizer.ggml.tokens",
               {"<unk>", "<s>", "</s>", "\u2581", "a", "b", "\u2581a"})
      .Floats("tokenizer.ggml.scores", {0, 0, 0, -4, -3, -2, -1})
      .Ints("tokenizer.ggml.token_type", {2, 3, 3, 1, 1, 1, 1})
      .Uint("tokenizer.ggml.bos_token_id", 1)
      .Uint("tokenizer.ggml.eos_token_id", 2)
      .Uint("tokenizer.ggml.unknown_token_id", 0);
  builder.Write(path);
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto tokenizer, OpenTokenizer(path));
  EXPECT_THAT(tokenizer->Encode("ab"), ::testing::ElementsAre(1, 6, 5));
  EXPECT_EQ(tokenizer->eos_id(), 2);
}

TEST(OpenTokenizerTest, FolderWithoutTokenizerIsNotFound) {
  const std::string folder = ::testing::TempDir() + "/nothing_here";
  fs::create_directories(folder);
  EXPECT_THAT(OpenTokenizer(folder), StatusIs(absl::StatusCode::kNotFound,
                                              HasSubstr("tokenizer.json")));
}

TEST(OpenTokenizerTest, MissingFileIsNamed) {
  for (const char* name : {"/absent.json", "/absent.model", "/absent.gguf"}) {
    const std::string path = absl::StrCat(::testing::TempDir(), name);
    const absl::Status status = OpenTokenizer(path).status();
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
  }
}

TEST(LoadTokenizerTest, FolderWithoutTokenizerHasNone) {
  const std::string folder = ::testing::TempDir() + "/no_tokenizer";
  ASSERT_THAT(nibble::testing::WriteTinyLlama(
                  folder, nibble::testing::TinyModelOptions()),
              IsOk());
  NIBBLE_ASSERT_OK_AND_ASSIGN(Checkpoint checkpoint, OpenCheckpoint(folder));
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto tokenizer, LoadTokenizer(checkpoint));
  EXPECT_EQ(tokenizer, nullptr);
}

TEST(LoadTokenizerTest, BrokenTokenizerIsAnErrorAndNotNone) {
  const std::string folder = ::testing::TempDir() + "/broken_tokenizer";
  ASSERT_THAT(nibble::testing::WriteTinyLlama(
                  folder, nibble::testing::TinyModelOptions()),
              IsOk());
  nibble::testing::WriteText(folder + "/tokenizer.json", "{");
  NIBBLE_ASSERT_OK_AND_ASSIGN(Checkpoint checkpoint, OpenCheckpoint(folder));
  const absl::Status status = LoadTokenizer(checkpoint).status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer.json"));
}

TEST(LoadTokenizerTest, GgufModelBringsItsVocabulary) {
  const auto path = SharedDataPath("llama-stories260K/stories260K.gguf");
  if (!path) GTEST_SKIP() << "shared data is not beside the checkout";
  NIBBLE_ASSERT_OK_AND_ASSIGN(Checkpoint checkpoint, OpenCheckpoint(*path));
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto tokenizer, LoadTokenizer(checkpoint));
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->vocabulary_size(), 512);
}

TEST(LoadTokenizerTest, Llama2cModelFindsTheFileBesideIt) {
  const auto path = SharedDataPath("llama-stories260K/stories260K.bin");
  const auto gguf = SharedDataPath("llama-stories260K/stories260K.gguf");
  if (!path || !gguf) GTEST_SKIP() << "shared data is not beside the checkout";
  NIBBLE_ASSERT_OK_AND_ASSIGN(Checkpoint checkpoint, OpenCheckpoint(*path));
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto tokenizer, LoadTokenizer(checkpoint));
  ASSERT_NE(tokenizer, nullptr);
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto same, OpenTokenizer(*gguf));
  const std::string text = "Once upon a time, there was a little girl.";
  EXPECT_EQ(tokenizer->Encode(text), same->Encode(text));
}

}  // namespace
}  // namespace nibble
