// Entry points of the kernels. Nothing inside allocates, synchronises beyond the given pool, or reads the environment.
// Workspace sizes follow from the sizes in the parameters, the number of threads and the instruction set alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/params.h"

namespace dgrt {

class ThreadPool;  // common/thread_pool.h

size_t VocabularyHeadWorkspaceBytes(int64_t canvas_len, int64_t hidden_size, int64_t vocab_size);
void LaunchVocabularyHead(const VocabularyHeadParams& params, ThreadPool& pool);

// Entropy-bound acceptance (Ben-Hamu et al., arXiv 2505.24857): positions in ascending (entropy, position) order are
// accepted while the sum of the entropies before them is <= bound (nats). The first is always accepted.
// A pinned position has entropy 0: it comes first and adds nothing to the sum.
void AcceptByEntropy(std::span<const float> entropy, float entropy_bound, std::span<uint8_t> accepted);

// The layers of the model.
size_t LinearWorkspaceBytes(const LinearParams& params, int num_threads);
void LaunchLinear(const LinearParams& params, ThreadPool& pool);

size_t QkvWorkspaceBytes(const QkvParams& params, int num_threads);
void LaunchQkv(const QkvParams& params, ThreadPool& pool);

size_t GatedMlpWorkspaceBytes(const GatedMlpParams& params, int num_threads);
void LaunchGatedMlp(const GatedMlpParams& params, ThreadPool& pool);

size_t ExpertsWorkspaceBytes(const ExpertsParams& params, int num_threads);
void LaunchExperts(const ExpertsParams& params, ThreadPool& pool);

size_t FeedForwardWorkspaceBytes(const FeedForwardParams& params, int num_threads);
void LaunchFeedForward(const FeedForwardParams& params, ThreadPool& pool);

size_t AttentionWorkspaceBytes(const AttentionParams& params, int num_threads);
void LaunchAttention(const AttentionParams& params, ThreadPool& pool);

}  // namespace dgrt
