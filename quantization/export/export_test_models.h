// Small models of every family on disk, for the tests of exports.
//
//   WriteFamily("falcon-40b", folder);
//   auto checkpoint = OpenCheckpoint(folder);
#ifndef NIBBLE_QUANTIZATION_EXPORT_EXPORT_TEST_MODELS_H_
#define NIBBLE_QUANTIZATION_EXPORT_EXPORT_TEST_MODELS_H_

#include <string>
#include <vector>

#include "testing/tiny_model.h"

namespace nibble::testing {

// llama, mistral, qwen2, gptj, gpt_neox, falcon-7b, falcon-40b.
std::vector<std::string> ExportFamilies();

// Llama's sizes in all of them: 97 tokens, hidden 64, 4 heads of 16, 2 layers.
TinyModelOptions ExportLlama();

// A folder of f16 weights with a byte-level tokenizer of 28 tokens.
void WriteFamily(const std::string& family, const std::string& dir);

// Only the tokenizer.
void WriteTokenizer(const std::string& dir);

// A fresh folder for the running test.
std::string ExportTestFolder();

}  // namespace nibble::testing

#endif  // NIBBLE_QUANTIZATION_EXPORT_EXPORT_TEST_MODELS_H_
