// The only place that reads or changes the environment. Every variable of ours is called DGRT_...; a value that cannot be
// used is an error (InvalidArgument naming the variable), never ignored. Kernels must not call this.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace dgrt {

// Value of a variable; nothing when it is unset or empty. `name` starts with DGRT_.
std::optional<std::string> EnvString(const char* name);

// Sets a variable that another library reads later, unless the user has set it. Returns the value that it had.
std::optional<std::string> SetUnlessSet(const char* name, const char* value);

// Decimal integer in [lowest, highest]; nothing when it is unset or empty.
std::optional<int64_t> EnvInteger(const char* name, int64_t lowest, int64_t highest);

}  // namespace dgrt
