// Rows as wide as Falcon-7B's 4544 and Llama-2-7B's 11008, which groups of 128
// and more do not divide, or not evenly: a decoder on such INT4 weights, with
// groups of every size.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder.h"
#include "models/decoder_config.h"
#include "tensor/dtype.h"
#include "testing/decoder_session.h"
#include "testing/matchers.h"
#include "testing/quantized_model.h"
#include "testing/random_checkpoint.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

using testing::IsOk;
using testing::QuantizedModel;
using testing::RandomCheckpoint;

// 71 heads on one, whose output is 568 wide; a small MLP and vocabulary.
DecoderConfig WideHidden() {
  DecoderConfig config = testing::TinyDecoderConfig();
  config.norm = NormKind::kLayer;
  config.residual = Residual::kParallel;
  config.norm_layout = NormLayout::kShared;
  config.gated = false;
  config.tied_head = true;
  config.layers = 1;
  config.windows = {0};
  config.hidden = 4544;
  config.heads = 71;
  config.kv_heads = 1;
  return config;
}

DecoderConfig WideFfn() {
  DecoderConfig config = testing::TinyDecoderConfig();
  config.layers = 1;
  config.windows = {0};
  config.ffn = 11008;
  return config;
}

constexpr int64_t kTokens = 3;

class WideRowsTest : public ::testing::TestWithParam<int64_t> {
 protected:
  void ExpectInt4GivesWhatTheSameFloatsGive(const DecoderConfig& config) {
    ThreadPool pool(1);
    const Checkpoint checkpoint = RandomCheckpoint(config, 11);
    for (const bool symmetric : {false, true}) {
      const RoundingOptions rounding = {4, GetParam(), symmetric};
      QuantizedModel model =
          testing::RoundCheckpoint(checkpoint, rounding, pool);
      QuantizedModel same =
          testing::RoundCheckpoint(checkpoint, rounding, pool);
      const std::vector<float> want =
          Logits(*testing::LoadF32Decoder(model.dequantized, pool), pool);
      EXPECT_EQ(Logits(*Make(model, Activations::kF32), pool), want);
      ExpectNear(Logits(*Make(same, Activations::kInt8), pool), want);
    }
  }

 private:
  static std::unique_ptr<Decoder> Make(QuantizedModel& model,
                                       Activations activations) {
    DecoderOptions options;
    options.activations = activations;
    auto decoder = Decoder::Create(std::move(model.weights), options);
    EXPECT_THAT(decoder, IsOk());
    return *std::move(decoder);
  }

  static std::vector<float> Logits(const Decoder& decoder, ThreadPool& pool) {
    testing::DecoderSession session(decoder, DType::kF32, 16, pool);
    return session.Append(
        testing::RandomValues(5).Tokens(kTokens, decoder.config().vocabulary),
        /*all_logits=*/true);
  }

  // The first token's logits: it sees itself alone, while the scores of later
  // ones are sums of so many random products that softmax picks one key, and
  // rounding may change which.
  //
  // As PackedDecoderTest: four products in a row, each off by sqrt(1/12) / 127
  // of a group's largest activation, which is some 3.3 deviations of 1024
  // normal values: sqrt(4) * 0.75% = 1.5%. Twice that.
  static void ExpectNear(const std::vector<float>& got,
                         const std::vector<float>& want) {
    double error = 0.0, signal = 0.0;
    for (size_t i = 0; i < want.size() / kTokens; ++i) {
      const double difference = static_cast<double>(got[i]) - want[i];
      error += difference * difference;
      signal += static_cast<double>(want[i]) * want[i];
    }
    EXPECT_LE(std::sqrt(error / signal), 0.03);
    EXPECT_GT(error, 0.0);  // They were rounded.
  }
};

TEST_P(WideRowsTest, HiddenOf4544) {
  ExpectInt4GivesWhatTheSameFloatsGive(WideHidden());
}

TEST_P(WideRowsTest, FfnOf11008) {
  ExpectInt4GivesWhatTheSameFloatsGive(WideFfn());
}

INSTANTIATE_TEST_SUITE_P(GroupSizes, WideRowsTest,
                         ::testing::Values(32, 64, 128, 256, 512, 1024),
                         [](const ::testing::TestParamInfo<int64_t>& info) {
                           return absl::StrCat("G", info.param);
                         });

}  // namespace
}  // namespace nibble
