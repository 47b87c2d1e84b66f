// What the codes of int4 mean, by the byte of a group's level: tables for vpshufb.
#pragma once

#include "kernels/weights.h"

namespace dgrt {

struct Int4Tables {
  alignas(16) int8_t weights[256][16];
};

inline constexpr Int4Tables kInt4Tables = [] {
  Int4Tables tables{};
  for (int byte = 0; byte < 256; ++byte) {
    for (int code = 0; code < 16; ++code) tables.weights[byte][code] = Int4Weight(code, static_cast<int8_t>(byte));
  }
  return tables;
}();

}  // namespace dgrt
