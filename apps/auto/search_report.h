// What a search for a recipe found, for people and for programs.
#ifndef NIBBLE_APPS_AUTO_SEARCH_REPORT_H_
#define NIBBLE_APPS_AUTO_SEARCH_REPORT_H_

#include <cstddef>
#include <string>

#include "apps/common/json.h"
#include "quantization/search/search.h"

namespace nibble {

struct SearchRun {
  RecipeSearchOptions options;
  SearchResult result;
  // The chosen recipe as text that gives the model again.
  std::string recipe;
  std::string recipe_file;
};

// A line for one trial, as the search goes on.
std::string TrialLine(size_t number, const Trial& trial);

// A table of all trials, what was skipped and why, and the choice.
std::string SearchText(const SearchRun& run);

// The member "search" of the report.
Json SearchJson(const SearchRun& run);

}  // namespace nibble

#endif  // NIBBLE_APPS_AUTO_SEARCH_REPORT_H_
