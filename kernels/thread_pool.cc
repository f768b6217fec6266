#include "kernels/thread_pool.h"

#include <algorithm>
#include <chrono>  // NOLINT: the spin is bounded by wall time

#include "absl/log/check.h"
#include "hwy/cache_control.h"
#include "kernels/cpu.h"

namespace nibble {
namespace {

// Long enough for the norms, rotary embedding and bookkeeping between two
// products of a decode step (under 20 us), short enough that an idle process
// shows no load. Waking a blocked worker takes 5 to 50 us.
constexpr std::chrono::microseconds kSpin(50);

// Reading the clock costs about 20 ns, a pause 10 to 40.
constexpr int kPausesPerClockRead = 16;

struct Share {
  int64_t begin;
  int64_t end;
};

// Share `index` of `parts`: sizes differ by at most one, larger ones first.
Share ShareOf(int64_t count, int parts, int index) {
  const int64_t size = count / parts;
  const int64_t larger = count % parts;
  const int64_t begin = index * size + std::min<int64_t>(index, larger);
  return {begin, begin + size + (index < larger ? 1 : 0)};
}

uint64_t Pack(Share share) {
  return static_cast<uint64_t>(share.begin) | static_cast<uint64_t>(share.end)
                                                  << 32;
}

Share Unpack(uint64_t bounds) {
  return {static_cast<int64_t>(bounds & 0xFFFFFFFF),
          static_cast<int64_t>(bounds >> 32)};
}

enum class Side { kFront, kBack };

// Takes half of what is left, and at least one unit: the pieces shrink towards
// the end, so that there is always something to steal until little is left. An
// empty share when nothing is.
Share Take(std::atomic<uint64_t>& bounds, Side side) {
  uint64_t seen = bounds.load(std::memory_order_relaxed);
  while (true) {
    const Share left = Unpack(seen);
    if (left.begin >= left.end) return {0, 0};
    const int64_t size = (left.end - left.begin + 1) / 2;
    const bool front = side == Side::kFront;
    const Share taken = front ? Share{left.begin, left.begin + size}
                              : Share{left.end - size, left.end};
    const Share rest =
        front ? Share{taken.end, left.end} : Share{left.begin, taken.begin};
    // Relaxed: the work itself is published by ParallelFor.
    if (bounds.compare_exchange_weak(seen, Pack(rest),
                                     std::memory_order_relaxed)) {
      return taken;
    }
  }
}

}  // namespace

ThreadPool::ThreadPool(int threads)
    : spin_(threads <= AvailableCores()),
      remainders_(std::make_unique<Remainder[]>(
          static_cast<size_t>(std::max(threads, 1)))) {
  CHECK_GE(threads, 1);
  workers_.reserve(threads - 1);
  for (int i = 1; i < threads; ++i) {
    workers_.emplace_back([this, i] { WorkerLoop(i); });
  }
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  generation_.fetch_add(1);
  WakeSleepers();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::ParallelFor(int64_t count, Body body) {
  DCHECK_GE(count, 0);
  if (workers_.empty() || count <= 1) {
    if (count > 0) body(0, count, 0);
    return;
  }
  DCHECK_EQ(unfinished_.load(), 0) << "nested or concurrent ParallelFor";
  count_ = count;
  body_ = &body;
  unfinished_.store(static_cast<int>(workers_.size()),
                    std::memory_order_relaxed);
  generation_.fetch_add(1);
  WakeSleepers();
  RunShare(0);
  Await([this] { return unfinished_.load() == 0; });
}

void ThreadPool::ParallelForStealing(int64_t count, int64_t grain, Body body) {
  DCHECK_GE(grain, 1);
  const int64_t units = (count + grain - 1) / grain;
  if (workers_.empty() || units <= 1) {
    if (count > 0) body(0, count, 0);
    return;
  }
  CHECK_LT(units, int64_t{1} << 31);
  const int parts = threads();
  for (int i = 0; i < parts; ++i) {
    remainders_[i].bounds.store(Pack(ShareOf(units, parts, i)),
                                std::memory_order_relaxed);
  }
  ParallelFor(parts, [&](int64_t, int64_t, int thread) {
    for (int i = 0; i < parts; ++i) {
      std::atomic<uint64_t>& left = remainders_[(thread + i) % parts].bounds;
      while (true) {
        const Share taken = Take(left, i == 0 ? Side::kFront : Side::kBack);
        if (taken.begin == taken.end) break;
        body(taken.begin * grain, std::min(count, taken.end * grain), thread);
      }
    }
  });
}

void ThreadPool::RunShare(int thread) const {
  const Share share = ShareOf(count_, threads(), thread);
  if (share.begin < share.end) (*body_)(share.begin, share.end, thread);
}

void ThreadPool::WorkerLoop(int thread) {
  uint32_t seen = 0;
  while (true) {
    Await([this, seen] { return generation_.load() != seen; });
    ++seen;
    if (stop_) return;
    RunShare(thread);
    if (unfinished_.fetch_sub(1) == 1) WakeSleepers();
  }
}

template <class Ready>
void ThreadPool::Await(const Ready& ready) {
  if (spin_) {
    const auto deadline = std::chrono::steady_clock::now() + kSpin;
    do {
      for (int i = 0; i < kPausesPerClockRead; ++i) {
        if (ready()) return;
        hwy::Pause();
      }
    } while (std::chrono::steady_clock::now() < deadline);
  }
  std::unique_lock<std::mutex> lock(mutex_);
  sleepers_.fetch_add(1);
  // Either this sees the change, or the one who made it sees this sleeper
  // (all of these are sequentially consistent) and takes the mutex to wake it.
  changed_.wait(lock, ready);
  sleepers_.fetch_sub(1);
}

void ThreadPool::WakeSleepers() {
  if (sleepers_.load() == 0) return;
  { std::lock_guard<std::mutex> lock(mutex_); }
  changed_.notify_all();
}

std::byte* ThreadPool::Scratch(size_t bytes) {
  if (bytes > scratch_.size()) scratch_ = AlignedBuffer(bytes);
  return scratch_.data();
}

}  // namespace nibble
