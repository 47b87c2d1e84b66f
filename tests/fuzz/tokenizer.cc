// Input: a tokenizer.json, a zero byte, a text. What is accepted has to encode and decode.
#include "fuzz.h"
#include "common/utf8.h"
#include "text/tokenizer.h"

DGRT_FUZZ_JSON

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dgrt;
  const std::string input = fuzz::Text(data, size);
  const size_t cut = std::min(input.find('\0'), input.size());
  const std::string text = cut < input.size() ? input.substr(cut + 1) : "plain text";
  fuzz::MayRefuse([&] {
    const Tokenizer tokenizer(ReadTokenizerJson(input.substr(0, cut)));
    const std::vector<int32_t> ids = tokenizer.Encode(text);
    for (const SpecialTokens special : {SpecialTokens::kSkip, SpecialTokens::kKeep}) {
      if (utf8::FindInvalid(tokenizer.Decode(ids, special)) < tokenizer.Decode(ids, special).size()) std::abort();
    }
  });
  return 0;
}
