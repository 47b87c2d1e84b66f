// The instruction sets that the CPU kernels have variants for, and which of them this process uses.
#pragma once

#include <cstdint>
#include <span>

namespace dgrt {

// In the order of preference; each processor that has one has those before it.
enum class CpuIsa : int32_t {
  kPlain = 0,
  kAvx2 = 1,        // with FMA
  kAvx512 = 2,      // F, DQ, BW, VL
  kAvx512Vnni = 3,  // and sums of int16 products
  kAvx512Bf16 = 4,  // and products of bf16 pairs
  kAmx = 5,         // and matrix tiles of bf16 and int8
};

const char* CpuIsaName(CpuIsa isa);

// Those that this processor can run, best first: the same for the life of the process.
std::span<const CpuIsa> UsableCpuIsas();

// The best one, or the one that UseCpuIsa named.
CpuIsa SelectedCpuIsa();

// Makes the kernels of the whole process use the variant of this name (the variable DGRT_CPU_ISA), for tests and
// comparisons. Not while a kernel runs. Throws InvalidArgument or Unsupported, with what is usable.
void UseCpuIsa(const char* name);

}  // namespace dgrt
