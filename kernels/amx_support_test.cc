#include "kernels/amx_support.h"

#include <cerrno>
#include <string>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

class AmxSupportTest : public ::testing::Test {
 protected:
  // A machine with everything, whose system answers `error`.
  AmxMachine Machine(int error = 0) {
    AmxMachine machine;
    machine.tile = machine.int8 = machine.bf16 = true;
    machine.saved_by_system = true;
    machine.request_permission = [this, error] {
      ++requests_;
      return error;
    };
    return machine;
  }

  void ExpectUnavailable(const AmxMachine& machine, const char* reason) {
    const absl::Status status = AmxStatusOf(machine);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr(reason));
  }

  int requests_ = 0;
};

TEST_F(AmxSupportTest, AsksForPermissionOnceAndIsOkWhenGranted) {
  EXPECT_TRUE(AmxStatusOf(Machine()).ok());
  EXPECT_EQ(requests_, 1);
}

TEST_F(AmxSupportTest, RefusedPermissionNamesTheErrorAndIsNotAskedAgain) {
  ExpectUnavailable(Machine(EPERM), "Operation not permitted");
  EXPECT_EQ(requests_, 1);
  ExpectUnavailable(Machine(ENOSPC), "alternate signal stack");
}

TEST_F(AmxSupportTest, NamesTheMissingInstructionsAndAsksForNothing) {
  AmxMachine machine = Machine();
  machine.tile = false;
  ExpectUnavailable(machine, "AMX-TILE");
  machine = Machine();
  machine.int8 = false;
  ExpectUnavailable(machine, "AMX-INT8");
  machine = Machine();
  machine.bf16 = false;
  ExpectUnavailable(machine, "AMX-BF16");
  EXPECT_EQ(requests_, 0);
}

TEST_F(AmxSupportTest, SystemThatDoesNotSaveTilesIsNotAsked) {
  AmxMachine machine = Machine();
  machine.saved_by_system = false;
  ExpectUnavailable(machine, "XCR0");
  EXPECT_EQ(requests_, 0);
}

TEST_F(AmxSupportTest, ThisMachineCanBeAsked) {
  const AmxMachine machine = ThisAmxMachine();
  ASSERT_TRUE(machine.request_permission != nullptr);
  // Systems never save tiles that the processor does not have.
  if (machine.saved_by_system) {
    EXPECT_TRUE(machine.tile);
  }
}

}  // namespace
}  // namespace nibble
