// An evaluator that writes down what another one finds, so that a search that
// was killed need not find it again.
//
//   JournalEvaluator journal(evaluator, "model.nib.search/journal", identity);
//   if (resume) journal.Resume();
//   SearchRecipe(recipes, journal, options);
//   journal.NeedModel(result->chosen);
//
// A search does the same again as long as it gets the same answers. Trials that
// the journal knows by their recipes are answered from it; their models are
// quantized only when one is needed after all.
#ifndef NIBBLE_QUANTIZATION_SEARCH_JOURNAL_H_
#define NIBBLE_QUANTIZATION_SEARCH_JOURNAL_H_

#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/search/journal.pb.h"
#include "quantization/search/search.h"
#include "quantization/search/tolerance.h"

namespace nibble {

class JournalEvaluator : public Evaluator {
 public:
  // `inner` outlives this object. `identity` stands for all that answers depend
  // on beside the recipe.
  JournalEvaluator(Evaluator& inner, std::string path, std::string identity);

  // Takes over the journal at `path`; the number of trials in it. None where
  // there is no journal, or one that is damaged or of another identity.
  size_t Resume();

  absl::StatusOr<std::vector<Metric>> Baseline() override;
  absl::StatusOr<QuantizedTrial> Quantize(size_t trial,
                                          const Recipe& recipe) override;
  absl::StatusOr<std::vector<Metric>> Measure(size_t trial) override;
  void Discard(size_t trial) override;

  // Makes `inner` have the trial's model. REQUIRES: it was not discarded.
  absl::Status NeedModel(size_t trial);

 private:
  struct Begun {
    Recipe recipe;
    bool has_model = false;  // in inner_
  };

  // Null where the journal does not know the recipe.
  SearchJournal::Trial* Find(const Recipe& recipe);
  absl::Status Write() const;

  Evaluator& inner_;
  const std::string path_;
  SearchJournal journal_;
  std::map<size_t, Begun> begun_;
  std::set<std::string> made_;  // recipes quantized in this run, as text
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_SEARCH_JOURNAL_H_
