// A decode step allocates nothing: not in the model, the sampler, the stop
// strings or the cache, save for one block every kPageTokens tokens.
//
// Both ways of taking memory are counted: operator new, replaced here, and
// aligned_alloc, wrapped by the linker (see BUILD.bazel).

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "absl/base/attributes.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "runtime/engine.h"
#include "runtime/kv_cache.h"
#include "runtime/sampler.h"
#include "runtime/stop_matcher.h"
#include "testing/matchers.h"
#include "testing/quantized_model.h"
#include "testing/tiny_model.h"

namespace {

std::atomic<int64_t> g_allocations = 0;

}  // namespace

// Not inlined, so that compilers do not pair one of them with malloc or free.
ABSL_ATTRIBUTE_NOINLINE void* operator new(size_t size) {
  g_allocations.fetch_add(1, std::memory_order_relaxed);
  void* const memory = std::malloc(size);
  if (memory == nullptr) std::abort();
  return memory;
}
ABSL_ATTRIBUTE_NOINLINE void operator delete(void* memory) noexcept {
  std::free(memory);
}
ABSL_ATTRIBUTE_NOINLINE void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}

extern "C" {
void* __real_aligned_alloc(size_t alignment, size_t size);
void* __wrap_aligned_alloc(size_t alignment, size_t size) {
  g_allocations.fetch_add(1, std::memory_order_relaxed);
  return __real_aligned_alloc(alignment, size);
}
}  // extern "C"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;

struct Setting {
  int threads;
  bool packed;  // INT4 weights in a .nib file, and so an int8 cache
};

class AllocationTest : public ::testing::TestWithParam<Setting> {
 protected:
  void SetUp() override {
    const std::string folder = ::testing::TempDir() + "/allocation_model";
    nibble::testing::TinyModelOptions model;
    model.max_positions = 1000;
    ASSERT_THAT(nibble::testing::WriteTinyLlama(folder, model), IsOk());
    EngineOptions options;
    options.model_path = folder;
    options.threads = GetParam().threads;
    if (GetParam().packed) {
      options.model_path = folder + ".nib";
      nibble::testing::PackModel(folder, options.model_path);
    }
    NIBBLE_ASSERT_OK_AND_ASSIGN(engine_, Engine::Open(options));
    NIBBLE_ASSERT_OK_AND_ASSIGN(sequence_, engine_->NewSequence());
    logits_.resize(engine_->vocabulary());
    ASSERT_THAT(engine_->Prefill(*sequence_, {1, 2, 3}, Logits()), IsOk());
  }

  absl::Span<float> Logits() { return absl::MakeSpan(logits_); }

  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Sequence> sequence_;
  std::vector<float> logits_;
};

TEST(CountingTest, CountsBothKinds) {
  const int64_t before = g_allocations;
  // A call by name: compilers may leave out a new-expression.
  void* const memory = ::operator new(sizeof(int));
  const AlignedBuffer buffer(100);
  EXPECT_EQ(g_allocations - before, 2);
  ::operator delete(memory);
}

TEST_P(AllocationTest, DecodeAllocatesOnlyAtPageBoundaries) {
  ASSERT_THAT(engine_->Decode(*sequence_, 4, Logits()), IsOk());
  for (int step = 0; step < 200; ++step) {
    const bool new_page = sequence_->position() % kPageTokens == 0;
    const int64_t before = g_allocations;
    const bool ok = engine_->Decode(*sequence_, step % 97, Logits()).ok();
    const int64_t allocated = g_allocations - before;
    ASSERT_TRUE(ok);
    if (!new_page) {
      EXPECT_EQ(allocated, 0) << "at " << sequence_->position();
    }
  }
}

TEST_P(AllocationTest, SamplerAllocatesNothing) {
  SamplingOptions options;
  options.repetition_penalty = 1.1;
  options.presence_penalty = 0.1;
  options.logit_bias = {{5, 1.0f}};
  options.min_p = 0.01;
  for (double temperature : {0.0, 1.0}) {
    for (int64_t top_k : {0, 40}) {
      options.temperature = temperature;
      options.top_k = top_k;
      options.top_p = 0.9;
      NIBBLE_ASSERT_OK_AND_ASSIGN(Sampler sampler,
                                  Sampler::Create(options, 97));
      const std::vector<float> original = logits_;
      for (int step = 0; step < 100; ++step) {
        std::copy(original.begin(), original.end(), logits_.begin());
        const int64_t before = g_allocations;
        const bool ok = sampler.Sample(Logits()).ok();
        const int64_t allocated = g_allocations - before;
        ASSERT_TRUE(ok);
        EXPECT_EQ(allocated, 0) << "step " << step;
      }
    }
  }
}

TEST_P(AllocationTest, StopMatcherAllocatesNothingOnceItsBuffersHaveGrown) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      StopMatcher matcher, StopMatcher::Create({"a rather long stop string"}));
  std::string out;
  out.reserve(10000);
  matcher.Push("a rather long stop strinx", &out);
  const int64_t before = g_allocations;
  for (int i = 0; i < 100; ++i) matcher.Push("a rather long stop stri ", &out);
  EXPECT_EQ(g_allocations - before, 0);
}

INSTANTIATE_TEST_SUITE_P(Settings, AllocationTest,
                         ::testing::Values(Setting{1, false}, Setting{2, false},
                                           Setting{1, true}, Setting{2, true}));

}  // namespace
}  // namespace nibble
