// Control-C as a flag that a loop looks at, so that a program can stop between
// two tokens and leave valid output.
//
//   InterruptScope interrupt;
//   while (!interrupt.interrupted()) Step();
#ifndef NIBBLE_APPS_COMMON_INTERRUPT_H_
#define NIBBLE_APPS_COMMON_INTERRUPT_H_

#include <signal.h>

#include <atomic>

namespace nibble {

// While it lives, the first SIGINT only sets a flag; a second one ends the
// program at once, as if there were no handler. At most one lives at a time.
class InterruptScope {
 public:
  InterruptScope();
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

  bool interrupted() const;

  // The flag itself, for code that polls it.
  const std::atomic<bool>* flag() const;

 private:
  struct sigaction previous_;
};

}  // namespace nibble

#endif  // NIBBLE_APPS_COMMON_INTERRUPT_H_
