// Token ids that arrive in portions to text. Tokenizer::Decode is one portion; hosts that show text while it is made
// use it through capi/. One thread at a time.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "text/tokenizer.h"

namespace dgrt {

// All pieces together, that of Finish included, are what Tokenizer::Decode says of all ids, wherever the portions end.
class Detokenizer {
 public:
  // `tokenizer` must outlive this object.
  Detokenizer(const Tokenizer& tokenizer, SpecialTokens special_tokens)
      : tokenizer_(tokenizer), special_tokens_(special_tokens) {}

  // The text that no later token can change. Throws InvalidArgument for a negative id and then takes none of them.
  std::string Push(std::span<const int32_t> ids);

  // The text that was held back; bytes that never completed a character become U+FFFD. The next Push begins anew.
  std::string Finish();

 private:
  void Append(std::string_view token, std::string* text);

  const Tokenizer& tokenizer_;
  const SpecialTokens special_tokens_;
  // What is held back. Byte-level: the start of a character. Otherwise: a run of byte tokens, which is text only if all
  // of it is UTF-8, so that its end has to be seen.
  std::string held_;
};

}  // namespace dgrt
