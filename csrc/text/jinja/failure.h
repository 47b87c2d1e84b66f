// What goes wrong inside the renderer. template.cc adds the template's name and line and throws the public error.
#pragma once

#include <stdexcept>
#include <string>

#include "common/check.h"

namespace dgrt::jinja {

enum class Fault {
  kSyntax,       // the template is malformed: Jinja refuses it as well
  kRefused,      // the template fails on this conversation, or refuses it: so it does in Jinja
  kUnsupported,  // Jinja goes on, this renderer does not: a construct that it lacks, or a bound
};

class Failure : public std::runtime_error {
 public:
  Failure(Fault fault, const std::string& message) : std::runtime_error(message), fault_(fault) {}
  Fault fault() const { return fault_; }

 private:
  Fault fault_;
};

template <typename... Parts>
[[noreturn]] void Refuse(const Parts&... parts) {
  throw Failure(Fault::kRefused, Message(parts...));
}

template <typename... Parts>
[[noreturn]] void NotSupported(const Parts&... parts) {
  throw Failure(Fault::kUnsupported, Message(parts...));
}

}  // namespace dgrt::jinja
