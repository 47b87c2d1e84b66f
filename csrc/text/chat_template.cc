// Implementation of chat_template.h. `dgrt/messages.py` renders any template and says the same for this one.
#include "text/chat_template.h"

#include <optional>

#include "common/json_reader.h"
#include "text/package_text.h"

namespace dgrt {
namespace {

using nlohmann::json;

constexpr char kTemplateFile[] = "chat_template.jinja";
constexpr char kConfigFile[] = "tokenizer_config.json";

// What Format does, in Jinja. Exporters copy the file unchanged, so that equality is all that has to be recognised.
constexpr std::string_view kTurnTemplate = R"jinja({{- bos_token -}}
{%- for message in messages -%}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
{{- '<|turn>' + role + '\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}{{- part['text'] -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<turn|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|turn>model\n' -}}{%- endif -%}
)jinja";

// The text of a token of the config, which is a string or an object; "" if there is none.
std::string NamedToken(const json& config, const char* name) {
  const auto found = config.find(name);
  if (found == config.end()) return "";
  const json& value = found->is_object() && found->contains("content") ? found->at("content") : *found;
  return value.is_string() ? value.get<std::string>() : "";
}

}  // namespace

ChatTemplate ChatTemplate::Load(const std::string& folder) {
  const std::string config_text = ReadPackageText(folder, kConfigFile).value_or("{}");
  const json config = ParseJson(config_text, kConfigFile);
  JsonObject(config, Message(kConfigFile, ": "));  // checks that it is an object
  std::optional<std::string> source = ReadPackageText(folder, kTemplateFile);
  if (!source && config.contains("chat_template") && config.at("chat_template").is_string()) {
    source = config.at("chat_template").get<std::string>();
  }
  if (!source) throw InvalidArgument(Message(folder, ": expected a chat template, found none; encode plain text"));
  if (*source != kTurnTemplate) {
    throw Unsupported(Message(folder, ": chat template: expected the <|turn> form of dgrt's bundled model (",
                              kTurnTemplate.size(), " bytes), found another (", source->size(),
                              " bytes); render it outside and encode the text"));
  }
  return ChatTemplate(NamedToken(config, "bos_token"));
}

std::string ChatTemplate::Format(std::span<const ChatMessage> messages) const {
  if (messages.empty()) throw InvalidArgument("messages: expected at least one, found none");
  std::string text = bos_token_;
  for (const ChatMessage& message : messages) {
    text.append("<|turn>").append(message.role == "assistant" ? "model" : message.role).append("\n");
    text.append(message.content).append("<turn|>\n");
  }
  return text.append("<|turn>model\n");
}

}  // namespace dgrt
