// The activation functions a feed-forward layer may use; activation.h has the
// formulas.
#ifndef NIBBLE_KERNELS_ELEMENTWISE_ACTIVATION_TYPE_H_
#define NIBBLE_KERNELS_ELEMENTWISE_ACTIVATION_TYPE_H_

namespace nibble {

enum class Activation { kSilu, kGelu, kGeluTanh, kQuickGelu };

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ELEMENTWISE_ACTIVATION_TYPE_H_
