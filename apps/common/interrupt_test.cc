#include "apps/common/interrupt.h"

#include <signal.h>

#include "gtest/gtest.h"

namespace nibble {
namespace {

TEST(InterruptScope, NoticesTheFirstInterrupt) {
  InterruptScope scope;
  EXPECT_FALSE(scope.interrupted());
  raise(SIGINT);
  EXPECT_TRUE(scope.interrupted());
}

TEST(InterruptScope, StartsAfresh) {
  {
    InterruptScope scope;
    raise(SIGINT);
  }
  InterruptScope scope;
  EXPECT_FALSE(scope.interrupted());
}

TEST(InterruptScopeDeathTest, TheSecondInterruptEndsTheProgram) {
  EXPECT_EXIT(
      {
        InterruptScope scope;
        raise(SIGINT);
        raise(SIGINT);
      },
      ::testing::KilledBySignal(SIGINT), "");
}

}  // namespace
}  // namespace nibble
