// Implementation of methods.h.
#include "text/jinja/builtins/methods.h"

#include <algorithm>
#include <span>
#include <string>

#include "common/utf8.h"
#include "text/jinja/builtins/arguments.h"
#include "text/jinja/values/printing.h"
#include "text/jinja/values/text_operations.h"
#include "text/jinja/values/unicode.h"

namespace dgrt::jinja {
namespace {

using Apply = Value (*)(Heap&, const Value&, const Arguments&);
struct Method {
  std::string_view name;
  Apply apply;
};

class BoundMethod : public Callable {
 public:
  BoundMethod(Value subject, const Method& method) : subject_(std::move(subject)), method_(method) {}
  std::string_view type_name() const override { return "method"; }
  Value Call(Heap& heap, const Arguments& arguments) override {
    if (subject_.IsString()) heap.SpendOn(subject_);
    return method_.apply(heap, subject_, arguments);
  }

 private:
  Value subject_;
  const Method& method_;
};

Value TextList(Heap& heap, const std::vector<std::string_view>& parts, SequenceKind kind = SequenceKind::kList) {
  std::vector<Value> items;
  items.reserve(parts.size());
  for (const std::string_view part : parts) items.push_back(heap.MakeString(std::string(part)));
  return heap.MakeSequence(std::move(items), kind);
}

// ---- texts ----

template <Side kSide>
Value StripText(Heap& heap, const Value& subject, const Arguments& arguments) {
  const auto given = arguments.Bind("strip", {"chars"});
  return heap.MakeString(std::string(Strip(subject.text(), kSide, OptionalText(given[0], "chars"))));
}

template <std::vector<std::string_view> (*kSplit)(std::string_view, const std::string*, int64_t)>
Value SplitText(Heap& heap, const Value& subject, const Arguments& arguments) {
  const auto given = arguments.Bind("split", {"sep", "maxsplit"});
  const std::string* separator = OptionalText(given[0], "sep");
  if (separator != nullptr && separator->empty()) Refuse("split: the separator is empty");
  return TextList(heap, kSplit(subject.text(), separator, IntegerArgument(given[1], "maxsplit", -1)));
}

Value SplitTextLines(Heap& heap, const Value& subject, const Arguments& arguments) {
  const auto given = arguments.Bind("splitlines", {"keepends"});
  return TextList(heap, SplitLines(subject.text(), FlagArgument(given[0], false)));
}

template <bool kAtStart>
Value TouchesText(Heap&, const Value& subject, const Arguments& arguments) {
  constexpr std::string_view kName = kAtStart ? "startswith" : "endswith";
  if (arguments.positional.size() > 1) NotSupported(kName, " with positions is not supported");
  const Value part = *arguments.Bind(kName, {"prefix"}, 1)[0];
  const auto is_there = [&](const Value& one) {
    const std::string& text = TextArgument(&one, "prefix");
    return kAtStart ? subject.text().starts_with(text) : subject.text().ends_with(text);
  };
  const Sequence* several = part.sequence();
  if (several == nullptr || several->kind != SequenceKind::kTuple) return is_there(part);
  return std::any_of(several->items.begin(), several->items.end(), is_there);
}

Value ReplaceText(Heap& heap, const Value& subject, const Arguments& arguments) {
  const auto given = arguments.Bind("replace", {"old", "new", "count"}, 2);
  return heap.MakeString(Replace(subject.text(), TextArgument(given[0], "old"), TextArgument(given[1], "new"),
                                 IntegerArgument(given[2], "count", -1)));
}

template <std::string (*kChange)(std::string_view)>
Value ChangeText(Heap& heap, const Value& subject, const Arguments& arguments) {
  arguments.Bind("the method", {});
  return heap.MakeString(kChange(subject.text()));
}

// str.title: a letter is a capital where no letter stands in front of it.
std::string TitleOf(std::string_view text) {
  if (!IsAscii(text)) NotSupported("the method \"title\" of texts beyond ASCII is not supported");
  std::string title;
  bool is_inside = false;
  for (const char c : text) {
    const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    title += is_inside ? ToLower({&c, 1}) : ToUpper({&c, 1});
    is_inside = is_letter;
  }
  return title;
}

Value JoinTexts(Heap& heap, const Value& subject, const Arguments& arguments) {
  const auto given = arguments.Bind("join", {"iterable"}, 1);
  std::string text;
  bool is_first = true;
  for (const Value& item : Elements(heap, *given[0])) {
    if (!item.IsString()) Refuse("join: expected texts, found a ", TypeName(item));
    if (!is_first) text += subject.text();
    is_first = false;
    text += item.text();
    heap.Spend((subject.text().size() + item.text().size()) / 64);
  }
  return heap.MakeString(std::move(text));
}

enum class Absent { kMinusOne, kError };
template <bool kFromRight, Absent kAbsent>
Value FindText(Heap&, const Value& subject, const Arguments& arguments) {
  if (arguments.positional.size() > 1) NotSupported("finding a text between positions is not supported");
  const std::string& part = TextArgument(arguments.Bind("find", {"sub"}, 1)[0], "sub");
  const std::string& text = subject.text();
  const size_t at = kFromRight ? text.rfind(part) : text.find(part);
  if (at != std::string::npos) return static_cast<int64_t>(CountCharacters(std::string_view(text).substr(0, at)));
  if (kAbsent == Absent::kError) Refuse("index: the text was not found");
  return int64_t{-1};
}

Value CountText(Heap&, const Value& subject, const Arguments& arguments) {
  if (arguments.positional.size() > 1) NotSupported("counting between positions is not supported");
  const std::string& part = TextArgument(arguments.Bind("count", {"sub"}, 1)[0], "sub");
  const std::string& text = subject.text();
  if (part.empty()) return static_cast<int64_t>(CountCharacters(text)) + 1;
  int64_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsAlpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool IsAlnum(char c) { return IsDigit(c) || IsAlpha(c); }

template <bool (*kIs)(char)>
Value AreAll(Heap&, const Value& subject, const Arguments& arguments) {
  arguments.Bind("the method", {});
  const std::string& text = subject.text();
  if (!IsAscii(text)) NotSupported("the kind of characters beyond ASCII is not supported");
  return !text.empty() && std::all_of(text.begin(), text.end(), kIs);
}

Value AreSpaces(Heap&, const Value& subject, const Arguments& arguments) {
  arguments.Bind("isspace", {});
  return !subject.text().empty() && Strip(subject.text(), Side::kLeft).empty();
}

template <bool kUpper>
Value HaveCase(Heap&, const Value& subject, const Arguments& arguments) {
  arguments.Bind("the method", {});
  const std::string& text = subject.text();
  if (!IsAscii(text)) NotSupported("the case of characters beyond ASCII is not supported");
  return std::any_of(text.begin(), text.end(), IsAlpha) && text == (kUpper ? ToUpper(text) : ToLower(text));
}

template <bool kPrefix>
Value RemoveAffix(Heap& heap, const Value& subject, const Arguments& arguments) {
  const std::string& part = TextArgument(arguments.Bind("the method", {"affix"}, 1)[0], "affix");
  std::string text = subject.text();
  if (kPrefix && text.starts_with(part)) text.erase(0, part.size());
  if (!kPrefix && text.ends_with(part)) text.resize(text.size() - part.size());
  return heap.MakeString(std::move(text));
}

template <bool kFromRight>
Value PartText(Heap& heap, const Value& subject, const Arguments& arguments) {
  const std::string& separator = TextArgument(arguments.Bind("partition", {"sep"}, 1)[0], "sep");
  if (separator.empty()) Refuse("partition: the separator is empty");
  const std::string_view text = subject.text();
  const size_t at = kFromRight ? text.rfind(separator) : text.find(separator);
  if (at == std::string_view::npos) {
    return TextList(heap, kFromRight ? std::vector<std::string_view>{"", "", text}
                                     : std::vector<std::string_view>{text, "", ""}, SequenceKind::kTuple);
  }
  return TextList(heap, {text.substr(0, at), separator, text.substr(at + separator.size())}, SequenceKind::kTuple);
}

Value FormatText(Heap& heap, const Value& subject, const Arguments& arguments) {
  for (const Value& value : arguments.positional) heap.SpendOn(value);
  for (const auto& [name, value] : arguments.named) heap.SpendOn(value);
  return heap.MakeString(FormatBraces(subject.text(), arguments));
}

// ---- dicts and lists ----

Value GetItem(Heap&, const Value& subject, const Arguments& arguments) {
  const auto given = arguments.Bind("get", {"key", "default"}, 1);
  const Value* found = subject.dict()->Find(*given[0]);
  if (found != nullptr) return *found;
  return given[1] == nullptr ? Value(None{}) : *given[1];
}

template <SequenceKind kKind>
Value ViewDict(Heap& heap, const Value& subject, const Arguments& arguments) {
  arguments.Bind("the method", {});
  std::vector<Value> items;
  for (const auto& [key, value] : subject.dict()->entries) {
    items.push_back(kKind == SequenceKind::kItems ? heap.MakePair(key, value)
                                                  : kKind == SequenceKind::kKeys ? key : value);
  }
  return heap.MakeSequence(std::move(items), kKind);
}

Value Same(Heap&, const Value& subject, const Arguments& arguments) {  // a copy of what cannot change
  arguments.Bind("copy", {});
  return subject;
}

Value IndexOf(Heap& heap, const Value& subject, const Arguments& arguments) {
  if (arguments.positional.size() > 1) NotSupported("finding an element between positions is not supported");
  const Value& item = *arguments.Bind("index", {"value"}, 1)[0];
  heap.SpendOn(subject);
  const auto& items = subject.sequence()->items;
  const auto found = std::find_if(items.begin(), items.end(), [&](const Value& other) { return Equals(item, other); });
  if (found == items.end()) Refuse("index: the value is not in the ", TypeName(subject));
  return static_cast<int64_t>(found - items.begin());
}

Value CountItem(Heap& heap, const Value& subject, const Arguments& arguments) {
  const Value& item = *arguments.Bind("count", {"value"}, 1)[0];
  heap.SpendOn(subject);
  const auto& items = subject.sequence()->items;
  return static_cast<int64_t>(
      std::count_if(items.begin(), items.end(), [&](const Value& other) { return Equals(item, other); }));
}

constexpr Method kTextMethods[] = {
    {"strip", StripText<Side::kBoth>}, {"lstrip", StripText<Side::kLeft>}, {"rstrip", StripText<Side::kRight>},
    {"split", SplitText<Split>}, {"rsplit", SplitText<SplitFromRight>}, {"splitlines", SplitTextLines},
    {"startswith", TouchesText<true>}, {"endswith", TouchesText<false>}, {"replace", ReplaceText},
    {"upper", ChangeText<ToUpper>}, {"lower", ChangeText<ToLower>}, {"capitalize", ChangeText<Capitalize>},
    {"title", ChangeText<TitleOf>}, {"join", JoinTexts}, {"format", FormatText}, {"count", CountText},
    {"find", FindText<false, Absent::kMinusOne>}, {"rfind", FindText<true, Absent::kMinusOne>},
    {"index", FindText<false, Absent::kError>}, {"rindex", FindText<true, Absent::kError>},
    {"isdigit", AreAll<IsDigit>}, {"isdecimal", AreAll<IsDigit>}, {"isnumeric", AreAll<IsDigit>},
    {"isalpha", AreAll<IsAlpha>}, {"isalnum", AreAll<IsAlnum>}, {"isspace", AreSpaces},
    {"isupper", HaveCase<true>}, {"islower", HaveCase<false>}, {"removeprefix", RemoveAffix<true>},
    {"removesuffix", RemoveAffix<false>}, {"partition", PartText<false>}, {"rpartition", PartText<true>},
};
constexpr Method kDictMethods[] = {
    {"get", GetItem}, {"items", ViewDict<SequenceKind::kItems>}, {"keys", ViewDict<SequenceKind::kKeys>},
    {"values", ViewDict<SequenceKind::kValues>}, {"copy", Same},
};
constexpr Method kListMethods[] = {{"index", IndexOf}, {"count", CountItem}, {"copy", Same}};
constexpr Method kTupleMethods[] = {{"index", IndexOf}, {"count", CountItem}};

// What the sandbox forbids, since it changes a value.
constexpr std::string_view kForbiddenOfDict[] = {"clear", "pop", "popitem", "setdefault", "update"};
constexpr std::string_view kForbiddenOfList[] = {"append", "clear",  "extend",  "insert",
                                                 "pop",    "remove", "reverse", "sort"};
// What Python has beyond that.
constexpr std::string_view kLackedOfText[] = {"casefold", "center", "encode", "expandtabs", "format_map", "isascii",
                                              "isidentifier", "isprintable", "istitle", "ljust", "maketrans", "rjust",
                                              "swapcase", "translate", "zfill"};
constexpr std::string_view kLackedOfDict[] = {"fromkeys"};
constexpr std::string_view kLackedOfRange[] = {"count", "index", "start", "step", "stop"};
constexpr std::string_view kLackedOfViews[] = {"isdisjoint", "mapping"};
constexpr std::string_view kLackedOfNumbers[] = {"as_integer_ratio", "bit_count", "bit_length", "conjugate",
                                                 "denominator", "from_bytes", "fromhex", "hex", "imag", "is_integer",
                                                 "numerator", "real", "to_bytes"};
constexpr std::string_view kLackedOfIterators[] = {"close", "gi_code", "gi_frame", "gi_running", "gi_yieldfrom", "send",
                                                   "throw"};

bool IsOneOf(std::string_view name, std::span<const std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

struct Methods {
  std::span<const Method> known{};
  std::span<const std::string_view> forbidden{};
  std::span<const std::string_view> lacked{};
};

Methods MethodsOf(const Value& value) {
  if (value.IsString()) return {kTextMethods, {}, kLackedOfText};
  if (value.dict()) return {kDictMethods, kForbiddenOfDict, kLackedOfDict};
  if (AsNumber(value)) return {{}, {}, kLackedOfNumbers};
  if (value.AsObject<Iterator>()) return {{}, {}, kLackedOfIterators};
  if (value.sequence() == nullptr) return {};
  switch (value.sequence()->kind) {
    case SequenceKind::kList: return {kListMethods, kForbiddenOfList, {}};
    case SequenceKind::kTuple: return {kTupleMethods, {}, {}};
    case SequenceKind::kRange: return {{}, {}, kLackedOfRange};
    default: return {{}, {}, kLackedOfViews};
  }
}

// One "{...}" of a format, without its braces.
Value FieldValue(std::string_view field, const Arguments& arguments, size_t* next) {
  if (field.empty()) {
    if (*next >= arguments.positional.size()) Refuse("format: more places than values");
    return arguments.positional[(*next)++];
  }
  if (IsDigit(field[0])) {
    const auto index = ParseInteger(field, 10);
    if (!index) NotSupported("the format \"{", field, "}\" is not supported");
    if (*index >= static_cast<int64_t>(arguments.positional.size())) Refuse("format: no value ", *index);
    return arguments.positional[static_cast<size_t>(*index)];
  }
  for (const auto& [name, value] : arguments.named) {
    if (name == field) return value;
  }
  if (field.find_first_of("!:.[{") != std::string_view::npos) {
    NotSupported("the format \"{", field, "}\" is not supported");
  }
  Refuse("format: no value \"", field, "\"");
}

}  // namespace

std::string FormatBraces(std::string_view format, const Arguments& arguments) {
  std::string text;
  size_t next = 0;
  while (!format.empty()) {
    const size_t at = std::min(format.find_first_of("{}"), format.size());
    text.append(format.substr(0, at));
    format.remove_prefix(at);
    if (format.empty()) break;
    if (format.starts_with("{{") || format.starts_with("}}")) {
      text.push_back(format[0]);
      format.remove_prefix(2);
      continue;
    }
    const size_t end = format.find('}');
    if (format[0] == '}' || end == std::string_view::npos) Refuse("format: a single brace");
    text += ToText(FieldValue(format.substr(1, end - 1), arguments, &next));
    format.remove_prefix(end + 1);
  }
  return text;
}

std::optional<Value> FindMethod(Heap& heap, const Value& subject, std::string_view name) {
  const Methods methods = MethodsOf(subject);
  for (const Method& method : methods.known) {
    if (method.name != name) continue;
    if (subject.IsMarkup()) NotSupported("methods of a text that is marked as safe are not supported");
    return Value(static_cast<Object*>(heap.MakeObject<BoundMethod>(subject, method)));
  }
  if (IsOneOf(name, methods.forbidden)) {
    return heap.MakeUndefined(
        Message("\"", name, "\" of a ", TypeName(subject), " is forbidden: values cannot change"));
  }
  if (IsOneOf(name, methods.lacked)) NotSupported("\"", name, "\" of a ", TypeName(subject), " is not supported");
  return std::nullopt;
}

}  // namespace dgrt::jinja
