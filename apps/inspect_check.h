// One line of the checks in the report of `inspect`.
//
//   AddCheck(report, "tensors", status, "all can be read");
#ifndef NIBBLE_APPS_INSPECT_CHECK_H_
#define NIBBLE_APPS_INSPECT_CHECK_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "apps/common/json.h"

namespace nibble {

// The detail is that of `status` where it is an error.
inline void AddCheck(Json& report, absl::string_view name,
                     const absl::Status& status,
                     absl::string_view detail_when_ok) {
  report["checks"].push_back(
      {{"check", std::string(name)},
       {"ok", status.ok()},
       {"detail",
        std::string(status.ok() ? detail_when_ok : status.message())}});
}

}  // namespace nibble

#endif  // NIBBLE_APPS_INSPECT_CHECK_H_
