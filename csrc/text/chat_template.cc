// Implementation of chat_template.h. `dgrt/messages.py` does the same with Jinja itself.
#include "text/chat_template.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "common/json_reader.h"
#include "common/utf8.h"
#include "text/jinja/evaluation/operations.h"
#include "text/jinja/template.h"
#include "text/jinja/values/json_input.h"
#include "text/jinja/values/text_operations.h"
#include "text/package_text.h"

namespace dgrt {
namespace {

using jinja::DictBuilder;
using jinja::Heap;
using jinja::None;
using jinja::Refuse;
using jinja::Value;
using nlohmann::json;

constexpr char kTemplateFile[] = "chat_template.jinja";
constexpr char kToolTemplateFile[] = "chat_template.tool_use.jinja";  // of checkpoints that have another for tools
constexpr char kConfigFile[] = "tokenizer_config.json";
// What a message's thoughts are called. The first is the name that templates read.
constexpr std::string_view kReasoningFields[] = {"reasoning_content", "thinking", "reasoning"};
// Stands behind the text that the model is to go on with, until the place is known.
constexpr std::string_view kMark = "DGRT_END_OF_MESSAGE_TO_GO_ ";

using Tokens = std::map<std::string, std::string>;

// Adds a token: a string, or an object with "content".
void AddToken(const std::string& name, const json& given, Tokens* tokens) {
  const json& value = given.is_object() && given.contains("content") ? given.at("content") : given;
  if (value.is_string()) (*tokens)[name] = value.get<std::string>();
}

// The named tokens of the config: "bos_token" and the like, and those of "extra_special_tokens".
Tokens NamedTokens(const json& config) {
  Tokens tokens;
  for (const auto& [name, value] : config.items()) {
    if (name.ends_with("_token")) AddToken(name, value, &tokens);
  }
  const auto extra = config.find("extra_special_tokens");
  if (extra != config.end() && extra->is_object()) {
    for (const auto& [name, value] : extra->items()) AddToken(name, value, &tokens);
  }
  return tokens;
}

// A template of the config: the only one, which is called "default", or one of a list with names.
std::optional<std::string> TemplateOf(const json& config, std::string_view name) {
  const auto found = config.find("chat_template");
  if (found == config.end()) return std::nullopt;
  if (found->is_string() && name == "default") return found->get<std::string>();
  if (!found->is_array()) return std::nullopt;
  for (const json& entry : *found) {
    const bool is_named = entry.is_object() && entry.contains("name") && entry.contains("template");
    if (is_named && entry.at("name") == name && entry.at("template").is_string()) {
      return entry.at("template").get<std::string>();
    }
  }
  return std::nullopt;
}

json ParseConfig(const std::string& text) {
  json config = ParseJson(text, kConfigFile);
  JsonObject(config, Message(kConfigFile, ": "));  // checks that it is an object
  return config;
}

// Texts of the caller; they become part of the prompt.
Value TextOf(Heap& heap, std::string_view text, std::string_view name) {
  const size_t invalid = utf8::FindInvalid(text);
  if (invalid != text.size()) Refuse(name, ": expected UTF-8, found something else at byte ", invalid);
  return heap.MakeString(std::string(text));
}

// Changes to a conversation before the template sees it.
class Conversation {
 public:
  Conversation(Heap& heap, const Value& given) : heap_(heap) {
    if (given.dict() == nullptr) Refuse("expected a JSON object, found a ", TypeName(given));
    for (const auto& [key, value] : given.dict()->entries) all_.Set(key, value);
    CheckObjects("tools");
    CheckObjects("documents");
    ReadMessages();
  }

  bool HasTools() {
    const Value* tools = Find("tools");
    return tools != nullptr && !tools->IsNone();
  }

  void SetDefault(const std::string& name, Value value) {
    const Value key = heap_.MakeString(name);
    if (all_.dict.Find(key) == nullptr) all_.Set(key, std::move(value));
  }

  // What a template gets whose text is `source`. To be called once, last.
  Value Variables(const std::string& source) {
    MarkFinal(source);
    std::vector<Value> messages;
    for (DictBuilder& message : messages_) messages.push_back(heap_.MakeDict(std::move(message)));
    all_.Set(heap_.MakeString("messages"), heap_.MakeSequence(std::move(messages)));
    SetDefault("tools", None{});
    SetDefault("documents", None{});
    SetDefault("add_generation_prompt", false);
    return heap_.MakeDict(std::move(all_));
  }

  // The rendered text up to the mark, if there is one.
  std::string UpToMark(std::string text) const {
    if (final_text_.empty()) return text;
    const std::string_view mark = kMark.substr(0, kMark.size() - 1);
    const size_t at = text.rfind(mark);
    const bool has_text = text.find(jinja::Strip(final_text_[0], jinja::Side::kBoth)) != std::string::npos;
    if (at == std::string::npos || !has_text || text.find(mark.substr(0, 8)) < at) {
      Refuse("continue_final_message: the template leaves out, changes or repeats the end of the final message");
    }
    const bool keeps_space = text.compare(at, kMark.size(), kMark) == 0;
    text.resize(at);
    return keeps_space ? text : std::string(jinja::Strip(text, jinja::Side::kRight));
  }

 private:
  const Value* Find(std::string_view name) { return all_.dict.Find(heap_.MakeString(std::string(name))); }

  // A list of objects, null, or nothing.
  void CheckObjects(std::string_view name) {
    const Value* list = Find(name);
    if (list == nullptr || list->IsNone()) return;
    if (list->sequence() == nullptr) Refuse("\"", name, "\": expected an array, found a ", TypeName(*list));
    for (const Value& element : list->sequence()->items) {
      if (element.dict() == nullptr) Refuse("\"", name, "\": expected objects, found a ", TypeName(element));
    }
  }

  void ReadMessages() {
    const Value* messages = Find("messages");
    if (messages == nullptr || messages->sequence() == nullptr) Refuse("expected an array \"messages\"");
    if (messages->sequence()->items.empty()) Refuse("\"messages\": expected at least one, found none");
    for (const Value& message : messages->sequence()->items) {
      if (message.dict() == nullptr) Refuse("\"messages\": expected objects, found a ", TypeName(message));
      ReadMessage(*message.dict());
    }
  }

  // Null stands for what is not there. Thoughts are found under their usual name, and under "thinking".
  void ReadMessage(const jinja::Dict& message) {
    Value thoughts = None{};
    for (const std::string_view name : kReasoningFields) {
      const Value* found = message.Find(heap_.MakeString(std::string(name)));
      if (found != nullptr && !found->IsNone() && thoughts.IsNone()) thoughts = *found;
    }
    DictBuilder copy;
    if (!thoughts.IsNone()) copy.Set(heap_.MakeString("thinking"), thoughts);
    for (const auto& [key, value] : message.entries) {
      if (!value.IsNone()) copy.Set(key, value);
    }
    if (!thoughts.IsNone()) copy.Set(heap_.MakeString("reasoning_content"), thoughts);
    messages_.push_back(std::move(copy));
  }

  // Which field of the final message is to be gone on with: true means "content".
  std::string FieldToContinue() {
    const Value* given = Find("continue_final_message");
    if (given == nullptr || !IsTrue(*given)) return "";
    if (!given->IsString() && given->As<bool>() == nullptr) {
      Refuse("\"continue_final_message\": expected true, false or the name of a field, found a ", TypeName(*given));
    }
    return given->IsString() ? given->text() : "content";
  }

  void MarkFinal(const std::string& source) {
    const std::string field = FieldToContinue();
    const Value key = heap_.MakeString("continue_final_message");
    if (all_.dict.Find(key) != nullptr) Remove(key);
    if (field.empty()) return;
    const Value* prompt = Find("add_generation_prompt");
    if (prompt != nullptr && IsTrue(*prompt)) {
      Refuse("\"continue_final_message\" and \"add_generation_prompt\" exclude each other");
    }
    DictBuilder& message = messages_.back();
    const Value* text = message.dict.Find(heap_.MakeString(field));
    if (text == nullptr) Refuse("continue_final_message: the final message has no \"", field, "\"");
    const Value original = *text;
    bool is_read = false;
    for (const std::string& name : CopiesOf(field, original)) {
      is_read = is_read || source.find(name) != std::string::npos;
      message.Set(heap_.MakeString(name), Marked(original));
    }
    if (!is_read) Refuse("continue_final_message: the template does not read \"", field, "\"");
  }

  // The field itself; for thoughts, all names that have the same ones.
  std::vector<std::string> CopiesOf(const std::string& field, const Value& text) {
    std::vector<std::string> names;
    for (const std::string_view name : kReasoningFields) {
      const Value* copy = messages_.back().dict.Find(heap_.MakeString(std::string(name)));
      if (copy != nullptr && Equals(*copy, text)) names.emplace_back(name);
    }
    const bool is_reasoning = std::find(names.begin(), names.end(), field) != names.end();
    return is_reasoning ? names : std::vector<std::string>{field};
  }

  // The text, or the last text of a list of parts, with the mark.
  Value Marked(const Value& text) {
    if (text.IsString()) {
      final_text_.assign(1, text.text());
      return heap_.MakeString(Message(text.text(), kMark));
    }
    if (text.sequence() == nullptr) Refuse("continue_final_message: expected a text, found a ", TypeName(text));
    std::vector<Value> parts = text.sequence()->items;
    const Value key = heap_.MakeString("text");
    for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
      const Value* inner = part->dict() == nullptr ? nullptr : part->dict()->Find(key);
      if (inner == nullptr) continue;
      if (!inner->IsString()) Refuse("continue_final_message: expected a text, found a ", TypeName(*inner));
      DictBuilder copy;
      for (const auto& [name, value] : part->dict()->entries) copy.Set(name, value);
      copy.Set(key, Marked(*inner));
      *part = heap_.MakeDict(std::move(copy));
      return heap_.MakeSequence(std::move(parts));
    }
    Refuse("continue_final_message: the final message has no text");
  }

  void Remove(const Value& key) {
    DictBuilder rest;
    for (const auto& [name, value] : all_.dict.entries) {
      if (!Equals(name, key)) rest.Set(name, value);
    }
    all_ = std::move(rest);
  }

  Heap& heap_;
  DictBuilder all_{};
  std::vector<DictBuilder> messages_{};
  std::vector<std::string> final_text_{};  // one, if it is to be gone on with
};

}  // namespace

struct ChatTemplate::State {
  Tokens tokens{};
  std::optional<jinja::Template> plain{};
  std::optional<jinja::Template> for_tools{};  // none: the same

  std::string Render(Heap& heap, const Value& given) const {
    std::optional<Conversation> conversation;
    const jinja::Template* chosen = &*plain;
    const Value variables = jinja::WithPublicErrors("conversation", [&] {
      conversation.emplace(heap, given);
      if (for_tools && conversation->HasTools()) chosen = &*for_tools;
      for (const auto& [name, token] : tokens) conversation->SetDefault(name, heap.MakeString(token));
      return conversation->Variables(chosen->source());
    });
    std::string text = chosen->Render(heap, *variables.dict());
    return jinja::WithPublicErrors("conversation", [&] { return conversation->UpToMark(std::move(text)); });
  }
};

ChatTemplate ChatTemplate::Load(const std::string& folder) {
  const json config = ParseConfig(ReadPackageText(folder, kConfigFile).value_or("{}"));
  const auto state = std::make_shared<State>();
  state->tokens = NamedTokens(config);
  std::optional<std::string> plain = ReadPackageText(folder, kTemplateFile), for_tools;
  if (plain) {
    for_tools = ReadPackageText(folder, kToolTemplateFile);
  } else {
    plain = TemplateOf(config, "default");
    for_tools = TemplateOf(config, "tool_use");
  }
  if (!plain) throw InvalidArgument(Message(folder, ": expected a chat template, found none; encode plain text"));
  state->plain.emplace(std::move(*plain), kTemplateFile);
  if (for_tools) state->for_tools.emplace(std::move(*for_tools), kToolTemplateFile);
  return ChatTemplate(state);
}

std::string ChatTemplate::Format(std::span<const ChatMessage> messages) const {
  if (messages.empty()) throw InvalidArgument("messages: expected at least one, found none");
  Heap heap;
  const Value given = jinja::WithPublicErrors("messages", [&] {
    std::vector<Value> turns;
    const Value role = heap.MakeString("role"), content = heap.MakeString("content");
    for (const ChatMessage& message : messages) {
      DictBuilder turn;
      turn.Set(role, TextOf(heap, message.role, "role"));
      turn.Set(content, TextOf(heap, message.content, "content"));
      turns.push_back(heap.MakeDict(std::move(turn)));
    }
    DictBuilder all;
    all.Set(heap.MakeString("messages"), heap.MakeSequence(std::move(turns)));
    all.Set(heap.MakeString("add_generation_prompt"), true);
    return heap.MakeDict(std::move(all));
  });
  return state_->Render(heap, given);
}

std::string ChatTemplate::Render(std::string_view conversation) const {
  Heap heap;
  const Value given =
      jinja::WithPublicErrors("conversation", [&] { return jinja::ParseInput(heap, conversation); });
  return state_->Render(heap, given);
}

}  // namespace dgrt
