// Generated from export/dgrt_export/contract.py by `python -m dgrt_export.contract`; do not edit.
// Names of graphs, inputs and outputs. Those that end in a point are prefixes: append the layer number.
#pragma once

#include <cstdint>

namespace dgrt::contract {

inline constexpr int kContractVersion = 6;
inline constexpr int kOperatorsVersion = 6;
inline constexpr int kOldestOperatorsVersion = 6;
inline constexpr int64_t kSampleWholeBytes = 2097152;
inline constexpr int64_t kSampleBlockBytes = 1024;
inline constexpr int64_t kSampleStrideBytes = 16777216;
inline constexpr char kFormat[] = "dgrt-engine";
inline constexpr char kManifestFile[] = "manifest.json";
inline constexpr char kPortableProfile[] = "portable";
inline constexpr char kFusedProfile[] = "fused";
inline constexpr char kOperatorDomain[] = "dgrt";
inline constexpr char kPrefillGraph[] = "prefill";
inline constexpr char kDenoiseGraph[] = "denoise";
inline constexpr char kScoreGraph[] = "score";
inline constexpr char kPackedGraph[] = "packed";
inline constexpr char kCheckGraph[] = "check";
inline constexpr char kDrafterGraph[] = "drafter";

inline constexpr char kTokens[] = "tokens";  // int64 [1, S]
inline constexpr char kCanvas[] = "canvas";  // int64 [1, L]
inline constexpr char kPositions[] = "positions";  // int64 [1, S]
inline constexpr char kSoft[] = "soft";  // float32 [1, L, D]
inline constexpr char kPastK[] = "past_k.";  // float32 [1, P, K]
inline constexpr char kPastV[] = "past_v.";  // float32 [1, P, K]
inline constexpr char kNewK[] = "new_k.";  // float32 [1, S, K]
inline constexpr char kNewV[] = "new_v.";  // float32 [1, S, K]
inline constexpr char kHidden[] = "hidden";  // float32 [1, L, D]
inline constexpr char kNextSoft[] = "next_soft";  // float32 [1, L, D]
inline constexpr char kNextPastK[] = "next_past_k.";  // float32 [1, Q, K]
inline constexpr char kNextPastV[] = "next_past_v.";  // float32 [1, Q, K]
inline constexpr char kNextHidden[] = "next_hidden";  // float32 [1, L, D]
inline constexpr char kCanvases[] = "canvases";  // int64 [G, L]
inline constexpr char kCanvasHidden[] = "canvas_hidden";  // float32 [G, L, D]
inline constexpr char kEvidence[] = "evidence";  // float32 [1, B, D]

}  // namespace dgrt::contract
