#include "testing/decoder_session.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/log/check.h"
#include "absl/status/statusor.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder.h"
#include "models/registry.h"
#include "tensor/packed_layout.h"

namespace nibble::testing {

std::unique_ptr<Decoder> LoadF32Decoder(const Checkpoint& checkpoint,
                                        ThreadPool& pool) {
  DecoderOptions options;
  options.weights = WeightFormat::kF32;
  absl::StatusOr<std::unique_ptr<Decoder>> decoder =
      Decoder::Load(checkpoint, options, pool);
  CHECK(decoder.ok()) << decoder.status();
  return *std::move(decoder);
}

std::unique_ptr<Decoder> LoadF32Decoder(const std::string& path,
                                        ThreadPool& pool) {
  const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(path);
  CHECK(checkpoint.ok()) << checkpoint.status();
  return LoadF32Decoder(*checkpoint, pool);
}

}  // namespace nibble::testing
