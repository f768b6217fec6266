// Writes a model whose channels differ in size and that computes the same as
// the one given (channel_scaling.h):
//
//   channel_scale models/tolstoy-llama scaled [SEED [DEVIATION [f32|bf16]]]

#include <cstdint>
#include <cstdio>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/registry.h"
#include "quantization/block/channel_scaling.h"
#include "tensor/dtype.h"

namespace nibble {
namespace {

absl::Status Run(int argc, char** argv) {
  ChannelScaling scaling;
  const std::string dtype = argc > 5 ? argv[5] : "f32";
  if (argc < 3 || argc > 6 ||
      (argc > 3 && !absl::SimpleAtoi(argv[3], &scaling.seed)) ||
      (argc > 4 && !absl::SimpleAtof(argv[4], &scaling.deviation)) ||
      (dtype != "f32" && dtype != "bf16")) {
    return absl::InvalidArgumentError(
        "usage: channel_scale MODEL OUT [SEED [DEVIATION [f32|bf16]]]");
  }
  if (dtype == "bf16") scaling.dtype = DType::kBF16;
  const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(argv[1]);
  if (!checkpoint.ok()) return checkpoint.status();
  ThreadPool pool(1);
  return WriteScaled(*checkpoint, scaling, argv[2], pool);
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  const absl::Status status = nibble::Run(argc, argv);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return 1;
}
