// Fork-join over a fixed set of threads.
//
//   ThreadPool pool(AvailableCores());
//   pool.ParallelFor(rows, [&](int64_t begin, int64_t end, int thread) {
//     for (int64_t i = begin; i < end; ++i) Work(i);
//   });
//
// The caller is thread 0, so a pool of n threads starts n - 1. An idle worker
// spins for some tens of microseconds, which covers the serial code between
// two kernels, then blocks; it never spins when there are more threads than
// cores. ParallelFor's shares are static: which thread runs which index depends
// on `count` and threads() alone, so a thread meets the same rows of a matrix
// again, in its own caches and on the NUMA node where it first wrote them.
// ParallelForStealing begins with the same shares and lets a thread that is
// done take from the end of another's.
#ifndef NIBBLE_KERNELS_THREAD_POOL_H_
#define NIBBLE_KERNELS_THREAD_POOL_H_

#include <atomic>
#include <condition_variable>  // NOLINT: absl::Mutex has no wait by address
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>   // NOLINT
#include <thread>  // NOLINT
#include <vector>

#include "absl/functional/function_ref.h"
#include "tensor/buffer.h"

namespace nibble {

class ThreadPool {
 public:
  using Body = absl::FunctionRef<void(int64_t begin, int64_t end, int thread)>;

  // REQUIRES: threads >= 1.
  explicit ThreadPool(int threads);
  ~ThreadPool();

  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Splits [0, count) into contiguous shares, one per thread and equal within
  // one; threads whose share is empty do not call. Returns when all are done,
  // with their writes visible to the caller.
  // REQUIRES: one caller at a time, and none from inside `body`.
  void ParallelFor(int64_t count, Body body);

  // The same for work whose shares may end unevenly, where cores differ or
  // have other things to do. `body` gets pieces that are multiples of `grain`,
  // but for the last, and may be called several times on a thread: each runs
  // its share front to back, while those that are done take from the end of
  // what is left of another's.
  // REQUIRES: grain >= 1, count / grain < 2^31; and as above.
  void ParallelForStealing(int64_t count, int64_t grain, Body body);

  // Memory for one operation, shared by all threads: 64-byte aligned, contents
  // unspecified, valid until the next call. It grows and never shrinks, so a
  // repeated operation allocates once. Called outside ParallelFor only.
  std::byte* Scratch(size_t bytes);

 private:
  void WorkerLoop(int thread);
  void RunShare(int thread) const;
  // Waits for `ready`, spinning for a while before it blocks.
  template <class Ready>
  void Await(const Ready& ready);
  // To be called after a change that Await may be waiting for.
  void WakeSleepers();

  // What is left of one thread's share, in units of the grain: the first unit
  // in the low half, the end in the high one. On a cache line of its own.
  struct alignas(64) Remainder {
    std::atomic<uint64_t> bounds{0};
  };

  const bool spin_;
  AlignedBuffer scratch_;
  const std::unique_ptr<Remainder[]> remainders_;  // [threads]

  // The work of the current generation: written by the caller before it
  // advances generation_, read by workers after they have seen it advance.
  int64_t count_ = 0;
  const Body* body_ = nullptr;
  bool stop_ = false;

  // Apart, so that a spinning worker does not disturb one that finishes.
  alignas(64) std::atomic<uint32_t> generation_{0};
  alignas(64) std::atomic<int> unfinished_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  std::mutex mutex_;  // Held to sleep and to wake; protects no data.
  std::condition_variable changed_;

  std::vector<std::thread> workers_;
};

}  // namespace nibble

#endif  // NIBBLE_KERNELS_THREAD_POOL_H_
