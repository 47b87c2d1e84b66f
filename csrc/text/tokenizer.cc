// The steps in the order of Hugging Face's `tokenizers`: find added tokens, normalize what is between them, find those
// that normalized text is searched for, spell the rest in the vocabulary's characters, merge.
#include "text/tokenizer.h"

#include <utility>

#include "common/check.h"
#include "common/utf8.h"
#include "text/byte_level.h"
#include "text/detokenizer.h"
#include "text/package_text.h"

namespace dgrt {
namespace {

constexpr char kTokenizerFile[] = "tokenizer.json";
// Positions in a text are int32, and spelling can double it.
constexpr size_t kMaxTextBytes = size_t{1} << 29;

void CheckText(std::string_view text) {
  if (text.size() > kMaxTextBytes) {
    throw InvalidArgument(Message("text: expected at most ", kMaxTextBytes, " bytes, found ", text.size()));
  }
  if (const size_t offset = utf8::FindInvalid(text); offset < text.size()) {
    throw InvalidArgument(Message("text: expected UTF-8, found an invalid or incomplete character at byte ", offset));
  }
}

}  // namespace

std::shared_ptr<const Tokenizer> Tokenizer::Load(const std::string& folder) {
  const std::optional<std::string> text = ReadPackageText(folder, kTokenizerFile);
  if (!text) {
    throw InvalidArgument(Message(folder, ": expected a folder with ", kTokenizerFile, ", found none; text needs one"));
  }
  return std::make_shared<const Tokenizer>(ReadTokenizerJson(*text));
}

Tokenizer::Tokenizer(TokenizerFacts facts)
    : facts_(std::move(facts)), bpe_(facts_.vocabulary, facts_.merges, facts_.bpe) {
  for (const AddedToken& token : facts_.added) {
    if (token.id >= facts_.vocabulary.size()) behind_vocabulary_.push_back(token.content);
  }
  special_.resize(static_cast<size_t>(size()));
  for (const AddedToken& token : facts_.added) {
    special_[static_cast<size_t>(token.id)] = token.special;
    if (token.normalized) {
      in_normalized_text_.Add(facts_.normalizer.Apply(token.content), token);
    } else {
      in_text_.Add(token.content, token);
    }
  }
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text) const {
  CheckText(text);
  std::vector<int32_t> ids;
  const auto encode_normalized = [&](std::string_view piece, int32_t id) {
    if (id != AddedTokenFinder::kText) {
      ids.push_back(id);
    } else {
      EncodeWord(piece, &ids);
    }
  };
  in_text_.Split(text, [&](std::string_view piece, int32_t id) {
    if (id != AddedTokenFinder::kText) {
      ids.push_back(id);
    } else {
      in_normalized_text_.Split(facts_.normalizer.Apply(piece), encode_normalized);
    }
  });
  return ids;
}

void Tokenizer::EncodeWord(std::string_view text, std::vector<int32_t>* ids) const {
  if (facts_.spelling == Spelling::kPlain) {
    bpe_.Encode(text, ids);
    return;
  }
  std::string word;
  word.reserve(2 * text.size() + 2);
  if (facts_.add_prefix_space && !text.starts_with(' ')) byte_level::AppendByte(' ', &word);
  for (const char byte : text) byte_level::AppendByte(static_cast<unsigned char>(byte), &word);
  bpe_.Encode(word, ids);
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, SpecialTokens special_tokens) const {
  Detokenizer detokenizer(*this, special_tokens);
  std::string text = detokenizer.Push(ids);
  return text += detokenizer.Finish();
}

std::string_view Tokenizer::Token(int32_t id) const {
  const int32_t behind = id - facts_.vocabulary.size();
  return behind < 0 ? facts_.vocabulary.Token(id) : std::string_view(behind_vocabulary_[static_cast<size_t>(behind)]);
}

}  // namespace dgrt
