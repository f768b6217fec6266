// The version of the programs, for reports and for the records of the files
// that they write.
#ifndef NIBBLE_APPS_COMMON_VERSION_H_
#define NIBBLE_APPS_COMMON_VERSION_H_

namespace nibble {

inline constexpr char kProgramVersion[] = "0.5";

}  // namespace nibble

#endif  // NIBBLE_APPS_COMMON_VERSION_H_
