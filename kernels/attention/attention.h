// Softmax attention of new queries over a paged key/value cache.
//
//   StoreKv(keys, values, length, kv);          // the new tokens see
//   themselves AttentionSequence one{q, out, /*first_position=*/length,
//                         /*kv_length=*/length + tokens, kv};
//   Attention({&one, 1}, {.heads = 32, .scale = 0.125f}, pool);
//
// For the query at position i of head h, with keys j:
//
//   s[j] = scale * (q . k[j]) + slope[h] * (j - i)
//   out  = sum_j softmax(s)[j] * v[j]
//
// over the visible keys: j < kv_length, j <= i if causal, and i - j < window if
// a window is set. A query that sees no key gets zeros. Query head h reads KV
// head h / (heads / kv_heads). Keys that no query of the call sees are not
// read, and a NaN or infinity in a key or value spoils only the queries that
// see it.
//
// The bits of an output depend on its own query, keys and values and on the ISA
// alone: not on the queries, sequences or threads that share the call. Keys are
// taken in blocks at absolute positions, each block is summed by itself, and
// the blocks are joined in ascending order. So a prompt may be processed at
// once, in chunks or token by token. docs/attention.md explains the kernel.
//
// Sums over an f32 or bf16 cache are f32; scores in a block are exact to about
// head_dim * 2^-24 of sum_d |q[d] k[d]|. Over an int8 cache queries are rounded
// to 16 bits and weights to 15, products are summed exactly, and the bits do
// not depend on the ISA either.
#ifndef NIBBLE_KERNELS_ATTENTION_ATTENTION_H_
#define NIBBLE_KERNELS_ATTENTION_ATTENTION_H_

#include "absl/types/span.h"
#include "kernels/attention/attention_sequence.h"  // IWYU pragma: export
#include "kernels/thread_pool.h"

namespace nibble {

// Attends all sequences in one parallel region. Memory comes from
// pool.Scratch(): nothing is allocated once the pool has seen the largest call.
// REQUIRES: kv_length <= kv.capacity(); if causal, kv_length >= first_position
// + tokens; `out` overlaps no input.
void Attention(absl::Span<const AttentionSequence> batch,
               const AttentionParams& params, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ATTENTION_ATTENTION_H_
