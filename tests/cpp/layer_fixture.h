// What the tests of the layers' kernels share: random inputs, a run in a workspace full of NaN, every instruction set.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "common/aligned_buffer.h"
#include "common/thread_pool.h"
#include "kernels/cpu/isa.h"

namespace dgrt {

using Floats = std::vector<float>;
using Run = std::function<void(void* workspace, ThreadPool& pool, float* y)>;

inline size_t Size(int64_t n) { return static_cast<size_t>(n); }

inline float ToBf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return std::bit_cast<float>((bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u);
}

struct Random {
  std::mt19937 engine{17};
  std::normal_distribution<float> normal;
  Floats Vector(int64_t size, float scale = 1) {
    Floats out(Size(size));
    for (float& x : out) x = scale * normal(engine);
    return out;
  }
};

// y and scratch start as NaN: nothing may be read before it is written, everything must be written.
inline Floats RunOn(int threads, size_t workspace_bytes, int64_t size, const Run& run) {
  AlignedBuffer<unsigned char> workspace(workspace_bytes);
  std::memset(workspace.data(), 0xff, workspace.bytes());
  Floats y(Size(size), std::numeric_limits<float>::quiet_NaN());
  ThreadPool pool(threads);
  run(workspace.data(), pool, y.data());
  return y;
}

inline void ForEachIsa(const std::function<void()>& check) {
  for (const CpuIsa isa : UsableCpuIsas()) {
    UseCpuIsa(CpuIsaName(isa));
    check();
  }
  UseCpuIsa(CpuIsaName(UsableCpuIsas().front()));
}

inline bool SameBits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace dgrt
