// Implementation of isa.h.
#include "kernels/cpu/isa.h"

#include <algorithm>
#include <atomic>
#include <string_view>

#include "common/check.h"
#include "kernels/cpu/x86_variants.inc"

#if DGRT_X86_VARIANTS
#include <cpuid.h>
#endif
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace dgrt {
namespace {

constexpr CpuIsa kAll[] = {CpuIsa::kAmx, CpuIsa::kAvx512Bf16, CpuIsa::kAvx512Vnni, CpuIsa::kAvx512, CpuIsa::kAvx2, CpuIsa::kPlain};

#if DGRT_X86_VARIANTS
// Whether the processor has tiles of bf16 and int8 and the system lets this process use them; Linux wants to be asked once, for
// all threads.
bool HasTiles() {
#ifdef __linux__
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25, kAllThree = kBf16 | kTile | kInt8;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || (edx & kAllThree) != kAllThree) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool Runs(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kPlain: return true;
    case CpuIsa::kAvx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case CpuIsa::kAvx512:
      return Runs(CpuIsa::kAvx2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    case CpuIsa::kAvx512Vnni: return Runs(CpuIsa::kAvx512) && __builtin_cpu_supports("avx512vnni");
    case CpuIsa::kAvx512Bf16: return Runs(CpuIsa::kAvx512Vnni) && __builtin_cpu_supports("avx512bf16");
    case CpuIsa::kAmx: return Runs(CpuIsa::kAvx512Bf16) && HasTiles();
  }
  return false;
}
#else
bool Runs(CpuIsa isa) { return isa == CpuIsa::kPlain; }
#endif

std::atomic<CpuIsa>& Selected() {
  static std::atomic<CpuIsa> selected{UsableCpuIsas().front()};
  return selected;
}

}  // namespace

const char* CpuIsaName(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kPlain: return "plain";
    case CpuIsa::kAvx2: return "avx2";
    case CpuIsa::kAvx512: return "avx512";
    case CpuIsa::kAvx512Vnni: return "avx512_vnni";
    case CpuIsa::kAvx512Bf16: return "avx512_bf16";
    case CpuIsa::kAmx: return "amx";
  }
  return "?";
}

std::span<const CpuIsa> UsableCpuIsas() {
  static const std::span<const CpuIsa> usable = [] {
    std::span<const CpuIsa> isas(kAll);
    while (!Runs(isas.front())) isas = isas.subspan(1);
    return isas;
  }();
  return usable;
}

CpuIsa SelectedCpuIsa() { return Selected().load(std::memory_order_relaxed); }

void UseCpuIsa(const char* name) {
  std::string usable;
  for (const CpuIsa isa : UsableCpuIsas()) {
    if (std::string_view(name) == CpuIsaName(isa)) return Selected().store(isa);
    usable += (usable.empty() ? "" : ", ") + std::string(CpuIsaName(isa));
  }
  for (const CpuIsa isa : kAll) {
    if (std::string_view(name) == CpuIsaName(isa)) {
      throw Unsupported(Message("DGRT_CPU_ISA: expected an instruction set that this processor has (", usable, "), found ", name));
    }
  }
  throw InvalidArgument(Message("DGRT_CPU_ISA: expected one of ", usable, ", found '", name, "'"));
}

}  // namespace dgrt
