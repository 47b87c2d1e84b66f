// Chat: messages to the text of Gemma's turns. There is no Jinja here: a package's template is compared with the one
// that chat_template.cc knows, and any other is refused, so that no prompt has a form that the model did not learn.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace dgrt {

struct ChatMessage {
  std::string_view role;  // "assistant" is written as "model"
  std::string_view content;
};

class ChatTemplate {
 public:
  // Reads chat_template.jinja and tokenizer_config.json of an engine package or checkpoint. Throws InvalidArgument if
  // there is no template, Unsupported if it is another one, ContractMismatch if a file is damaged.
  static ChatTemplate Load(const std::string& folder);
  explicit ChatTemplate(std::string bos_token) : bos_token_(std::move(bos_token)) {}

  // All turns, then the opening of the model's. Throws InvalidArgument if there is no message.
  std::string Format(std::span<const ChatMessage> messages) const;

 private:
  std::string bos_token_;  // "" if there is none
};

}  // namespace dgrt
