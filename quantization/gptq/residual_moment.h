// What a residual stream lacks, as far as the inputs of the linear that adds to
// it can tell: GptqOptions::residual.
//
//   ResidualMoment moment(outputs, inputs);
//   moment.Add(float_output, output, x, pool);   // some tokens after others
//   moment.Finish(pool);
//   options.correction = 1;
//   options.residual = moment.mean();            // [outputs, inputs]
//
// The outputs are those of the whole block, with the linear still in float: so
// its own part is in the difference, and the linear's Gram needs no AddPair.
#ifndef NIBBLE_QUANTIZATION_GPTQ_RESIDUAL_MOMENT_H_
#define NIBBLE_QUANTIZATION_GPTQ_RESIDUAL_MOMENT_H_

#include <cstdint>

#include "kernels/thread_pool.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {

class ResidualMoment {
 public:
  ResidualMoment(int64_t outputs, int64_t inputs);

  // Sums (wanted - got) x^T. wanted, got: [tokens, outputs], x: [tokens,
  // inputs].
  void Add(MatrixView<const float> wanted, MatrixView<const float> got,
           MatrixView<const float> x, ThreadPool& pool);
  void Finish(ThreadPool& pool);

  // After Finish: means over tokens; of no tokens, zeros.
  MatrixView<const float> mean() const {
    return {sums_.data(), outputs_, inputs_};
  }

 private:
  const int64_t outputs_;
  const int64_t inputs_;
  int64_t tokens_ = 0;
  Array<float> sums_;        // [outputs, inputs]
  Array<float> difference_;  // [tokens of a call, outputs]
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_GPTQ_RESIDUAL_MOMENT_H_
