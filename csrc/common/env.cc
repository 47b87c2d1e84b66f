// Implementation of common/env.h.
#include "common/env.h"

#include <charconv>
#include <cstdlib>
#include <string_view>

#include "common/check.h"

namespace dgrt {

std::optional<std::string> EnvString(const char* name) {
  DGRT_CHECK(std::string_view(name).starts_with("DGRT_"));
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return std::string(value);
}

std::optional<std::string> SetUnlessSet(const char* name, const char* value) {
  const char* found = std::getenv(name);
  if (found != nullptr) return std::string(found);
  ::setenv(name, value, 0);
  return std::nullopt;
}

std::optional<int64_t> EnvInteger(const char* name, int64_t lowest, int64_t highest) {
  const std::optional<std::string> text = EnvString(name);
  if (!text) return std::nullopt;
  int64_t value = 0;
  const char* end = text->data() + text->size();
  const auto [stop, error] = std::from_chars(text->data(), end, value);
  if (error != std::errc() || stop != end || value < lowest || value > highest) {
    throw InvalidArgument(Message("environment variable ", name, ": expected an integer from ", lowest, " to ", highest,
                                  ", found '", *text, "'"));
  }
  return value;
}

}  // namespace dgrt
