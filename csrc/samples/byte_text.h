// Text of the bundled model `mini`: byte b is token 128 + b, everything below is special. A host of another model would
// use that model's tokenizer here. Used by inline_editor.cc.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace byte_text {

inline constexpr int32_t kByteOffset = 128;
inline constexpr int32_t kEos = 1, kBos = 2, kTurn = 105, kTurnEnd = 106;

inline void Append(std::vector<int32_t>& tokens, std::string_view text) {
  for (const char c : text) tokens.push_back(kByteOffset + static_cast<unsigned char>(c));
}

// One user turn and the opening of the model's turn.
inline std::vector<int32_t> EncodePrompt(std::string_view content) {
  std::vector<int32_t> tokens = {kBos, kTurn};
  Append(tokens, "user\n");
  Append(tokens, content);
  tokens.push_back(kTurnEnd);
  Append(tokens, "\n");
  tokens.push_back(kTurn);
  Append(tokens, "model\n");
  return tokens;
}

// Text up to the first stop token; special tokens are dropped. Bytes of an unsettled draft need not be valid UTF-8, and
// control characters would spoil the terminal: both are shown as a middle dot when `is_draft`.
inline std::string Decode(std::span<const int32_t> tokens, bool is_draft) {
  std::string text;
  for (const int32_t token : tokens) {
    if (token == kEos || token == kTurnEnd) break;
    if (token < kByteOffset) continue;
    const auto byte = static_cast<unsigned char>(token - kByteOffset);
    if (is_draft && (byte < 0x20 || byte >= 0x7f)) {
      text += byte == '\n' ? " " : "\xC2\xB7";
    } else {
      text.push_back(static_cast<char>(byte));
    }
  }
  return text;
}

}  // namespace byte_text
