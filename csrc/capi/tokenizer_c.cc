// The exported functions for text: tokenizer, streaming decoder, chat turns. They need a package folder and no runtime.
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "capi/handles.h"
#include "capi/status.h"
#include "text/chat_template.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

using dgrt::InvalidArgument;
using dgrt::Message;
using dgrt::SpecialTokens;
using dgrt::capi::Guarded;
using dgrt::capi::kMostElements;
using dgrt::capi::RequireCount;
using dgrt::capi::RequireNotNull;
using dgrt::capi::TokenSpan;
using dgrt::capi::WriteSpan;

struct dgrt_tokenizer {
  std::shared_ptr<const dgrt::Tokenizer> tokenizer;
  dgrt::LiveHandle live{};
};

struct dgrt_detokenizer {
  std::shared_ptr<const dgrt::Tokenizer> tokenizer;  // first: dropped last
  dgrt::Detokenizer detokenizer;
  std::string piece{};  // what the last call returned
  dgrt::ExclusiveUse use{};
  dgrt::LiveHandle live{};
};

struct dgrt_chat_template {
  dgrt::ChatTemplate chat_template;
  dgrt::LiveHandle live{};
};

namespace {

static_assert(DGRT_SPECIAL_TOKENS_SKIP == static_cast<int>(SpecialTokens::kSkip));
static_assert(DGRT_SPECIAL_TOKENS_KEEP == static_cast<int>(SpecialTokens::kKeep));

// Results of functions on handles that any thread may use: one of a kind per thread, like the last error.
thread_local std::vector<int32_t> last_tokens;
thread_local std::string last_text;

std::string_view Text(const char* text, size_t size, const char* name) {
  RequireCount(size, kMostElements, name, "bytes");
  if (size > 0) RequireNotNull(text, name);
  return {text, size};
}

SpecialTokens ReadSpecialTokens(int32_t given) {
  if (given != DGRT_SPECIAL_TOKENS_SKIP && given != DGRT_SPECIAL_TOKENS_KEEP) {
    throw InvalidArgument(Message("special_tokens: expected DGRT_SPECIAL_TOKENS_..., found ", given));
  }
  return static_cast<SpecialTokens>(given);
}

void WriteText(const std::string& from, const char** text, size_t* size) {
  *text = from.c_str();
  *size = from.size();
}

}  // namespace

extern "C" {

dgrt_status dgrt_tokenizer_create(const char* path, dgrt_tokenizer** tokenizer) {
  return Guarded([&] {
    RequireNotNull(path, "path");
    RequireNotNull(tokenizer, "tokenizer");
    *tokenizer = new dgrt_tokenizer{dgrt::Tokenizer::Load(path)};
  });
}

void dgrt_tokenizer_destroy(dgrt_tokenizer* tokenizer) { delete tokenizer; }

dgrt_status dgrt_tokenizer_encode(const dgrt_tokenizer* tokenizer, const char* text, size_t text_size,
                                  const int32_t** tokens, size_t* num_tokens) {
  return Guarded([&] {
    RequireNotNull(tokenizer, "tokenizer");
    RequireNotNull(tokens, "tokens");
    RequireNotNull(num_tokens, "num_tokens");
    last_tokens = tokenizer->tokenizer->Encode(Text(text, text_size, "text"));
    WriteSpan(std::span<const int32_t>(last_tokens), tokens, num_tokens);
  });
}

dgrt_status dgrt_tokenizer_decode(const dgrt_tokenizer* tokenizer, const int32_t* tokens, size_t num_tokens,
                                  int32_t special_tokens, const char** text, size_t* text_size) {
  return Guarded([&] {
    RequireNotNull(tokenizer, "tokenizer");
    RequireNotNull(text, "text");
    RequireNotNull(text_size, "text_size");
    const auto ids = TokenSpan(tokens, num_tokens, "tokens");
    last_text = tokenizer->tokenizer->Decode(ids, ReadSpecialTokens(special_tokens));
    WriteText(last_text, text, text_size);
  });
}

dgrt_status dgrt_detokenizer_create(const dgrt_tokenizer* tokenizer, int32_t special_tokens,
                                    dgrt_detokenizer** detokenizer) {
  return Guarded([&] {
    RequireNotNull(tokenizer, "tokenizer");
    RequireNotNull(detokenizer, "detokenizer");
    *detokenizer = new dgrt_detokenizer{
        tokenizer->tokenizer, dgrt::Detokenizer(*tokenizer->tokenizer, ReadSpecialTokens(special_tokens))};
  });
}

void dgrt_detokenizer_destroy(dgrt_detokenizer* detokenizer) { delete detokenizer; }

dgrt_status dgrt_detokenizer_push(dgrt_detokenizer* detokenizer, const int32_t* tokens, size_t num_tokens,
                                  const char** text, size_t* text_size) {
  return Guarded([&] {
    RequireNotNull(detokenizer, "detokenizer");
    RequireNotNull(text, "text");
    RequireNotNull(text_size, "text_size");
    const auto use = detokenizer->use.Enter();
    detokenizer->piece = detokenizer->detokenizer.Push(TokenSpan(tokens, num_tokens, "tokens"));
    WriteText(detokenizer->piece, text, text_size);
  });
}

dgrt_status dgrt_detokenizer_finish(dgrt_detokenizer* detokenizer, const char** text, size_t* text_size) {
  return Guarded([&] {
    RequireNotNull(detokenizer, "detokenizer");
    RequireNotNull(text, "text");
    RequireNotNull(text_size, "text_size");
    const auto use = detokenizer->use.Enter();
    detokenizer->piece = detokenizer->detokenizer.Finish();
    WriteText(detokenizer->piece, text, text_size);
  });
}

dgrt_status dgrt_chat_template_create(const char* path, dgrt_chat_template** chat_template) {
  return Guarded([&] {
    RequireNotNull(path, "path");
    RequireNotNull(chat_template, "chat_template");
    *chat_template = new dgrt_chat_template{dgrt::ChatTemplate::Load(path)};
  });
}

void dgrt_chat_template_destroy(dgrt_chat_template* chat_template) { delete chat_template; }

dgrt_status dgrt_chat_template_format(const dgrt_chat_template* chat_template, const char* const* roles,
                                      const char* const* contents, size_t num_messages, const char** text,
                                      size_t* text_size) {
  return Guarded([&] {
    RequireNotNull(chat_template, "chat_template");
    RequireNotNull(text, "text");
    RequireNotNull(text_size, "text_size");
    RequireCount(num_messages, kMostElements, "num_messages", "messages");
    if (num_messages > 0) RequireNotNull(roles, "roles");
    if (num_messages > 0) RequireNotNull(contents, "contents");
    std::vector<dgrt::ChatMessage> messages;
    for (size_t i = 0; i < num_messages; ++i) {
      RequireNotNull(roles[i], "roles[i]");
      RequireNotNull(contents[i], "contents[i]");
      messages.push_back({roles[i], contents[i]});
    }
    last_text = chat_template->chat_template.Format(messages);
    WriteText(last_text, text, text_size);
  });
}

dgrt_status dgrt_chat_template_render(const dgrt_chat_template* chat_template, const char* conversation,
                                      size_t conversation_size, const char** text, size_t* text_size) {
  return Guarded([&] {
    RequireNotNull(chat_template, "chat_template");
    RequireNotNull(text, "text");
    RequireNotNull(text_size, "text_size");
    last_text = chat_template->chat_template.Render(Text(conversation, conversation_size, "conversation"));
    WriteText(last_text, text, text_size);
  });
}

}  // extern "C"
