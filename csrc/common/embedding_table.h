// The tied token embedding / vocabulary head as the kernels see it: a borrowed row-major table [V, D].
// Filled by engine/ (a view into the mapped checkpoint file), read by kernels/.
#pragma once

#include <cstdint>

namespace dgrt {

enum class DType : int32_t { kFloat32 = 0, kBFloat16 = 1 };

constexpr int64_t BytesOf(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

struct EmbeddingTable {
  const void* rows = nullptr;  // [vocab_size, hidden_size]; may be unaligned: a view into a safetensors file
  DType dtype = DType::kFloat32;
  int64_t vocab_size = 0;      // V
  int64_t hidden_size = 0;     // D
  bool bf16_products = false;  // of a bf16 table: what is multiplied with it is rounded to bf16, as by the layers
};

}  // namespace dgrt
