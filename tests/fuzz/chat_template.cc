// Input: a template, a zero byte, the JSON of a conversation.
#include "fuzz.h"
#include "common/utf8.h"
#include "text/jinja/template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dgrt;
  const std::string input = fuzz::Text(data, size);
  const size_t cut = std::min(input.find('\0'), input.size());
  const std::string conversation =
      cut < input.size() ? input.substr(cut + 1) : R"({"messages": [{"role": "user", "content": "Hi"}]})";
  fuzz::MayRefuse([&] {
    const std::string text = jinja::RenderTemplate(input.substr(0, cut), conversation);
    if (utf8::FindInvalid(text) < text.size()) std::abort();
  });
  return 0;
}
