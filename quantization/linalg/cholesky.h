// Factors of symmetric positive definite matrices in doubles, as GPTQ needs
// them: blocked, on threads, in place.
//
//   Array<double> memory(n * n);                      // H on and above the
//   MatrixView<double> h(memory.data(), n, n);        // diagonal
//   if (!UpperInverseFactor(h, pool)) ...             // more damping
//   // h is U, upper triangular, with H^-1 = U^T U.
//
// U is what torch.linalg.cholesky(H^-1, upper=True) names. It comes without the
// inverse: H = R R^T with R upper triangular, taken from the last column to the
// first, and U = R^-1. That is n^3 / 3 multiplies, against n^3 / 2 and two
// roundings more by way of H^-1.
//
// |H - R R^T| <= gamma(n + n / 64) |R| |R^T|, element by element, with gamma(m)
// = m u / (1 - m u), u = 2^-53; and |U R - I| <= gamma(3 n) (|U| |R|)^2. The
// bits do not depend on the number of threads; among ISAs they may differ.
// Scratch, 2 KiB for each row of the matrix and 300 KiB for each thread, comes
// from the pool.
#ifndef NIBBLE_QUANTIZATION_LINALG_CHOLESKY_H_
#define NIBBLE_QUANTIZATION_LINALG_CHOLESKY_H_

#include "kernels/thread_pool.h"
#include "tensor/view.h"

namespace nibble {

// h [n, n], read on and above the diagonal, becomes R with zeros below it.
// False, with h destroyed, where H is not positive definite or holds a NaN or
// an infinity. (A singular H may pass as one whose least pivot is a rounding
// error: damp first.)
bool FactorUpper(MatrixView<double> h, ThreadPool& pool);

// r [n, n], upper triangular with a diagonal above zero, becomes its inverse.
// What is below the diagonal is not touched.
void InvertUpper(MatrixView<double> r, ThreadPool& pool);

// Both: h becomes U with H^-1 = U^T U, zeros below the diagonal.
bool UpperInverseFactor(MatrixView<double> h, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_LINALG_CHOLESKY_H_
