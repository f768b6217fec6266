// Parts of config.json that mean the same in every family.
//
//   config.activation = ReadActivation(json, "hidden_act", "silu");
//   config.rope = ReadRope(json, {RopeStyle::kHalf, head_dim, positions, 1e4});
//   ReadSpecialIds(json, {1, 2}, config);
//
// Problems are recorded in the reader, as its own methods do.
#ifndef NIBBLE_MODELS_FAMILIES_HF_FIELDS_H_
#define NIBBLE_MODELS_FAMILIES_HF_FIELDS_H_

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "kernels/elementwise/activation.h"
#include "kernels/elementwise/rope.h"
#include "models/config_reader.h"
#include "models/decoder_config.h"
#include "tensor/io/tensor_source.h"

namespace nibble {

inline constexpr FloatRange kThetaRange = {2.0, 1e15};  // of a rotary base

// The first of several names for one setting that the file gives; the first of
// all when it gives none.
absl::string_view PresentKey(const ConfigReader& json,
                             std::initializer_list<absl::string_view> keys);

// hidden / heads. A remainder is a problem of `heads_key`. REQUIRES: heads > 0.
int64_t ReadHeadDim(ConfigReader& json, const DecoderConfig& config,
                    absl::string_view heads_key);

// Whether the embedding serves as the head: what tie_word_embeddings says;
// where it says nothing, whether there is no tensor `head_name`. A head that is
// missing although the file says "not tied" is an error later, when the tensors
// are checked.
bool ReadTied(ConfigReader& json, const TensorSource& tensors,
              const std::string& head_name);

// The activation of one of the names below; nullopt for another name.
std::optional<Activation> ActivationOf(absl::string_view name);

// What ActivationOf knows, for messages: "gelu, gelu_python, ...".
std::string ActivationNames();

// gelu, gelu_python, gelu_new, gelu_fast, gelu_pytorch_tanh, quick_gelu, silu,
// swish; anything else is a problem that lists these.
Activation ReadActivation(ConfigReader& json, absl::string_view key,
                          absl::string_view fallback);

struct RopeFields {
  RopeStyle style = RopeStyle::kHalf;
  int64_t rotary_dims = 0;
  int64_t max_positions = 0;
  double default_theta = 10000.0;
  // Whether the family lets partial_rotary_factor be below 1; its file then
  // has counted it into rotary_dims.
  bool partial = false;
};

// The rotary settings, in the nested form of newer files (rope_parameters) or
// the flat one of older files (rope_theta, and rope_scaling with rope_type or
// type).
RopeConfig ReadRope(ConfigReader& json, const RopeFields& fields);

// What a family's configuration class assumes when a key is absent.
struct DefaultIds {
  std::optional<int32_t> bos;
  std::optional<int32_t> eos;
};

// bos_token_id, and eos_token_id as one id or a list. An id at or above the
// vocabulary is a problem, an absent key takes the default where that is within
// the vocabulary, null means none. REQUIRES: config.vocabulary is set.
void ReadSpecialIds(ConfigReader& json, const DefaultIds& defaults,
                    DecoderConfig& config);

}  // namespace nibble

#endif  // NIBBLE_MODELS_FAMILIES_HF_FIELDS_H_
