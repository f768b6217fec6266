#include "tokenizer/tokenizer.h"

#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "testing/shared_data.h"
#include "tokenizer/test_vocabularies.h"

namespace nibble {
namespace {

using Ids = std::vector<int32_t>;
using ::nibble::testing::RunfilePath;
using ::testing::HasSubstr;

constexpr size_t kTenMegabytes = 10'000'000;

// Folder with the tokenizer of apps/bundled_model.
std::string BundledFolder() { return RunfilePath("apps/bundled_model"); }

std::unique_ptr<Tokenizer> Loaded(
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer) {
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

TEST(EncodeTest, EmptyTextHasNoTokensOfItsOwn) {
  EXPECT_EQ(FromJson(ByteLevelJson({}))->Encode(""), Ids());
  EXPECT_EQ(FromJson(CharacterJson({"a"}, {}))->Encode(""), Ids({1}));
}

TEST(EncodeTest, EveryByteStringSurvivesByteLevelTokens) {
  const auto tokenizer = FromJson(ByteLevelJson({{"a", "b"}, {"Ã", "©"}}));
  std::string text;
  for (int byte = 0; byte < 256; ++byte)
    text.push_back(static_cast<char>(byte));
  text += "ab\xC3\xA9\xE2\x82" + std::string(3, '\0') + "\xFF";
  std::string bytes;
  for (const int32_t id : tokenizer->Encode(text)) {
    if (id < 256) bytes.push_back(static_cast<char>(id));
    if (id == 256) bytes += "ab";
    if (id == 257) bytes += "\xC3\xA9";
  }
  EXPECT_EQ(bytes, text);
}

TEST(EncodeTest, InvalidUtf8FallsBackToBytes) {
  const auto tokenizer = FromJson(CharacterJson({"a"}, {}));
  const int32_t a = *tokenizer->TokenId("a");
  const int32_t space = *tokenizer->TokenId("▁");
  EXPECT_EQ(tokenizer->Encode(std::string("a\xFF\0\xE2\x96", 5), {false, true}),
            Ids({space, a, 3 + 0xFF, 3, 3 + 0xE2, 3 + 0x96}));
}

TEST(EncodeTest, PlainTextNeverBecomesControlTokens) {
  for (const auto& json :
       {ByteLevelJson({{"a", "b"}}), CharacterJson({"a", "<", "s", ">"}, {})}) {
    const auto tokenizer = FromJson(json);
    const Ids ids = tokenizer->Encode("<s>a</s><|end|>", {false, false});
    for (const int32_t id : ids) EXPECT_FALSE(tokenizer->IsSpecial(id)) << id;
    EXPECT_EQ(tokenizer->Decode(ids), "<s>a</s><|end|>");
    EXPECT_NE(tokenizer->Encode("<s>a</s><|end|>", {false, true}), ids);
  }
}

TEST(EncodeTest, TenMegabytesOfOneCharacterStayWhole) {
  for (const char c : {'a', ' ', '\'', '\xFF'}) {
    const std::string text(kTenMegabytes, c);
    const auto bytes =
        FromJson(ByteLevelJson({{"a", "a"}, {"aa", "aa"}, {"Ġ", "Ġ"}}));
    const Ids ids = bytes->Encode(text);
    const size_t expected = c == 'a'   ? kTenMegabytes / 4
                            : c == ' ' ? kTenMegabytes / 2
                                       : kTenMegabytes;
    EXPECT_EQ(ids.size(), expected);
    const auto characters =
        FromJson(CharacterJson({"a"}, {{"a", "a"}, {"aa", "aa"}, {"▁", "▁"}}));
    EXPECT_EQ(characters->Encode(text, {false, true}).size(), expected + 1);
  }
}

TEST(EncodeTest, LongTextsAndTheirPartsAgree) {
  // Long texts go through a cache of words, short ones do not.
  std::mt19937 random(5);
  const auto tokenizer =
      FromJson(ByteLevelJson(RandomMerges({"a", "b", "c", "Ġ"}, 100, &random)));
  Ids expected;
  std::string text;
  for (int i = 0; i < 5000; ++i) {
    const std::string word =
        " " + RandomText({"a", "b", "c"}, 1 + random() % 9, &random);
    text += word;
    for (const int32_t id : tokenizer->Encode(word)) expected.push_back(id);
  }
  EXPECT_EQ(tokenizer->Encode(text), expected);
}

TEST(EncodeTest, ThreadsShareATokenizer) {
  const auto tokenizer = Loaded(LoadTokenizerFolder(BundledFolder()));
  std::string text;
  for (int i = 0; i < 500; ++i) text += " Prince Andrew went to the war. é";
  const Ids expected = tokenizer->Encode(text);
  std::vector<Ids> results(4);
  std::vector<std::thread> threads;
  for (Ids& result : results) {
    threads.emplace_back([&] { result = tokenizer->Encode(text); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Ids& result : results) EXPECT_EQ(result, expected);
}

TEST(BundledTokenizer, JsonAndModelFilesAgree) {
  const auto json =
      Loaded(LoadTokenizerJson(BundledFolder() + "/tokenizer.json"));
  const auto model =
      Loaded(LoadSentencePieceModel(BundledFolder() + "/tokenizer.model"));
  EXPECT_EQ(json->vocabulary_size(), model->vocabulary_size());
  EXPECT_EQ(json->bos_id(), model->bos_id());
  std::mt19937 random(7);
  const std::vector<std::string> words = {
      " ", "  ", "Prince", " Andrew", "the",  "\n",       "é",  "漢字", "ing",
      ",", ".",  "\"",     "’s",      "1812", "Pierre's", "\t", "🙂", "war"};
  for (int i = 0; i < 500; ++i) {
    const std::string text = RandomText(words, 30, &random);
    const Ids ids = json->Encode(text);
    EXPECT_EQ(model->Encode(text), ids) << text;
    EXPECT_EQ(json->Decode(ids), text);
    EXPECT_EQ(model->Decode(ids), text);
  }
}

class FolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "/" +
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void Write(const std::string& name, const std::string& bytes) {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << bytes;
  }
  std::string Error() {
    const auto tokenizer = LoadTokenizerFolder(folder_);
    EXPECT_FALSE(tokenizer.ok());
    return std::string(tokenizer.status().message());
  }
  std::string folder_;
};

TEST_F(FolderTest, ConfigDecidesAboutBosAndEos) {
  Write("tokenizer.json", CharacterJson({"a"}, {}).dump());
  EXPECT_TRUE(Loaded(LoadTokenizerFolder(folder_))->adds_bos());
  Write("tokenizer_config.json",
        R"({"add_bos_token": false, "bos_token": "<s>", "eos_token":
            {"content": "</s>"}})");
  auto tokenizer = Loaded(LoadTokenizerFolder(folder_));
  EXPECT_FALSE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_EQ(tokenizer->Encode(""), Ids());
  Write("tokenizer_config.json",
        R"({"add_bos_token": true, "bos_token": "</s>", "add_eos_token": true,
            "eos_token": "<s>"})");
  tokenizer = Loaded(LoadTokenizerFolder(folder_));
  EXPECT_TRUE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->Encode(""), Ids({2, 1}));
}

TEST_F(FolderTest, NamesWhatIsWrongWithTheConfig) {
  Write("tokenizer.json", CharacterJson({"a"}, {}).dump());
  for (const std::string config :
       {"[]", "{", R"({"add_bos_token": 1})", R"({"bos_token": 7})",
        R"({"bos_token": {"content": 7}})",
        R"({"bos_token": "<none>", "add_bos_token": true})",
        R"({"add_eos_token": true})"}) {
    Write("tokenizer_config.json", config);
    EXPECT_THAT(Error(), HasSubstr("tokenizer_config.json")) << config;
  }
}

TEST_F(FolderTest, NamesWhatIsMissing) {
  EXPECT_THAT(Error(), HasSubstr("neither tokenizer.json nor tokenizer.model"));
  EXPECT_THAT(Error(), HasSubstr(folder_));
}

TEST_F(FolderTest, RejectsWhatIsNoRegularFile) {
  std::filesystem::create_directory(folder_ + "/tokenizer.json");
  EXPECT_THAT(Error(), HasSubstr("not a regular file"));
  std::filesystem::remove(folder_ + "/tokenizer.json");
  Write("tokenizer.json", "");
  EXPECT_THAT(Error(), HasSubstr("0 bytes"));
  std::filesystem::remove(folder_ + "/tokenizer.json");
  std::filesystem::create_symlink("tokenizer.json",
                                  folder_ + "/tokenizer.json");
  EXPECT_THAT(Error(), HasSubstr("tokenizer.json"));
}

std::string ErrorOf(const TokenizerFiles& files) {
  const auto tokenizer = MakeTokenizer(files);
  EXPECT_FALSE(tokenizer.ok());
  return std::string(tokenizer.status().message());
}

TEST_F(FolderTest, FilesInMemoryMakeTheSameTokenizer) {
  const std::string json = CharacterJson({"a"}, {}).dump();
  const std::string config = R"({"add_eos_token": true, "eos_token": "<s>"})";
  Write("tokenizer.json", json);
  Write("tokenizer_config.json", config);
  TokenizerFiles files;
  files.source = "model.nib";
  files.tokenizer_json = json;
  files.tokenizer_config_json = config;
  const auto from_memory = Loaded(MakeTokenizer(files));
  const auto from_folder = Loaded(LoadTokenizerFolder(folder_));
  EXPECT_EQ(from_memory->Encode("aa a"), from_folder->Encode("aa a"));
  EXPECT_EQ(from_memory->Encode(""), Ids({1, 1}));
}

TEST(TokenizerFilesTest, ReadsTheJsonFileBeforeTheOthers) {
  const std::string json = CharacterJson({"a"}, {}).dump();
  TokenizerFiles files;
  files.tokenizer_json = json;
  files.tokenizer_model = "broken";
  files.tokenizer_bin = "broken";
  EXPECT_TRUE(Loaded(MakeTokenizer(files))->adds_bos());
}

TEST(TokenizerFilesTest, NamesTheSourceAndTheFile) {
  const std::string json = CharacterJson({"a"}, {}).dump();
  TokenizerFiles files;
  files.source = "model.nib";
  EXPECT_THAT(ErrorOf(files), HasSubstr("model.nib has neither"));
  files.tokenizer_bin = "\x01";
  EXPECT_THAT(ErrorOf(files), HasSubstr("model.nib/tokenizer.bin"));
  files.tokenizer_model = "\x01";
  EXPECT_THAT(ErrorOf(files), HasSubstr("model.nib/tokenizer.model"));
  files.tokenizer_json = "{}";
  EXPECT_THAT(ErrorOf(files), HasSubstr("model.nib/tokenizer.json"));
  files.tokenizer_json = json;
  files.tokenizer_config_json = "[]";
  EXPECT_THAT(ErrorOf(files), HasSubstr("model.nib/tokenizer_config.json"));
}

}  // namespace
}  // namespace nibble
