// Tokens to a tree. What this renderer lacks is refused here, with its line, whether or not a conversation would reach
// it.
#pragma once

#include <string_view>

#include "text/jinja/syntax/syntax.h"

namespace dgrt::jinja {

// `source` is UTF-8. Throws SyntaxFailure (lexer.h).
Body ParseTemplate(std::string_view source);

}  // namespace dgrt::jinja
