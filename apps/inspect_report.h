// What `inspect` says about a file: its configuration, tensors, tokenizer, and
// whether the engine would take it.
//
//   absl::StatusOr<Json> report = InspectPath("models/tolstoy-llama", {});
//   bool sound = ReportIsSound(*report);
//
// The object:
//
//   {"path", "kind": "folder|nib|gguf|safetensors|llama2.c|tokenizer",
//    "configuration": {"family", "layers", ...},
//    "metadata": {key: summary, ...},  // of a GGUF file
//    "tensors": [{"name", "dtype", "shape", "bytes"} | {"name", "error"}],
//    "types": {dtype: how many tensors, and whether codes are kept},
//    "quantization": {"method", "format", "bits", ...},  // of a quantized one
//    "totals": {"tensors", "parameters", "bytes"},  // of all, not of a filter
//    "tokenizer": {"tokens", "special_tokens", "bos_id", "eos_id", "adds_bos"},
//    "checks": [{"check", "ok", "detail"}]}
//
// Parts that a file does not have are left out; apps/inspect_nib.h has those of
// a packed file.
#ifndef NIBBLE_APPS_INSPECT_REPORT_H_
#define NIBBLE_APPS_INSPECT_REPORT_H_

#include <string>

#include "absl/status/statusor.h"
#include "apps/common/json.h"

namespace re2 {
class RE2;
}

namespace nibble {

// Fails only where nothing can be said: no such path, or a kind of file that
// is not known. What is wrong with a file of a known kind stands in "checks".
// `filter`, unless null, picks the tensors that are listed, by name.
absl::StatusOr<Json> InspectPath(const std::string& path,
                                 const re2::RE2* filter);

// All checks passed.
bool ReportIsSound(const Json& report);

// The report for people.
std::string InspectText(const Json& report);

}  // namespace nibble

#endif  // NIBBLE_APPS_INSPECT_REPORT_H_
