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

}  // namespace

ThreadPool::ThreadPool(int threads) : spin_(threads <= AvailableCores()) {
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
