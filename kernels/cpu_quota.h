// How many cores a control group lets a process use.
//
//   std::optional<double> cores = CgroupCpuQuota("/proc/self/cgroup",
//                                                "/sys/fs/cgroup");
//
// Reads cgroup v2 (cpu.max) and v1 (cpu.cfs_quota_us, cpu.cfs_period_us),
// walking from the process's group up to the root: the tightest quota counts.
#ifndef NIBBLE_KERNELS_CPU_QUOTA_H_
#define NIBBLE_KERNELS_CPU_QUOTA_H_

#include <optional>
#include <string>

namespace nibble {

// Cores per second of wall time, possibly a fraction; nullopt where no group
// sets a quota. `membership` is a file in the format of /proc/PID/cgroup,
// `mount` the folder that holds the hierarchies. A file that cannot be read or
// makes no sense counts as "no quota".
std::optional<double> CgroupCpuQuota(const std::string& membership,
                                     const std::string& mount);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_CPU_QUOTA_H_
