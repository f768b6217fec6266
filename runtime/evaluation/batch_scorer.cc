#include "runtime/evaluation/batch_scorer.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/elementwise/rope.h"
#include "runtime/engine.h"
#include "runtime/evaluation/evaluation_set.h"
#include "runtime/kv_cache.h"
#include "runtime/sequence.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Logits of a pass, of each engine: 256 rows of a vocabulary of 131,072, enough
// for the matrix products to run at the speed of many rows.
constexpr int64_t kMaxLogitBytes = int64_t{128} << 20;

// Passes that the beginnings and endings of a pack fill: of each kind, the last
// pass is part empty, so that fewer would waste more.
constexpr int64_t kPassesPerPack = 8;

// Keys and values of a pack, of each engine, rounded up to whole blocks. A
// 7B model's block takes 64 MiB in f32.
constexpr int64_t kMaxPackKvBytes = int64_t{2} << 30;

}  // namespace

BatchScorer::BatchScorer(absl::Span<Engine* const> engines,
                         const Options& options)
    : engines_(engines.begin(), engines.end()), options_(options) {
  CHECK(!engines_.empty());
  if (options_.batch_tokens <= 0) {
    options_.batch_tokens = engines_[0]->prefill_chunk();
  }
  const int64_t vocabulary = engines_[0]->vocabulary();
  max_rows_ = std::clamp<int64_t>(
      kMaxLogitBytes / static_cast<int64_t>(sizeof(float)) / vocabulary, 1,
      options_.batch_tokens);
  share_prefixes_ = options_.share_prefixes;
  for (const Engine* engine : engines_) {
    CHECK_EQ(engine->vocabulary(), vocabulary);
    logits_.emplace_back(static_cast<size_t>(max_rows_ * vocabulary));
    // There the angles of a beginning depend on how long the text will be.
    const RopeConfig& rope = engine->config().rope;
    if (rope.style != RopeStyle::kNone &&
        rope.scaling.type == RopeScaling::kDynamic) {
      share_prefixes_ = false;
    }
  }
}

// Tokens that all sequences of an item begin with, and none of them scores.
int64_t BatchScorer::SharedTokens(const EvaluationItem& item) const {
  if (!share_prefixes_ || item.sequences.size() < 2) return 0;
  const std::vector<int32_t>& first = item.sequences[0].tokens;
  int64_t shared = item.sequences[0].first;
  for (const ScoredSequence& sequence : item.sequences) {
    shared = std::min(shared, sequence.first);
    const auto end = std::mismatch(first.begin(), first.begin() + shared,
                                   sequence.tokens.begin());
    shared = end.first - first.begin();
  }
  return shared;
}

// The last token of a sequence is scored, not read.
int64_t BatchScorer::TokensToRead(const EvaluationItem& item) const {
  const int64_t shared = SharedTokens(item);
  int64_t tokens = shared;
  for (const ScoredSequence& sequence : item.sequences) {
    tokens += static_cast<int64_t>(sequence.tokens.size()) - 1 - shared;
  }
  return tokens;
}

// At most: what is shared in full blocks is counted for each sequence.
int64_t BatchScorer::BlocksOf(const EvaluationItem& item) const {
  int64_t blocks = 0;
  for (const ScoredSequence& sequence : item.sequences) {
    blocks += static_cast<int64_t>(sequence.tokens.size()) / kPageTokens + 1;
  }
  return blocks;
}

// Items [begin, end) are read together: at least one.
size_t BatchScorer::PackEnd(absl::Span<const EvaluationItem* const> items,
                            size_t begin) const {
  int64_t max_blocks = INT64_MAX;
  for (const Engine* engine : engines_) {
    const KvBlockPool& pool = engine->kv_pool();
    const int64_t bytes = std::min(kMaxPackKvBytes, pool.max_bytes() / 2);
    max_blocks = std::min(max_blocks, bytes / pool.layout().block_bytes());
  }
  int64_t tokens = 0;
  int64_t blocks = 0;
  size_t end = begin;
  for (; end < items.size(); ++end) {
    tokens += TokensToRead(*items[end]);
    blocks += BlocksOf(*items[end]);
    const bool full =
        tokens > kPassesPerPack * options_.batch_tokens || blocks > max_blocks;
    if (full && end > begin) break;
  }
  return end;
}

absl::Status BatchScorer::Run(absl::Span<const EvaluationItem* const> items,
                              Sink sink) {
  done_ = total_ = 0;
  for (const EvaluationItem* item : items) total_ += TokensToRead(*item);
  int64_t sequence = 0;
  for (size_t begin = 0; begin < items.size();) {
    const size_t end = PackEnd(items, begin);
    const absl::Span<const EvaluationItem* const> pack =
        items.subspan(begin, end - begin);
    const absl::Status status = RunPack(pack, sequence, sink);
    if (!status.ok()) return status;
    for (const EvaluationItem* item : pack) {
      sequence += static_cast<int64_t>(item->sequences.size());
    }
    begin = end;
  }
  return absl::OkStatus();
}

// Gives `job` a sequence of each engine: empty, or one that holds the item's
// beginning.
absl::Status BatchScorer::StartStates(const Job* prefix, Job& job) {
  for (size_t i = 0; i < engines_.size(); ++i) {
    if (prefix != nullptr) {
      job.states.push_back(
          std::make_unique<Sequence>(prefix->states[i]->Fork()));
      continue;
    }
    absl::StatusOr<std::unique_ptr<Sequence>> state =
        engines_[i]->NewSequence();
    if (!state.ok()) return state.status();
    job.states.push_back(*std::move(state));
  }
  return absl::OkStatus();
}

absl::Status BatchScorer::RunPack(absl::Span<const EvaluationItem* const> items,
                                  int64_t first_sequence, Sink sink) {
  std::vector<Job> prefixes;  // one per item; empty where nothing is shared
  for (const EvaluationItem* item : items) {
    Job job;
    job.item = item;
    job.first_sequence = first_sequence;
    job.shared = true;
    job.end = SharedTokens(*item);
    first_sequence += static_cast<int64_t>(item->sequences.size());
    if (job.end > 0) {
      const absl::Status status = StartStates(nullptr, job);
      if (!status.ok()) return status;
    }
    prefixes.push_back(std::move(job));
  }
  absl::Status status = RunJobs(prefixes, sink);
  if (!status.ok()) return status;

  std::vector<Job> endings;
  for (const Job& prefix : prefixes) {
    for (size_t i = 0; i < prefix.item->sequences.size(); ++i) {
      Job job;
      job.item = prefix.item;
      job.first_sequence = prefix.first_sequence;
      job.sequence = i;
      job.position = prefix.end;
      job.end = static_cast<int64_t>(job.tokens().size()) - 1;
      if (job.position < job.end) {
        status = StartStates(prefix.end > 0 ? &prefix : nullptr, job);
        if (!status.ok()) return status;
      }
      endings.push_back(std::move(job));
    }
  }
  prefixes.clear();
  return RunJobs(endings, sink);
}

absl::Status BatchScorer::RunJobs(std::vector<Job>& jobs, Sink sink) {
  for (size_t next = 0; next < jobs.size();) {
    if (options_.cancelled && options_.cancelled()) {
      return absl::CancelledError("cancelled while reading the tasks");
    }
    const std::vector<Slice> pass = NextPass(jobs, next);
    if (pass.empty()) break;
    absl::Status status = RunPass(pass, sink);
    if (!status.ok()) return status;
    for (const Slice& slice : pass) {
      slice.job->position += slice.count;
      done_ += slice.count;
      // A shared beginning has yet to be forked from.
      const bool done = slice.job->position == slice.job->end;
      if (done && !slice.job->shared) slice.job->states.clear();
    }
    if (options_.progress) options_.progress(done_, total_);
  }
  return absl::OkStatus();
}

// The first of the job's positions whose logits are wanted; `end` if none is.
int64_t BatchScorer::FirstRow(const Job& job) {
  if (!job.shared) return job.item->sequences[job.sequence].first - 1;
  for (const ScoredSequence& sequence : job.item->sequences) {
    if (sequence.first == job.end) return job.end - 1;
  }
  return job.end;
}

// What the next pass reads of jobs from `next` on, which moves past those that
// it finishes. Empty: nothing is left.
std::vector<BatchScorer::Slice> BatchScorer::NextPass(std::vector<Job>& jobs,
                                                      size_t& next) const {
  std::vector<Slice> pass;
  int64_t room = options_.batch_tokens;
  int64_t rows = max_rows_;
  while (next < jobs.size() && room > 0) {
    Job& job = jobs[next];
    Slice slice;
    slice.job = &job;
    slice.count = std::min(room, job.end - job.position);
    const int64_t first_row = std::max(FirstRow(job), job.position);
    slice.rows = std::max<int64_t>(0, job.position + slice.count - first_row);
    if (slice.rows > rows) {
      slice.count -= slice.rows - rows;
      slice.rows = rows;
    }
    if (slice.count > 0) pass.push_back(slice);
    room -= slice.count;
    rows -= slice.rows;
    if (job.position + slice.count < job.end) break;
    ++next;
  }
  return pass;
}

// Adds the tokens that a slice's logits predict; `first_row` is the first of
// them in the pass.
void BatchScorer::AddRows(const Slice& slice, int64_t first_row,
                          std::vector<ScoredRow>& rows) {
  const Job& job = *slice.job;
  const int64_t end = job.position + slice.count;
  for (int64_t i = 0; i < slice.rows; ++i) {
    const int64_t next = end - slice.rows + i + 1;  // the predicted position
    for (size_t s = 0; s < job.item->sequences.size(); ++s) {
      const ScoredSequence& sequence = job.item->sequences[s];
      if (job.shared ? sequence.first != next : s != job.sequence) continue;
      ScoredRow row;
      row.row = first_row + i;
      row.sequence = job.first_sequence + static_cast<int64_t>(s);
      row.index = next - sequence.first;
      row.token = sequence.tokens[static_cast<size_t>(next)];
      rows.push_back(row);
    }
  }
}

absl::Status BatchScorer::RunPass(absl::Span<const Slice> pass, Sink sink) {
  std::vector<ScoredRow> rows;
  int64_t logit_rows = 0;
  for (const Slice& slice : pass) {
    AddRows(slice, logit_rows, rows);
    logit_rows += slice.rows;
  }
  std::vector<MatrixView<const float>> logits;
  std::vector<PrefillPart> parts(pass.size());
  for (size_t e = 0; e < engines_.size(); ++e) {
    for (size_t i = 0; i < pass.size(); ++i) {
      const Job& job = *pass[i].job;
      parts[i].sequence = job.states[e].get();
      parts[i].tokens =
          job.tokens().subspan(static_cast<size_t>(job.position),
                               static_cast<size_t>(pass[i].count));
      parts[i].last_logits = pass[i].rows;
      parts[i].length = static_cast<int64_t>(job.tokens().size()) - 1;
    }
    const MatrixView<float> out(logits_[e].data(), logit_rows,
                                engines_[e]->vocabulary());
    const absl::Status status = engines_[e]->PrefillBatch(parts, out);
    if (!status.ok()) return status;
    logits.push_back(out);
  }
  return rows.empty() ? absl::OkStatus() : sink(rows, logits);
}

}  // namespace nibble
