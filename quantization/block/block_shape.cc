#include "quantization/block/block_shape.h"

#include <cmath>
#include <cstddef>

#include "absl/log/check.h"
#include "absl/types/span.h"
#include "kernels/attention/alibi.h"
#include "kernels/elementwise/rope.h"

namespace nibble {

BlockShape::BlockShape(const DecoderConfig& config, int64_t layer,
                       int64_t length, GemmPrecision precision)
    : config(config),
      window(config.windows[static_cast<size_t>(layer)]),
      length(length),
      precision(precision),
      score_scale(1.0 / std::sqrt(static_cast<double>(config.head_dim))) {
  CHECK_GE(length, 1);
  if (config.alibi) {
    alibi_slopes = AlibiSlopes(config.heads);
    for (float& slope : alibi_slopes) slope *= config.alibi_scale;
  }
  if (config.rope.style == RopeStyle::kNone) return;
  const RopeTable table(RopeOf(config));
  pairs = table.pairs();
  const size_t width = static_cast<size_t>(pairs);
  cosines.resize(static_cast<size_t>(length) * width);
  sines.resize(cosines.size());
  for (size_t t = 0; t < static_cast<size_t>(length); ++t) {
    table.Angles(static_cast<int64_t>(t), length,
                 absl::MakeSpan(cosines).subspan(t * width, width),
                 absl::MakeSpan(sines).subspan(t * width, width));
  }
}

}  // namespace nibble
