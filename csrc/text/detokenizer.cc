// Implementation of detokenizer.h. The two ways to handle bytes that are not UTF-8 are those of Hugging Face's
// decoders: ByteLevel replaces each broken sequence, ByteFallback every byte of a run that is broken anywhere.
#include "text/detokenizer.h"

#include <optional>
#include <utility>

#include "common/check.h"
#include "common/utf8.h"
#include "text/byte_level.h"

namespace dgrt {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

// The byte of a token such as "<0xE2>". Rust's number parser, which decides it for Hugging Face, takes "<0x+2>" too.
std::optional<char> ByteOf(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  const int high = token[3] == '+' ? 0 : HexDigit(token[3]);
  const int low = HexDigit(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<char>(high << 4 | low);
}

void AppendRun(std::string_view run, std::string* text) {
  if (utf8::FindInvalid(run) == run.size()) {
    text->append(run);
    return;
  }
  for (size_t i = 0; i < run.size(); ++i) text->append(utf8::kReplacement);
}

// Appends what is final of `bytes` and returns the start of a character at their end.
std::string_view AppendCharacters(std::string_view bytes, std::string* text) {
  while (!bytes.empty()) {
    const utf8::Sequence sequence = utf8::FirstSequence(bytes);
    if (sequence.kind == utf8::SequenceKind::kIncomplete) break;
    const bool valid = sequence.kind == utf8::SequenceKind::kCharacter;
    text->append(valid ? bytes.substr(0, sequence.size) : utf8::kReplacement);
    bytes = bytes.substr(sequence.size);
  }
  return bytes;
}

}  // namespace

std::string Detokenizer::Push(std::span<const int32_t> ids) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0) throw InvalidArgument(Message("token ids: expected 0 or more, found ", ids[i], " at position ", i));
  }
  std::string text;
  for (const int32_t id : ids) {
    if (id >= tokenizer_.size()) continue;
    if (special_tokens_ == SpecialTokens::kSkip && tokenizer_.IsSpecial(id)) continue;
    Append(tokenizer_.Token(id), &text);
  }
  return text;
}

void Detokenizer::Append(std::string_view token, std::string* text) {
  if (tokenizer_.decoder() == Spelling::kByteLevel) {
    held_ += byte_level::Bytes(token);
    held_.erase(0, held_.size() - AppendCharacters(held_, text).size());
    return;
  }
  const std::string piece = tokenizer_.decoder_replacement().Apply(token);
  if (const auto byte = ByteOf(piece)) {
    held_.push_back(*byte);
    return;
  }
  AppendRun(held_, text);
  held_.clear();
  text->append(piece);
}

std::string Detokenizer::Finish() {
  std::string text;
  if (tokenizer_.decoder() == Spelling::kPlain) {
    AppendRun(held_, &text);
  } else if (!held_.empty()) {
    text = utf8::kReplacement;
  }
  held_.clear();
  return text;
}

}  // namespace dgrt
