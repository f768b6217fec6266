// What `inspect` says about a packed model file beyond what it says about any
// model.
//
//   if (InspectNib(report, "model.nib", /*filter=*/nullptr)) ...
//
// Adds to the report (apps/inspect_report.h):
//
//   "quantization": {"method", "bits", "group_size", "symmetric", "keep_float",
//                    "source", "program_version", "overrides": [...]},
//   "tensors": [{"name", "dtype", "shape", "bytes",
//                "group_size", "symmetric", "wide_scales"}],  // of int8, int4
//   "totals", "files": [{"name", "bytes"}]
//
// and the checks "file" and "checksums"; where bytes are damaged, a failed
// check "checksums" for each part of the file that is.
#ifndef NIBBLE_APPS_INSPECT_NIB_H_
#define NIBBLE_APPS_INSPECT_NIB_H_

#include <string>

#include "apps/common/json.h"

namespace re2 {
class RE2;
}

namespace nibble {

// Reads the whole file, with all cores. False when it does not even open; then
// the check "file" says why. `filter`, unless null, picks the tensors listed.
bool InspectNib(Json& report, const std::string& path, const re2::RE2* filter);

}  // namespace nibble

#endif  // NIBBLE_APPS_INSPECT_NIB_H_
