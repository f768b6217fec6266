#include "kernels/attention/attention.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <new>

#include "absl/log/check.h"
#include "kernels/attention/attention_kernels.h"
#include "kernels/attention/attention_task.h"
#include "kernels/attention/int8_page.h"
#include "kernels/attention/partial_result.h"
#include "kernels/elementwise/kernel_table.h"

namespace nibble {
namespace {

// A parallel region pays when its work exceeds its cost, about 2 us: 2^17
// multiply-adds at the 60 GMAC/s of one core.
constexpr double kMinParallelMacs = 1 << 17;

// Tasks per thread that a call is cut into where it can be: enough for the
// threads to finish within a fraction of a task of each other.
constexpr int64_t kTasksPerThread = 4;

// Blocks of a split task at least; below it unpacking the queries and joining
// show.
constexpr int64_t kMinSplitBlocks = 2;

// Floats of partial results at most (32 MiB); a call that needs more runs
// unsplit, with fewer tasks.
constexpr int64_t kMaxPartialFloats = int64_t{1} << 23;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t RoundUp(int64_t bytes) { return CeilDiv(bytes, 64) * 64; }

// Key blocks that the given queries of a sequence see.
KeyRange BlocksOf(const AttentionSequence& sequence,
                  const AttentionParams& params, int64_t token_begin,
                  int64_t token_end) {
  const KeyRange first = VisibleKeys(sequence, params, token_begin);
  const KeyRange last = VisibleKeys(sequence, params, token_end - 1);
  return {first.begin / kKeyBlock, CeilDiv(last.end, kKeyBlock)};
}

// How one sequence is cut: for each KV head, chunks of rows; each chunk's
// blocks in `splits` parts. A unit is one chunk of one head.
struct SequencePlan {
  int64_t chunks;
  int64_t chunk_rows;
  int64_t units;
  int64_t splits;
};

class Plan {
 public:
  Plan(absl::Span<const AttentionSequence> batch, const AttentionParams& params,
       const AttentionKernels& kernels, int threads)
      : batch_(batch), params_(params), kernels_(kernels) {
    for (const AttentionSequence& sequence : batch) {
      const SequencePlan plan = Cut(sequence);
      units_ += plan.units;
      macs_ += Macs(sequence);
      head_dim_ = std::max(head_dim_, sequence.kv.head_dim);
    }
    if (threads > 1 && kernels.join != nullptr && macs_ > kMinParallelMacs) {
      wanted_splits_ = CeilDiv(kTasksPerThread * threads, units_);
    }
    Count();
    if (partial_floats_ > kMaxPartialFloats) {
      wanted_splits_ = 1;
      Count();
    }
  }

  int64_t tasks() const { return tasks_; }
  bool worth_threads() const { return tasks_ > 1 && macs_ > kMinParallelMacs; }

  // Scratch is laid out as: counters of unfinished parts [units], partial
  // results, then one task's scratch per thread.
  int64_t ScratchBytes(int threads) const {
    return CounterBytes() + PartialBytes() + threads * TaskBytes();
  }
  void PlaceIn(std::byte* scratch) {
    scratch_ = scratch;
    if (wanted_splits_ == 1) return;
    for (int64_t unit = 0; unit < units_; ++unit) {
      new (Counter(unit)) std::atomic<int64_t>(0);
    }
  }

  void Run(int64_t task, int thread) const {
    float* const scratch = reinterpret_cast<float*>(
        scratch_ + CounterBytes() + PartialBytes() + thread * TaskBytes());
    int64_t unit_base = 0;
    float* partials = reinterpret_cast<float*>(scratch_ + CounterBytes());
    for (const AttentionSequence& sequence : batch_) {
      const SequencePlan plan = Cut(sequence);
      if (task < plan.units * plan.splits) {
        RunUnit(sequence, plan, task, unit_base, partials, scratch);
        return;
      }
      task -= plan.units * plan.splits;
      unit_base += plan.units;
      partials += PartialsOf(sequence, plan);
    }
  }

 private:
  int64_t Group(const AttentionSequence& sequence) const {
    return params_.heads / sequence.kv.kv_heads;
  }

  SequencePlan Cut(const AttentionSequence& sequence) const {
    const int64_t rows = sequence.q.rows * Group(sequence);
    SequencePlan plan;
    plan.chunks = CeilDiv(rows, kMaxRows);
    plan.chunk_rows = kMaxRows;
    plan.units = plan.chunks * sequence.kv.kv_heads;
    plan.splits = 1;
    if (wanted_splits_ > 1 && rows > 0) {
      const KeyRange blocks = BlocksOf(sequence, params_, 0, sequence.q.rows);
      plan.splits = std::clamp<int64_t>(
          (blocks.end - blocks.begin) / kMinSplitBlocks, 1, wanted_splits_);
    }
    return plan;
  }

  double Macs(const AttentionSequence& sequence) const {
    return 2.0 * static_cast<double>(sequence.kv_length) *
           static_cast<double>(sequence.q.rows) *
           static_cast<double>(params_.heads * sequence.kv.head_dim);
  }

  // Of all units of a sequence; a unit has room for every block.
  int64_t PartialsOf(const AttentionSequence& sequence,
                     const SequencePlan& plan) const {
    if (plan.splits == 1) return 0;
    return plan.units * UnitPartials(sequence);
  }
  int64_t UnitPartials(const AttentionSequence& sequence) const {
    const KeyRange blocks = BlocksOf(sequence, params_, 0, sequence.q.rows);
    return (blocks.end - blocks.begin) * PartialFloats(sequence.kv.head_dim);
  }

  void Count() {
    tasks_ = 0;
    partial_floats_ = 0;
    for (const AttentionSequence& sequence : batch_) {
      const SequencePlan plan = Cut(sequence);
      tasks_ += plan.units * plan.splits;
      partial_floats_ += PartialsOf(sequence, plan);
    }
  }

  int64_t CounterBytes() const {
    if (wanted_splits_ == 1) return 0;
    return RoundUp(units_ * static_cast<int64_t>(sizeof(std::atomic<int64_t>)));
  }
  int64_t PartialBytes() const {
    return RoundUp(partial_floats_ * static_cast<int64_t>(sizeof(float)));
  }
  int64_t TaskBytes() const {
    return RoundUp(std::max(kernels_.scratch_floats(head_dim_),
                            kernels_.int8.scratch_floats(head_dim_)) *
                   static_cast<int64_t>(sizeof(float)));
  }
  std::atomic<int64_t>* Counter(int64_t unit) const {
    return reinterpret_cast<std::atomic<int64_t>*>(scratch_) + unit;
  }

  // Part `task` of a sequence: the last chunks come first, since under a causal
  // mask they see the most keys.
  void RunUnit(const AttentionSequence& sequence, const SequencePlan& plan,
               int64_t task, int64_t unit_base, float* partials,
               float* scratch) const {
    const int64_t split = task % plan.splits;
    const int64_t unit = task / plan.splits;
    const int64_t chunk = plan.chunks - 1 - unit / sequence.kv.kv_heads;
    const int64_t group = Group(sequence);
    AttentionTask part;
    part.sequence = &sequence;
    part.params = &params_;
    part.kv_head = unit % sequence.kv.kv_heads;
    part.row_begin = chunk * plan.chunk_rows;
    part.row_end =
        std::min(part.row_begin + plan.chunk_rows, sequence.q.rows * group);
    const KeyRange blocks = BlocksOf(sequence, params_, part.row_begin / group,
                                     (part.row_end - 1) / group + 1);
    part.block_begin = blocks.begin;
    part.block_end = blocks.end;
    part.partials = nullptr;
    const auto attend = sequence.kv.dtype == DType::kI8 ? kernels_.int8.attend
                                                        : kernels_.attend;
    if (plan.splits == 1) {
      attend(part, scratch);
      return;
    }
    const int64_t count = blocks.end - blocks.begin;
    float* const first = partials + unit * UnitPartials(sequence);
    part.block_begin = blocks.begin + count * split / plan.splits;
    part.block_end = blocks.begin + count * (split + 1) / plan.splits;
    part.partials = first + (part.block_begin - blocks.begin) *
                                PartialFloats(sequence.kv.head_dim);
    attend(part, scratch);
    // Whoever finishes last joins: in order of blocks, so it does not matter
    // who.
    std::atomic<int64_t>* const done = Counter(unit_base + unit);
    if (done->fetch_add(1, std::memory_order_acq_rel) + 1 < plan.splits) return;
    part.block_begin = blocks.begin;
    part.block_end = blocks.end;
    part.partials = first;
    kernels_.join(part, scratch);
  }

  const absl::Span<const AttentionSequence> batch_;
  const AttentionParams& params_;
  const AttentionKernels& kernels_;
  int64_t wanted_splits_ = 1;
  int64_t units_ = 0;
  int64_t tasks_ = 0;
  int64_t partial_floats_ = 0;
  int64_t head_dim_ = 1;
  double macs_ = 0.0;
  std::byte* scratch_ = nullptr;
};

void CheckSequence(const AttentionSequence& sequence,
                   const AttentionParams& params) {
  const KvView& kv = sequence.kv;
  CHECK(kv.dtype == DType::kF32 || kv.dtype == DType::kBF16 ||
        kv.dtype == DType::kI8);
  CHECK(kv.dtype != DType::kI8 ||
        (kv.page_tokens % kInt8Group == 0 && kv.head_dim <= kInt8MaxDim));
  CHECK(kv.kv_heads > 0 && params.heads % kv.kv_heads == 0)
      << params.heads << " query heads over " << kv.kv_heads << " KV heads";
  CHECK_EQ(sequence.q.cols, params.heads * kv.head_dim);
  CHECK_EQ(sequence.out.cols, sequence.q.cols);
  CHECK_EQ(sequence.out.rows, sequence.q.rows);
  CHECK_LE(sequence.kv_length, kv.capacity());
  CHECK(!params.causal ||
        sequence.kv_length >= sequence.first_position + sequence.q.rows)
      << "queries up to " << sequence.first_position + sequence.q.rows
      << " over " << sequence.kv_length << " stored tokens";
}

}  // namespace

void Attention(absl::Span<const AttentionSequence> batch,
               const AttentionParams& params, ThreadPool& pool) {
  for (const AttentionSequence& sequence : batch) {
    CheckSequence(sequence, params);
  }
  const AttentionKernels& kernels = SelectKernels(AttentionTable());
  Plan plan(batch, params, kernels, pool.threads());
  const int threads = plan.worth_threads() ? pool.threads() : 1;
  plan.PlaceIn(pool.Scratch(static_cast<size_t>(plan.ScratchBytes(threads))));
  if (threads == 1) {
    for (int64_t task = 0; task < plan.tasks(); ++task) plan.Run(task, 0);
    return;
  }
  std::atomic<int64_t> next{0};
  pool.ParallelFor(threads, [&](int64_t, int64_t, int thread) {
    for (int64_t task = next.fetch_add(1, std::memory_order_relaxed);
         task < plan.tasks();
         task = next.fetch_add(1, std::memory_order_relaxed)) {
      plan.Run(task, thread);
    }
  });
}

}  // namespace nibble
