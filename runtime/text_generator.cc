#include "runtime/text_generator.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/beam_search.h"
#include "runtime/sequence.h"
#include "runtime/stop_matcher.h"
#include "tensor/buffer.h"
#include "tensor/view.h"
#include "tokenizer/utf8_stream.h"

namespace nibble {
namespace {

// Room made for the result at the start, so that it rarely grows: 8 bytes of
// text for a token are twice the average of English, and 4096 tokens take 50
// kB.
constexpr int64_t kTextBytesPerToken = 8;
constexpr int64_t kTokensReserved = 4096;

bool IsCancelled(const GenerateOptions& options) {
  return options.cancel != nullptr &&
         options.cancel->load(std::memory_order_relaxed);
}

// Turns tokens into text, looks for stop strings, and shows what is certain.
class TextOutput {
 public:
  // The text goes on from that of `prompt`: a space in front is kept.
  TextOutput(const Tokenizer* tokenizer, absl::Span<const int32_t> prompt,
             StopMatcher matcher, const TextCallback& on_text,
             std::string& text)
      : matcher_(std::move(matcher)), on_text_(on_text), text_(text) {
    if (tokenizer == nullptr) return;
    stream_.emplace(*tokenizer);
    for (int32_t token : prompt) stream_->Push(token);
  }

  // False: a stop string is complete, or the callback wants no more.
  bool Push(int32_t token) {
    return !stream_.has_value() || Show(stream_->Push(token));
  }

  // The text has ended: shows what was held back.
  void Finish() {
    if (!stream_.has_value() || refused_ || matcher_.stopped()) return;
    const size_t shown = text_.size();
    if (!matcher_.Push(stream_->Flush(), &text_)) matcher_.Flush(&text_);
    Announce(shown);
  }

  bool stopped() const { return refused_ || matcher_.stopped(); }

 private:
  bool Show(absl::string_view piece) {
    const size_t shown = text_.size();
    const bool stopped = matcher_.Push(piece, &text_);
    Announce(shown);
    return !stopped && !refused_;
  }

  // Calls back with the text behind byte `shown`.
  void Announce(size_t shown) {
    if (text_.size() == shown || !on_text_) return;
    refused_ = !on_text_(absl::string_view(text_).substr(shown));
  }

  std::optional<TextStream> stream_;
  StopMatcher matcher_;
  const TextCallback& on_text_;
  std::string& text_;
  bool refused_ = false;
};

// One generation: its options, its sequence, and its result so far.
class Run {
 public:
  Run(Engine& engine, absl::Span<const int32_t> prompt,
      const GenerateOptions& options, TextOutput& output, Generation& result)
      : engine_(engine),
        prompt_(prompt),
        options_(options),
        output_(output),
        result_(result),
        logits_(engine.vocabulary()) {
    if (options.ignore_eos) return;
    end_ids_.assign(engine.eos_ids().begin(), engine.eos_ids().end());
    end_ids_.insert(end_ids_.end(), options.stop_token_ids.begin(),
                    options.stop_token_ids.end());
  }

  absl::Status Start();
  absl::Status Sample();
  absl::Status SearchBeams();

 private:
  bool Ends(int32_t token) const {
    return std::find(end_ids_.begin(), end_ids_.end(), token) != end_ids_.end();
  }
  // The last token that is made need not be read, so it needs no room.
  int64_t MaxTokens() const {
    const int64_t room = engine_.context() - sequence_->position() + 1;
    return std::min(options_.max_tokens, room);
  }
  absl::Status StepBeams(absl::Span<const int32_t> parents,
                         absl::Span<const int32_t> tokens,
                         MatrixView<float> logits);
  void TakeHypothesis(const BeamHypothesis& best);

  Engine& engine_;
  absl::Span<const int32_t> prompt_;
  const GenerateOptions& options_;
  TextOutput& output_;
  Generation& result_;
  std::vector<int32_t> end_ids_;
  std::unique_ptr<Sequence> sequence_;
  Array<float> logits_;          // [vocabulary]
  std::vector<Sequence> beams_;  // of SearchBeams
};

// Reads the prompt. Cancellation is not an error here.
absl::Status Run::Start() {
  absl::StatusOr<std::unique_ptr<Sequence>> sequence = engine_.NewSequence();
  if (!sequence.ok()) return sequence.status();
  sequence_ = *std::move(sequence);
  PrefillOptions prefill;
  prefill.progress = options_.prefill_progress;
  prefill.cancelled = [this] { return IsCancelled(options_); };
  absl::Status status =
      engine_.Prefill(*sequence_, prompt_, logits_.span(), prefill);
  if (!absl::IsCancelled(status)) return status;
  result_.cancelled = true;
  result_.finish_reason = FinishReason::kStop;
  return absl::OkStatus();
}

absl::Status Run::Sample() {
  absl::StatusOr<Sampler> sampler =
      Sampler::Create(options_.sampling, engine_.vocabulary());
  if (!sampler.ok()) return sampler.status();
  sampler->AddPrompt(prompt_);
  const int64_t max_tokens = MaxTokens();
  const int64_t reserved = std::min(max_tokens, kTokensReserved);
  result_.token_ids.reserve(reserved);
  result_.text.reserve(reserved * kTextBytesPerToken);
  result_.finish_reason = FinishReason::kStop;
  for (;;) {
    absl::StatusOr<int32_t> token = sampler->Sample(logits_.span());
    if (!token.ok()) return token.status();
    result_.token_ids.push_back(*token);
    if (Ends(*token) || !output_.Push(*token)) return absl::OkStatus();
    if (static_cast<int64_t>(result_.token_ids.size()) == max_tokens) {
      result_.finish_reason = FinishReason::kLength;
      return absl::OkStatus();
    }
    if (IsCancelled(options_)) {
      result_.cancelled = true;
      return absl::OkStatus();
    }
    absl::Status status = engine_.Decode(*sequence_, *token, logits_.span());
    if (!status.ok()) return status;
    ++result_.timings.decode_steps;
  }
}

absl::Status Run::StepBeams(absl::Span<const int32_t> parents,
                            absl::Span<const int32_t> tokens,
                            MatrixView<float> logits) {
  std::vector<Sequence> next;
  next.reserve(parents.size());
  for (int32_t parent : parents) next.push_back(beams_[parent].Fork());
  beams_ = std::move(next);  // the old ones let go of what is not shared
  std::vector<Sequence*> sequences;
  for (Sequence& beam : beams_) sequences.push_back(&beam);
  ++result_.timings.decode_steps;
  return engine_.DecodeBatch(sequences, tokens, logits);
}

absl::Status Run::SearchBeams() {
  BeamOptions beam_options;
  beam_options.beams = options_.num_beams;
  beam_options.max_tokens = MaxTokens();
  beam_options.length_penalty = options_.length_penalty;
  beam_options.end_ids = end_ids_;
  beam_options.cancelled = [this] { return IsCancelled(options_); };
  beams_.push_back(std::move(*sequence_));
  absl::StatusOr<BeamHypothesis> best = BeamSearch(
      beam_options, logits_.span(),
      [this](absl::Span<const int32_t> parents,
             absl::Span<const int32_t> tokens, MatrixView<float> logits) {
        return StepBeams(parents, tokens, logits);
      });
  if (!best.ok()) return best.status();
  TakeHypothesis(*best);
  return absl::OkStatus();
}

void Run::TakeHypothesis(const BeamHypothesis& best) {
  result_.cancelled = best.cancelled;
  result_.finish_reason = best.ended || best.cancelled ? FinishReason::kStop
                                                       : FinishReason::kLength;
  for (int32_t token : best.tokens) {
    result_.token_ids.push_back(token);
    if (Ends(token)) return;
    if (!output_.Push(token)) {
      result_.finish_reason = FinishReason::kStop;
      return;
    }
  }
}

absl::Status CheckBeamOptions(const GenerateOptions& options) {
  const SamplingOptions& sampling = options.sampling;
  if (sampling.temperature != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "num_beams is ", options.num_beams, " and temperature ",
        sampling.temperature,
        "; beam search does not sample, so temperature must be 0"));
  }
  if (sampling.repetition_penalty != 1 || sampling.frequency_penalty != 0 ||
      sampling.presence_penalty != 0 || !sampling.logit_bias.empty()) {
    return absl::InvalidArgumentError(
        "num_beams: beam search takes no repetition_penalty, "
        "frequency_penalty, presence_penalty or logit_bias");
  }
  return absl::OkStatus();
}

}  // namespace

absl::string_view FinishReasonName(FinishReason reason) {
  return reason == FinishReason::kStop ? "stop" : "length";
}

absl::Status GenerateOptions::Validate(int64_t vocabulary) const {
  absl::Status status = sampling.Validate(vocabulary);
  if (!status.ok()) return status;
  if (max_tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_tokens is ", max_tokens, "; it must be at least 1"));
  }
  if (num_beams < 1 || num_beams > kMaxBeams) {
    return absl::InvalidArgumentError(absl::StrCat(
        "num_beams is ", num_beams, "; it must be between 1 and ", kMaxBeams));
  }
  if (!std::isfinite(length_penalty)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "length_penalty is ", length_penalty, "; it must be a finite number"));
  }
  for (int32_t id : stop_token_ids) {
    if (id >= 0 && id < vocabulary) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("stop_token_ids: there is no token ", id,
                     " in the vocabulary of ", vocabulary));
  }
  return num_beams > 1 ? CheckBeamOptions(*this) : absl::OkStatus();
}

absl::StatusOr<Generation> Generate(Engine& engine,
                                    absl::Span<const int32_t> prompt,
                                    const GenerateOptions& options,
                                    const TextCallback& on_text) {
  absl::Status status = options.Validate(engine.vocabulary());
  if (!status.ok()) return status;
  absl::StatusOr<StopMatcher> matcher = StopMatcher::Create(options.stop);
  if (!matcher.ok()) return matcher.status();
  if (!options.stop.empty() && engine.tokenizer() == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        "stop: ", engine.path(),
        " has no tokenizer, so there is no text to look for it in"));
  }

  Generation result;
  TextOutput output(engine.tokenizer(), prompt, *std::move(matcher), on_text,
                    result.text);
  Run run(engine, prompt, options, output, result);
  const absl::Time start = absl::Now();
  status = run.Start();
  const absl::Time prefilled = absl::Now();
  if (status.ok() && !result.cancelled) {
    status = options.num_beams > 1 ? run.SearchBeams() : run.Sample();
  }
  if (!status.ok()) return status;
  output.Finish();
  if (output.stopped()) result.finish_reason = FinishReason::kStop;
  result.timings.prefill = prefilled - start;
  result.timings.decode = absl::Now() - prefilled;
  return result;
}

}  // namespace nibble
