// A program of another project that uses nibble: shows the tokens of a prompt,
// and what the model goes on to write.
//
//   embed MODEL_FOLDER [PROMPT]

#include <cstdint>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_join.h"
#include "runtime/engine.h"
#include "runtime/text_generator.h"
#include "tokenizer/tokenizer.h"

namespace {

absl::Status Run(const std::string& model, const std::string& prompt) {
  nibble::EngineOptions options;
  options.model_path = model;
  absl::StatusOr<std::unique_ptr<nibble::Engine>> engine =
      nibble::Engine::Open(options);
  if (!engine.ok()) return engine.status();
  const nibble::Tokenizer* tokenizer = (*engine)->tokenizer();
  if (tokenizer == nullptr) {
    return absl::InvalidArgumentError(model + " has no tokenizer");
  }

  const std::vector<int32_t> ids = tokenizer->Encode(prompt, {});
  std::cout << ids.size() << " tokens: " << absl::StrJoin(ids, " ") << "\n";

  nibble::GenerateOptions generate;
  generate.max_tokens = 32;
  generate.sampling.temperature = 0;
  absl::StatusOr<nibble::Generation> generation =
      nibble::Generate(**engine, ids, generate);
  if (!generation.ok()) return generation.status();
  std::cout << prompt << generation->text << "\n";
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::cerr << "usage: embed MODEL_FOLDER [PROMPT]\n";
    return 1;
  }
  const absl::Status status = Run(argv[1], argc > 2 ? argv[2] : "The prince");
  if (!status.ok()) {
    std::cerr << status << "\n";
    return 1;
  }
  return 0;
}
