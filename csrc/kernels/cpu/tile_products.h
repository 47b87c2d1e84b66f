// The products of row_products.h and int8_products.h on the processor's matrix tiles (AMX): one instruction for sixteen weight
// rows, read where they lie, by a panel of sixteen tokens. Only where kAmx is usable (isa.h).
#pragma once

#include <cstdint>

#include "kernels/cpu/row_products.h"

namespace dgrt {

// As RowProducts::multiply, of bf16.
void MultiplyOnTiles(const WeightRows& weight, int64_t depth, const void* panels, int64_t panel_bytes, int64_t num_panels,
                     float* out);

// As Int8Products::multiply, of rows of int8 as they are stored and panels with four depths in a word.
void MultiplyInt8OnTiles(const WeightRows& weight, int64_t depth, const void* panels, int64_t panel_bytes, int64_t num_panels,
                         float* out);

}  // namespace dgrt
