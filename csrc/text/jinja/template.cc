// Implementation of template.h.
#include "text/jinja/template.h"

#include <utility>

#include "common/utf8.h"
#include "text/jinja/evaluation/evaluator.h"
#include "text/jinja/limits.h"
#include "text/jinja/syntax/lexer.h"
#include "text/jinja/syntax/parser.h"
#include "text/jinja/values/json_input.h"

namespace dgrt::jinja {
namespace {

std::string Place(const std::string& name, int line) { return Message(name, " line ", line); }

Body Parse(const std::string& source, const std::string& name) {
  if (source.size() > kMaxTemplateBytes) {
    throw Unsupported(Message(name, ": expected at most ", kMaxTemplateBytes, " bytes, found ", source.size()));
  }
  if (const size_t invalid = utf8::FindInvalid(source); invalid != source.size()) {
    throw ContractMismatch(Message(name, ": expected UTF-8, found something else at byte ", invalid));
  }
  try {
    return ParseTemplate(source);
  } catch (const SyntaxFailure& failure) {
    return WithPublicErrors(Place(name, failure.line()), []() -> Body { throw; });
  }
}

}  // namespace

Template::Template(std::string source, std::string name)
    : source_(std::move(source)), name_(std::move(name)), body_(Parse(source_, name_)) {}

std::string Template::Render(Heap& heap, const Dict& variables) const {
  Evaluator evaluator(heap, variables);
  try {
    return evaluator.Run(body_);
  } catch (const Failure&) {
    return WithPublicErrors(Place(name_, evaluator.line()), []() -> std::string { throw; });
  }
}

std::string RenderTemplate(const std::string& source, std::string_view json) {
  const Template parsed(source, "template");
  Heap heap;
  const Value variables = WithPublicErrors("variables", [&] { return ParseInput(heap, json); });
  if (variables.dict() == nullptr) throw InvalidArgument("variables: expected a JSON object");
  return parsed.Render(heap, *variables.dict());
}

}  // namespace dgrt::jinja
