// Text files of an engine package: read whole, with a bound. Used by tokenizer.cc and chat_template.cc.
#pragma once

#include <optional>
#include <string>

namespace dgrt {

// The content of `folder`/`name`; nothing if there is no such file. Throws ContractMismatch if it cannot be read or is
// larger than any file of its kind.
std::optional<std::string> ReadPackageText(const std::string& folder, const std::string& name);

}  // namespace dgrt
