// The engine on packed models: what it takes from a .nib file, and what it
// refuses.

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder.h"
#include "models/registry.h"
#include "runtime/chat_template.h"
#include "runtime/engine.h"
#include "runtime/kv_cache.h"
#include "runtime/load_tokenizer.h"
#include "runtime/sequence.h"
#include "tensor/dtype.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"
#include "testing/matchers.h"
#include "testing/quantized_model.h"
#include "testing/shared_data.h"
#include "testing/tiny_model.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::IsOk;
using ::testing::NotNull;
using testing::StatusIs;
using testing::TinyModelOptions;
using testing::WriteTinyLlama;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
constexpr char kText[] = "Prince Andrew looked at the naïve Count Ilyá.";

std::string Path(const std::string& name) {
  return ::testing::TempDir() + "/packed_engine_" + name;
}

void CopyFile(const std::string& from, const std::string& to) {
  std::ofstream(to, std::ios::binary)
      << std::ifstream(from, std::ios::binary).rdbuf();
}

EngineOptions Options(const std::string& path) {
  EngineOptions options;
  options.model_path = path;
  options.threads = 2;
  return options;
}

// A model with the bundled model's tokenizer, as a folder and packed.
class PackedEngineTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    TinyModelOptions model;
    model.vocabulary = 4096;
    ASSERT_THAT(WriteTinyLlama(Folder(), model), IsOk());
    for (const std::string name :
         {"tokenizer.json", "tokenizer.model", "tokenizer_config.json"}) {
      CopyFile(testing::RunfilePath("apps/bundled_model/" + name),
               Folder() + "/" + name);
    }
    testing::PackModel(Folder(), Packed(),
                       {"tokenizer.json", "tokenizer_config.json"});
  }

  static std::string Folder() { return Path("folder"); }
  static std::string Packed() { return Path("model.nib"); }
};

// Greedy ids after a prompt.
std::vector<int32_t> Greedy(Engine& engine, int count) {
  const std::vector<int32_t> prompt = {1, 5, 9, 100, 4000, 77};
  std::vector<float> logits(static_cast<size_t>(engine.vocabulary()));
  auto sequence = engine.NewSequence();
  EXPECT_THAT(sequence, IsOk());
  EXPECT_THAT(engine.Prefill(**sequence, prompt, absl::MakeSpan(logits)),
              IsOk());
  std::vector<int32_t> ids;
  while (static_cast<int>(ids.size()) < count) {
    ids.push_back(static_cast<int32_t>(
        std::max_element(logits.begin(), logits.end()) - logits.begin()));
    EXPECT_THAT(engine.Decode(**sequence, ids.back(), absl::MakeSpan(logits)),
                IsOk());
  }
  return ids;
}

TEST_F(PackedEngineTest, DefaultsFollowTheIntegerWeights) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto engine, Engine::Open(Options(Packed())));
  EXPECT_EQ(engine->weights(), WeightFormat::kInt4);
  EXPECT_EQ(engine->decoder().activations(), Activations::kInt8);
  EXPECT_EQ(engine->kv_pool().layout().dtype, DType::kI8);
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto floats, Engine::Open(Options(Folder())));
  EXPECT_EQ(floats->weights(), WeightFormat::kBF16);
  EXPECT_EQ(floats->decoder().activations(), Activations::kF32);
  EXPECT_EQ(floats->kv_pool().layout().dtype, DType::kF32);
}

TEST_F(PackedEngineTest, OptionsOverrideTheDefaults) {
  EngineOptions options = Options(Packed());
  options.weights = WeightFormat::kInt4;  // what the file has
  options.activations = Activations::kF32;
  options.kv_cache = DType::kF32;
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto engine, Engine::Open(options));
  EXPECT_EQ(engine->decoder().activations(), Activations::kF32);
  EXPECT_EQ(engine->kv_pool().layout().dtype, DType::kF32);
}

TEST_F(PackedEngineTest, TextDoesNotDependOnThreadsOrChunks) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto engine, Engine::Open(Options(Packed())));
  const std::vector<int32_t> ids = Greedy(*engine, 40);
  EngineOptions options = Options(Packed());
  options.threads = 1;
  options.prefill_chunk = 4;
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto other, Engine::Open(options));
  EXPECT_EQ(Greedy(*other, 40), ids);
}

TEST_F(PackedEngineTest, TokenizerComesFromTheFile) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto folder, OpenTokenizer(Folder()));
  const std::vector<int32_t> ids = folder->Encode(kText);
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto engine, Engine::Open(Options(Packed())));
  ASSERT_THAT(engine->tokenizer(), NotNull());
  EXPECT_EQ(engine->tokenizer()->Encode(kText), ids);
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto alone, OpenTokenizer(Packed()));
  EXPECT_EQ(alone->Encode(kText), ids);
}

TEST_F(PackedEngineTest, SentencePieceModelServesToo) {
  const std::string path = Path("sentencepiece.nib");
  testing::PackModel(Folder(), path, {"tokenizer.model"});
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto folder, OpenTokenizer(Folder()));
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto tokenizer, OpenTokenizer(path));
  Tokenizer::EncodeOptions plain;
  plain.add_special_tokens = false;  // tokenizer.model says nothing of them
  EXPECT_EQ(tokenizer->Encode(kText, plain), folder->Encode(kText, plain));
}

TEST_F(PackedEngineTest, AModelWithoutATokenizerOpens) {
  const std::string path = Path("bare.nib");
  testing::PackModel(Folder(), path);
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto engine, Engine::Open(Options(path)));
  EXPECT_EQ(engine->tokenizer(), nullptr);
  EXPECT_THAT(OpenTokenizer(path),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("bare.nib")));
}

TEST_F(PackedEngineTest, NamesTheEmbeddedFileThatIsBroken) {
  const std::string path = Path("broken.nib");
  std::ofstream(Folder() + "/metadata.gguf") << "GGUF";
  testing::PackModel(Folder(), path, {"metadata.gguf"});
  EXPECT_THAT(Engine::Open(Options(path)),
              StatusIs(kInvalid, HasSubstr("broken.nib/metadata.gguf")));
}

TEST_F(PackedEngineTest, ChatTemplateComesFromTheFile) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto tokenizer, OpenTokenizer(Folder()));
  const std::vector<ChatMessage> turns = {{"user", "x"}};
  const std::string config = Folder() + "/tokenizer_config.json";
  const std::string jinja = Folder() + "/chat_template.jinja";
  const std::string before =
      testing::RunfilePath("apps/bundled_model/tokenizer_config.json");
  EXPECT_THAT(LoadChatTemplate(Packed(), *tokenizer),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(Packed())));

  testing::WriteText(config,
                     R"({"chat_template": "A{{messages[0].content}}"})");
  const std::string from_config = Path("config.nib");
  testing::PackModel(Folder(), from_config, {"tokenizer_config.json"});
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto chat,
                              LoadChatTemplate(from_config, *tokenizer));
  EXPECT_EQ(*chat->Render(turns), "Ax");

  testing::WriteText(jinja, "B{{messages[0].content}}");
  const std::string from_jinja = Path("jinja.nib");
  testing::PackModel(Folder(), from_jinja,
                     {"chat_template.jinja", "tokenizer_config.json"});
  NIBBLE_ASSERT_OK_AND_ASSIGN(chat, LoadChatTemplate(from_jinja, *tokenizer));
  EXPECT_EQ(*chat->Render(turns), "Bx");
  CopyFile(before, config);
}

TEST_F(PackedEngineTest, RefusesWeightsThatTheFileDoesNotHave) {
  EngineOptions options = Options(Packed());
  for (const WeightFormat format :
       {WeightFormat::kF32, WeightFormat::kBF16, WeightFormat::kInt8}) {
    options.weights = format;
    EXPECT_THAT(
        Engine::Open(options),
        StatusIs(kInvalid, AllOf(HasSubstr("weights"), HasSubstr(Packed()),
                                 HasSubstr("int4"))));
  }
}

TEST_F(PackedEngineTest, RefusesToQuantizeAFloatCheckpointInPassing) {
  EngineOptions options = Options(Folder());
  options.weights = WeightFormat::kInt4;
  EXPECT_THAT(
      Engine::Open(options),
      StatusIs(kInvalid, AllOf(HasSubstr("weights"), HasSubstr(Folder()))));
}

TEST_F(PackedEngineTest, MappedWeightsCountAsMemory) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto engine, Engine::Open(Options(Packed())));
  const int64_t weights = static_cast<int64_t>(engine->weight_bytes());
  EngineOptions options = Options(Packed());
  options.memory_limit = weights / 2;
  EXPECT_THAT(Engine::Open(options),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr(Packed()), HasSubstr("int4"))));
  options.memory_limit = weights + (int64_t{10} << 20);
  NIBBLE_ASSERT_OK_AND_ASSIGN(engine, Engine::Open(options));
  EXPECT_LE(engine->kv_pool().max_bytes(), int64_t{10} << 20);
  EXPECT_GT(engine->kv_pool().max_bytes(), int64_t{8} << 20);
}

TEST_F(PackedEngineTest, CreateRunsADecoderMadeInMemory) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto opened, Engine::Open(Options(Packed())));
  const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(Packed());
  ASSERT_THAT(checkpoint, IsOk());
  ThreadPool pool(1);
  auto decoder = Decoder::Load(*checkpoint, {}, pool);
  ASSERT_THAT(decoder, IsOk());
  EngineOptions options = Options("in memory");
  options.prefill_chunk = 3;
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      auto engine, Engine::Create(options, *std::move(decoder), nullptr));
  EXPECT_EQ(engine->path(), "in memory");
  EXPECT_EQ(engine->prefill_chunk(), 3);
  EXPECT_EQ(engine->tokenizer(), nullptr);
  EXPECT_EQ(engine->kv_pool().layout().dtype, DType::kI8);
  EXPECT_EQ(Greedy(*engine, 10), Greedy(*opened, 10));
}

}  // namespace
}  // namespace nibble
