// The first error of several threads.
//
//   SharedStatus status;
//   pool.ParallelFor(rows, [&](int64_t begin, int64_t end, int) {
//     for (int64_t i = begin; i < end; ++i) status.Update(Check(i));
//   });
//   if (!status.Get().ok()) return status.Get();
#ifndef NIBBLE_KERNELS_SHARED_STATUS_H_
#define NIBBLE_KERNELS_SHARED_STATUS_H_

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace nibble {

class SharedStatus {
 public:
  // Keeps `status` if it is an error and the first one.
  void Update(const absl::Status& status) {
    if (status.ok()) return;
    absl::MutexLock lock(&mutex_);
    status_.Update(status);
  }

  absl::Status Get() {
    absl::MutexLock lock(&mutex_);
    return status_;
  }

 private:
  absl::Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace nibble

#endif  // NIBBLE_KERNELS_SHARED_STATUS_H_
