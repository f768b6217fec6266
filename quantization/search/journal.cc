#include "quantization/search/journal.h"

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/text_format.h"
#include "quantization/recipe/recipe.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/search/journal.pb.h"
#include "quantization/search/search.h"
#include "quantization/search/tolerance.h"
#include "tensor/io/atomic_file.h"
#include "tensor/mapped_file.h"

namespace nibble {
namespace {

// The journal's text may be anybody's: its errors are nobody's business.
class NoErrors : public google::protobuf::io::ErrorCollector {
  void AddError(int, google::protobuf::io::ColumnNumber,
                const std::string&) override {}
};

QuantizedTrial FromJournal(const SearchJournal::Trial& record) {
  QuantizedTrial trial;
  trial.bytes = record.bytes();
  trial.bits_per_weight = record.bits_per_weight();
  if (record.has_kl_divergence()) {
    trial.kl_divergence = record.kl_divergence();
  }
  if (record.has_agreement()) trial.agreement = record.agreement();
  if (record.has_seconds()) trial.seconds = record.seconds();
  for (const SearchJournal::Damage& matrix : record.damage()) {
    trial.damage.push_back({matrix.name(), matrix.damage(), matrix.weights()});
  }
  return trial;
}

void ToJournal(const QuantizedTrial& trial, SearchJournal::Trial* record) {
  record->set_bytes(trial.bytes);
  record->set_bits_per_weight(trial.bits_per_weight);
  if (trial.kl_divergence) record->set_kl_divergence(*trial.kl_divergence);
  if (trial.agreement) record->set_agreement(*trial.agreement);
  for (const MatrixDamage& matrix : trial.damage) {
    SearchJournal::Damage* damage = record->add_damage();
    damage->set_name(matrix.name);
    damage->set_damage(matrix.damage);
    damage->set_weights(matrix.weights);
  }
}

}  // namespace

JournalEvaluator::JournalEvaluator(Evaluator& inner, std::string path,
                                   std::string identity)
    : inner_(inner), path_(std::move(path)) {
  journal_.set_identity(std::move(identity));
}

size_t JournalEvaluator::Resume() {
  const auto file = MappedFile::Open(path_);
  if (!file.ok()) return 0;
  SearchJournal journal;
  NoErrors errors;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  const auto bytes = (*file)->bytes();
  google::protobuf::io::ArrayInputStream stream(bytes.data(),
                                                static_cast<int>(bytes.size()));
  if (!parser.Parse(&stream, &journal) ||
      journal.identity() != journal_.identity()) {
    return 0;
  }
  journal_ = std::move(journal);
  return static_cast<size_t>(journal_.trials_size());
}

SearchJournal::Trial* JournalEvaluator::Find(const Recipe& recipe) {
  const std::string text = RecipeText(recipe);
  for (SearchJournal::Trial& trial : *journal_.mutable_trials()) {
    if (trial.recipe() == text) return &trial;
  }
  return nullptr;
}

absl::Status JournalEvaluator::Write() const {
  std::string text;
  google::protobuf::TextFormat::PrintToString(journal_, &text);
  absl::StatusOr<AtomicFile> file = AtomicFile::Create(path_);
  if (!file.ok()) return file.status();
  const absl::Status status = file->Append(text);
  return status.ok() ? file->Commit() : status;
}

absl::StatusOr<std::vector<Metric>> JournalEvaluator::Baseline() {
  return inner_.Baseline();
}

absl::StatusOr<QuantizedTrial> JournalEvaluator::Quantize(
    size_t trial, const Recipe& recipe) {
  begun_[trial] = {recipe, /*has_model=*/false};
  if (const SearchJournal::Trial* record = Find(recipe)) {
    QuantizedTrial earlier = FromJournal(*record);
    // The clock has this run's already.
    if (made_.count(record->recipe()) > 0) earlier.seconds.reset();
    return earlier;
  }
  begun_[trial].has_model = true;
  const absl::Time start = absl::Now();
  absl::StatusOr<QuantizedTrial> result = inner_.Quantize(trial, recipe);
  if (!result.ok()) return result;
  SearchJournal::Trial* record = journal_.add_trials();
  record->set_recipe(RecipeText(recipe));
  made_.insert(record->recipe());
  record->set_seconds(absl::ToDoubleSeconds(absl::Now() - start));
  ToJournal(*result, record);
  const absl::Status status = Write();
  if (!status.ok()) return status;
  return result;
}

absl::Status JournalEvaluator::NeedModel(size_t trial) {
  const auto it = begun_.find(trial);
  CHECK(it != begun_.end());
  if (it->second.has_model) return absl::OkStatus();
  it->second.has_model = true;
  return inner_.Quantize(trial, it->second.recipe).status();
}

absl::StatusOr<std::vector<Metric>> JournalEvaluator::Measure(size_t trial) {
  SearchJournal::Trial* record = Find(begun_.at(trial).recipe);
  CHECK(record != nullptr);
  std::vector<Metric> metrics;
  for (const SearchJournal::Metric& metric : record->metrics()) {
    metrics.push_back(
        {metric.name(), metric.value(), metric.higher_is_better()});
  }
  if (!metrics.empty()) return metrics;
  absl::Status status = NeedModel(trial);
  if (!status.ok()) return status;
  absl::StatusOr<std::vector<Metric>> measured = inner_.Measure(trial);
  if (!measured.ok()) return measured;
  for (const Metric& metric : *measured) {
    SearchJournal::Metric* copy = record->add_metrics();
    copy->set_name(metric.name);
    copy->set_value(metric.value);
    copy->set_higher_is_better(metric.higher_is_better);
  }
  status = Write();
  if (!status.ok()) return status;
  return measured;
}

void JournalEvaluator::Discard(size_t trial) {
  const auto it = begun_.find(trial);
  CHECK(it != begun_.end());
  if (it->second.has_model) inner_.Discard(trial);
  begun_.erase(it);
}

}  // namespace nibble
