// Chat templates: the part of Jinja that they use, rendered as transformers' apply_chat_template renders it, without
// Python. What it cannot render is refused with the line and the construct. A template is untrusted: see limits.h.
#pragma once

#include <string>
#include <string_view>

#include "text/jinja/syntax/syntax.h"
#include "text/jinja/values/heap.h"

namespace dgrt::jinja {

class Template {
 public:
  // `name` is that of errors: "chat_template.jinja". Throws ContractMismatch for a malformed template, Unsupported for
  // a construct that this renderer lacks.
  Template(std::string source, std::string name);

  // `variables`: a dict, made in `heap`. Throws InvalidArgument when the template refuses them or fails on them,
  // Unsupported at a bound or a construct that could not be told earlier. Any thread.
  std::string Render(Heap& heap, const Dict& variables) const;

  const std::string& source() const { return source_; }
  const std::string& name() const { return name_; }

 private:
  std::string source_;
  std::string name_;
  Body body_{};
};

// Calls `work`; a Failure in it becomes the public error of its kind, its text behind `place`.
template <typename Work>
auto WithPublicErrors(const std::string& place, Work&& work) {
  try {
    return work();
  } catch (const Failure& failure) {
    const std::string text = Message(place, ": ", failure.what());
    switch (failure.fault()) {
      case Fault::kSyntax: throw ContractMismatch(text);
      case Fault::kRefused: throw InvalidArgument(text);
      case Fault::kUnsupported: break;
    }
    throw Unsupported(text);
  }
}

// The template's text with the members of a JSON object as variables; needs no file.
std::string RenderTemplate(const std::string& source, std::string_view json);

}  // namespace dgrt::jinja
