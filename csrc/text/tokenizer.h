// Text to token ids and back, as Hugging Face's `tokenizers` does it with the same tokenizer.json: encode without
// adding tokens, decode. Used by hosts through capi/. Immutable once loaded: any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/tokenizer_json.h"

namespace dgrt {

// Whether decoding leaves out tokens such as "<|turn>".
enum class SpecialTokens { kSkip, kKeep };

class Tokenizer {
 public:
  // Reads tokenizer.json of an engine package or checkpoint. Throws InvalidArgument if the folder has none,
  // ContractMismatch if it is damaged, Unsupported if it is of a kind that this library cannot do.
  static std::shared_ptr<const Tokenizer> Load(const std::string& folder);
  explicit Tokenizer(TokenizerFacts facts);
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Special tokens written in the text become their ids; nothing is added that the text does not say. Throws
  // InvalidArgument, naming the offset, if `text` is not UTF-8.
  std::vector<int32_t> Encode(std::string_view text) const;

  // Ids that no token has give no text; throws InvalidArgument for negative ones. Bytes that are not UTF-8 become
  // U+FFFD.
  std::string Decode(std::span<const int32_t> ids, SpecialTokens special_tokens) const;

  int32_t size() const { return facts_.vocabulary.size() + static_cast<int32_t>(behind_vocabulary_.size()); }

  // What the decoder needs to know.
  Spelling decoder() const { return facts_.decoder; }
  std::string_view Token(int32_t id) const;  // 0 <= id < size()
  bool IsSpecial(int32_t id) const { return special_[static_cast<size_t>(id)]; }
  const Replacement& decoder_replacement() const { return facts_.decoder_replacement; }

 private:
  void EncodeWord(std::string_view text, std::vector<int32_t>* ids) const;

  const TokenizerFacts facts_;
  const Bpe bpe_;
  std::vector<std::string> behind_vocabulary_;  // added tokens that the model does not know
  std::vector<bool> special_;                   // [size()]
  AddedTokenFinder in_text_;
  AddedTokenFinder in_normalized_text_;
};

}  // namespace dgrt
