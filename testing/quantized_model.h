// Checkpoints of the tests' own making with their matrices rounded to integers,
// as a decoder runs them and as the float numbers that they stand for.
//
//   QuantizedModel model = RoundCheckpoint(RandomCheckpoint(config, 3),
//                                          {/*bits=*/4, /*group_size=*/32},
//                                          pool);
//   auto want = ReferenceLogits(model.dequantized, tokens);
//   auto decoder = Decoder::Create(std::move(model.weights), {});
#ifndef NIBBLE_TESTING_QUANTIZED_MODEL_H_
#define NIBBLE_TESTING_QUANTIZED_MODEL_H_

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder_weights.h"
#include "quantization/round_to_nearest.h"  // IWYU pragma: export
#include "tensor/io/packed_file.h"

namespace nibble::testing {

struct QuantizedModel {
  DecoderWeights weights;
  // The same numbers in f32, under the names of a packed file.
  Checkpoint dequantized;
};

// Rounds every matrix, the head too; norms, biases and the embedding of an
// untied model stay. REQUIRES: `options` suit the matrices.
QuantizedModel RoundCheckpoint(const Checkpoint& checkpoint,
                               const RoundingOptions& options,
                               ThreadPool& pool);

// Writes a .nib file. REQUIRES: it can be written.
void WritePackedModel(const std::string& path, const QuantizedModel& model,
                      absl::Span<const EmbeddedFile> files);

// Opens the model at `path`, rounds it to INT4 in groups of 32, and writes it
// and the given files of its folder to `packed_path`. REQUIRES: they are there.
void PackModel(const std::string& path, const std::string& packed_path,
               absl::Span<const std::string> files = {});

}  // namespace nibble::testing

#endif  // NIBBLE_TESTING_QUANTIZED_MODEL_H_
