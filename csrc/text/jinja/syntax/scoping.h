// Which names a scope hides. Jinja decides when it compiles: a name that a scope sets before it uses it is undefined
// until then, even for the loops and macros inside and although the conversation has a value of that name.
#pragma once

#include "text/jinja/syntax/syntax.h"

namespace dgrt::jinja {

// Fills Body::hidden of a template's body and of all that are scopes inside.
void HideNames(Body* body);

}  // namespace dgrt::jinja
