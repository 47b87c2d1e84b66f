// The only place that reads the environment. Every variable is called DGRT_...; a value that cannot be used is an
// error (InvalidArgument naming the variable), never ignored. Kernels must not call this.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace dgrt {

// Value of a variable; nothing when it is unset or empty. `name` starts with DGRT_.
std::optional<std::string> EnvString(const char* name);

// Decimal integer in [lowest, highest]; nothing when it is unset or empty.
std::optional<int64_t> EnvInteger(const char* name, int64_t lowest, int64_t highest);

}  // namespace dgrt
