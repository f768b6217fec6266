// Files that other tools wrote. Skipped where they are not at hand; the other
// tests of this package generate their own.
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/dtype.h"
#include "tensor/io/gguf.h"
#include "tensor/io/safetensors.h"
#include "tensor/io/tensor_source.h"
#include "tensor/shape.h"
#include "tensor/view.h"
#include "testing/shared_data.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

#define SHARED_DATA_OR_SKIP(path, relative)                                  \
  const std::optional<std::string> path = testing::SharedDataPath(relative); \
  if (!path) GTEST_SKIP() << "shared data is not beside the checkout"

// Every tensor is found, and its data can be read to the last byte.
int64_t ReadAll(const TensorSource& source) {
  int64_t bytes = 0;
  for (const std::string& name : source.names()) {
    const absl::StatusOr<TensorView> view = source.Find(name);
    EXPECT_TRUE(view.ok()) << view.status();
    if (!view.ok()) continue;
    volatile unsigned last = static_cast<unsigned>(view->data[view->bytes - 1]);
    (void)last;
    bytes += static_cast<int64_t>(view->bytes);
  }
  return bytes;
}

TEST(RealGgufTest, ReadsStories260K) {
  SHARED_DATA_OR_SKIP(path, "llama-stories260K/stories260K.gguf");
  const auto file = GgufFile::Open(*path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->version(), 3u);
  EXPECT_EQ((*file)->names().size(), 48u);
  EXPECT_EQ(*(*file)->GetString("general.architecture"), "llama");
  EXPECT_EQ(*(*file)->GetUint("llama.block_count"), 5u);
  EXPECT_EQ(*(*file)->GetUint("llama.attention.head_count_kv"), 4u);
  EXPECT_NEAR(*(*file)->GetFloat("llama.attention.layer_norm_rms_epsilon"),
              1e-5, 1e-12);
  EXPECT_EQ((*file)->GetStringArray("tokenizer.ggml.tokens")->size(), 512u);
  EXPECT_EQ((*file)->GetFloatArray("tokenizer.ggml.scores")->size(), 512u);
  EXPECT_EQ((*file)->GetIntArray("tokenizer.ggml.token_type")->size(), 512u);
  EXPECT_EQ((*file)->Find("token_embd.weight")->shape, Shape({512, 64}));
  EXPECT_EQ((*file)->Find("blk.0.attn_k.weight")->shape, Shape({32, 64}));
  EXPECT_GT(ReadAll(**file), 1000000);
}

TEST(RealGgufTest, ReadsVocabularies) {
  struct Case {
    const char* name;
    const char* model;
    size_t tokens;
    const char* first_merge;  // Null where there are none.
  };
  const Case cases[] = {
      {"llama-spm", "llama", 32000, nullptr},
      {"falcon", "gpt2", 65024, "\xc4\xa0 t"},
      {"gpt-2", "gpt2", 50257, "\xc4\xa0 t"},
      {"mpt", "gpt2", 50432, "\xc4\xa0 \xc4\xa0"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    SHARED_DATA_OR_SKIP(
        path, absl::StrCat("vocab-gguf/ggml-vocab-", c.name, ".gguf"));
    const auto file = GgufFile::Open(*path);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(*(*file)->GetString("tokenizer.ggml.model"), c.model);
    const auto tokens = (*file)->GetStringViews("tokenizer.ggml.tokens");
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    EXPECT_EQ(tokens->size(), c.tokens);
    EXPECT_EQ((*file)->GetIntArray("tokenizer.ggml.token_type")->size(),
              c.tokens);
    const auto merges = (*file)->GetStringArray("tokenizer.ggml.merges");
    ASSERT_EQ(merges.ok(), c.first_merge != nullptr);
    if (merges.ok()) {
      EXPECT_EQ(merges->front(), c.first_merge);
    }
    EXPECT_TRUE((*file)->names().empty());
  }
}

TEST(RealGgufTest, ReadsQuantizedCheckpoints) {
  for (const char* recipe : {"q4_0", "q4_1", "q4_k_m", "q8_0"}) {
    SCOPED_TRACE(recipe);
    const std::string name = absl::StrCat("tolstoy-llama-gguf-", recipe);
    SHARED_DATA_OR_SKIP(path,
                        absl::StrCat("quantized/", name, "/", name, ".gguf"));
    const auto file = GgufFile::Open(*path);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_GT(ReadAll(**file), 3000000);
    EXPECT_TRUE(IsQuantized((*file)->Find("blk.0.attn_q.weight")->dtype));
  }
}

TEST(RealSafetensorsTest, ReadsSingleFilesOfEveryDtype) {
  struct Case {
    const char* folder;
    const char* tensor;
    DType dtype;
    Shape shape;
  };
  const Case cases[] = {
      {"variants/llama-mha", "model.norm.weight", DType::kF32, {64}},
      {"variants/llama-bf16", "model.norm.weight", DType::kBF16, {96}},
      {"models/tolstoy-llama", "model.norm.weight", DType::kBF16, {256}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.folder);
    SHARED_DATA_OR_SKIP(path, c.folder);
    const auto source = OpenSafetensorsFolder(*path);
    ASSERT_TRUE(source.ok()) << source.status();
    EXPECT_GT(ReadAll(**source), 100000);
    const absl::StatusOr<TensorView> view = (*source)->Find(c.tensor);
    ASSERT_TRUE(view.ok()) << view.status();
    EXPECT_EQ(view->dtype, c.dtype);
    EXPECT_EQ(view->shape, c.shape);
  }
}

TEST(RealSafetensorsTest, ReadsShards) {
  SHARED_DATA_OR_SKIP(path, "variants/llama-f16-sharded");
  const auto source = OpenSafetensorsFolder(*path);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_THAT((*source)->path(), HasSubstr("index.json"));
  EXPECT_EQ((*source)->Find("model.embed_tokens.weight")->dtype, DType::kF16);
  EXPECT_GT(ReadAll(**source), 300000);
}

}  // namespace
}  // namespace nibble
