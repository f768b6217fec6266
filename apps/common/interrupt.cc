#include "apps/common/interrupt.h"

#include <signal.h>

#include <atomic>

namespace nibble {
namespace {

// A signal handler reaches nothing but globals.
std::atomic<bool> g_interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free,
              "a signal handler may only touch lock-free atomics");

void OnInterrupt(int) { g_interrupted.store(true); }

}  // namespace

InterruptScope::InterruptScope() {
  g_interrupted.store(false);
  struct sigaction action = {};
  action.sa_handler = OnInterrupt;
  // Once: the second Control-C gets the default action.
  action.sa_flags = SA_RESETHAND;
  sigaction(SIGINT, &action, &previous_);
}

InterruptScope::~InterruptScope() { sigaction(SIGINT, &previous_, nullptr); }

bool InterruptScope::interrupted() const { return g_interrupted.load(); }

const std::atomic<bool>* InterruptScope::flag() const { return &g_interrupted; }

}  // namespace nibble
