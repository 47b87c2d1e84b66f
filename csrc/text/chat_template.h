// Chat: a conversation to the text that the model was taught to see. The package's template says how (jinja/); this
// file gives it what transformers' apply_chat_template would give it.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace dgrt {

struct ChatMessage {
  std::string_view role;
  std::string_view content;
};

class ChatTemplate {
 public:
  // Reads the template and tokenizer_config.json of an engine package or checkpoint. Throws InvalidArgument if
  // there is no template, Unsupported if it uses what the renderer lacks, ContractMismatch if a file is damaged.
  static ChatTemplate Load(const std::string& folder);

  // All turns, then the opening of the model's. Throws InvalidArgument if there is no message or the template refuses
  // them.
  std::string Format(std::span<const ChatMessage> messages) const;

  // `conversation`: a JSON object with "messages" and, optionally, "tools", "documents", "add_generation_prompt",
  // "continue_final_message"; its other members are variables of the template. Throws as Format.
  std::string Render(std::string_view conversation) const;

 private:
  struct State;
  explicit ChatTemplate(std::shared_ptr<const State> state) : state_(std::move(state)) {}

  std::shared_ptr<const State> state_;
};

}  // namespace dgrt
