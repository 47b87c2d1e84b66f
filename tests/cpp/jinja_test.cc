// The renderer of chat templates, part by part, and its bounds. That its texts are those of Jinja is shown by
// tests/parity/test_chat_templates.py; here are the parts, and damaged templates under the sanitizers.
#include <cstdint>
#include <string>
#include <vector>

#include "common/check.h"
#include "test.h"
#include "text/jinja/limits.h"
#include "text/jinja/syntax/lexer.h"
#include "text/jinja/template.h"
#include "text/jinja/values/heap.h"
#include "text/jinja/values/json_input.h"
#include "text/jinja/values/printing.h"
#include "text/jinja/values/text_operations.h"
#include "text/jinja/values/unicode.h"

namespace dgrt::jinja {
namespace {

std::string Shown(const std::string& source) {
  std::string text;
  for (const Token& token : Tokenize(source)) {
    constexpr const char* kKinds[] = {"text", "{{", "}}", "{%", "%}", "name", "string", "int", "float", "op", "end"};
    text += Message(kKinds[static_cast<int>(token.kind)], "(", token.text, ")", token.line, " ");
  }
  return text;
}

std::string Render(const std::string& source, const std::string& json = "{}") { return RenderTemplate(source, json); }

TEST(TokensKeepTheirLines) {
  CHECK_EQ(Shown("a\n{{ x.y\n+ 'b\\n' }}\nc"),
           "text(a\n)1 {{()2 name(x)2 op(.)2 name(y)2 op(+)3 string(b\n)3 }}()3 text(\nc)3 end()4 ");
  CHECK_EQ(Shown("{% if 1_0 < .5 %}"), "{%()1 name(if)1 int(10)1 op(<)1 op(.)1 int(5)1 %}()1 end()1 ");
  CHECK_EQ(Shown("{{ 1.5e3 a.0.1 }}"), "{{()1 float(1.5e3)1 name(a)1 op(.)1 int(0)1 op(.)1 int(1)1 }}()1 end()1 ");
}

TEST(WhiteSpaceAroundTagsFollowsTheirSigns) {
  CHECK_EQ(Shown("a \n  {% x %}\nb"), "text(a \n)1 {%()2 name(x)2 %}()2 text(b)3 end()3 ");
  CHECK_EQ(Shown("a \n  {%+ x +%}\nb"), "text(a \n  )1 {%()2 name(x)2 %}()2 text(\nb)2 end()3 ");
  CHECK_EQ(Shown("a \n  {{- x -}}\n b"), "text(a)1 {{()2 name(x)2 }}()2 text(b)3 end()3 ");
  CHECK_EQ(Shown(" {# c\n #}\n {%- raw %} {{ {% endraw %}\nd\r\n"), "text( {{ )3 text(d)4 end()4 ");
}

TEST(WhatIsNoTokenIsRefusedWithItsLine) {
  const auto line_of = [](const std::string& source) {
    try {
      Tokenize(source);
    } catch (const SyntaxFailure& failure) {
      return failure.line();
    }
    return 0;
  };
  CHECK_EQ(line_of("\n{{ $ }}"), 2);
  CHECK_EQ(line_of("\n\n{{ 'a }}"), 3);
  CHECK_EQ(line_of("\n{{ (] }}"), 2);
  CHECK_EQ(line_of("a\n{{ x"), 2);
  CHECK_EQ(line_of("{# \n"), 1);
}

TEST(FloatsPrintWithTheShortestDigits) {
  const std::pair<double, const char*> cases[] = {{1, "1.0"},        {0.1 + 0.2, "0.30000000000000004"},
                                                  {1e16, "1e+16"},   {1e15, "1000000000000000.0"},
                                                  {1e-5, "1e-05"},   {0.0001, "0.0001"},
                                                  {-0.0, "-0.0"},    {5e-324, "5e-324"},
                                                  {1e300, "1e+300"}, {123456.789, "123456.789"}};
  for (const auto& [value, text] : cases) CHECK_EQ(FormatFloat(value), text);
}

TEST(ValuesAreEqualAndOrderedAsInPython) {
  Heap heap;
  const auto list = [&](std::vector<Value> items) { return heap.MakeSequence(std::move(items)); };
  CHECK(Equals(int64_t{1}, 1.0));
  CHECK(Equals(true, int64_t{1}));
  CHECK(!Equals(heap.MakeString("1"), int64_t{1}));
  CHECK(!Equals(int64_t{9007199254740993}, 9007199254740992.0));
  CHECK(Equals(list({int64_t{1}, true}), list({1.0, int64_t{1}})));
  CHECK(!Equals(list({}), heap.MakeSequence({}, SequenceKind::kTuple)));
  CHECK(Compare(list({int64_t{1}, int64_t{2}}), list({int64_t{1}, int64_t{3}}), "<") < 0);
  CHECK_THROWS(Failure, "not defined between int and str", Compare(int64_t{1}, heap.MakeString("a"), "<"));
  CHECK_EQ(HashValue()(int64_t{2}), HashValue()(2.0));
}

TEST(DictsKeepTheFirstPlaceAndTheLastValue) {
  Heap heap;
  CHECK_EQ(Repr(ParseInput(heap, R"({"b": 1, "a": [true, null, 1.5], "b": "it's"})")),
           "{'b': \"it's\", 'a': [True, None, 1.5]}");
  CHECK_THROWS(Failure, "error at byte", ParseInput(heap, "{\"a\": }"));
  CHECK_THROWS(Failure, "levels deep", ParseInput(heap, std::string(kMaxValueDepth + 1, '[')));
}

TEST(TextsAreCountedWhileTheyLive) {
  Heap heap;
  const size_t size = size_t{32} << 20;
  for (int i = 0; i < 20; ++i) heap.MakeString(std::string(size, 'a'));  // dropped at once
  std::vector<Value> kept;
  CHECK_THROWS(Failure, "bytes", while (true) kept.push_back(heap.MakeString(std::string(size, 'a'))));
  CHECK_EQ(kept.size(), kMaxLiveBytes / size);
}

TEST(TextsAreSplitAndStrippedByCharacters) {
  const std::string comma = ",", letters = "é,";
  CHECK_EQ(Split(" a\u2003b  c ", nullptr, 1)[1], "b  c ");
  CHECK_EQ(Split("", nullptr, -1).size(), 0u);
  CHECK_EQ(Split("", &comma, -1).size(), 1u);
  CHECK_EQ(SplitFromRight("a,b,c", &comma, 1)[0], "a,b");
  CHECK_EQ(Strip("é,aé", Side::kBoth, &letters), "a");
  CHECK_EQ(SplitLines("a\r\nb\x0b\n").size(), 3u);
  CHECK_EQ(Replace("aé", "", "-", -1), "-a-é-");
  CHECK_EQ(*ParseInteger(" -0x_1f", 0), -31);
  CHECK(!ParseInteger("1__0", 10).has_value());
  CHECK_EQ(ToUpper("straße"), "STRASSE");
}

TEST(ErrorsHaveTheClassOfTheirCause) {
  CHECK_THROWS(ContractMismatch, "template line 2: expected an expression, found \"}}\"", Render("\n{{ }}"));
  CHECK_THROWS(Unsupported, "template line 3: filter \"pprint\" is not supported", Render("\n\n{{ x | pprint }}"));
  CHECK_THROWS(InvalidArgument, "template line 2: 'x' is undefined", Render("a\n{{ x.y }}"));
  CHECK_THROWS(InvalidArgument, "line 3: the template refuses the conversation: bad",
               Render("{% macro m() %}\n\n{{ raise_exception('bad') }}{% endmacro %}\n{{ m() }}"));
  CHECK_THROWS(InvalidArgument, "line 3: \"+\" is not defined",
               Render("{% macro m() %}\n{% endmacro %}\n{{ m() + 1 }}"));
  CHECK_THROWS(ContractMismatch, "expected UTF-8", Render("\xFF"));
  CHECK_THROWS(InvalidArgument, "variables: expected a JSON object", Render("", "[]"));
}

TEST(WorkAndSizeAreBounded) {
  CHECK_THROWS(Unsupported, "steps",
               Render("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"));
  CHECK_THROWS(Unsupported, "levels", Render("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"));
  CHECK_THROWS(Unsupported, "too long", Render("{{ 'ab' * 99999999 }}"));
  CHECK_THROWS(InvalidArgument, "at most 100000 elements", Render("{{ range(100001) }}"));
  CHECK_THROWS(Unsupported, "levels deep", Render("{{ " + std::string(5000, '(') + std::string(5000, ')') + " }}"));
  CHECK_THROWS(Unsupported, "bytes", Render(std::string(kMaxTemplateBytes + 1, 'x')));
}

TEST(CyclesThroughNamespacesAreFreed) {
  CHECK_THROWS(Unsupported, "printing a Namespace",
               Render("{% set ns = namespace() %}{% set ns.self = [ns] %}{% macro m() %}{{ m }}{% endmacro %}"
                      "{% set ns.m = m %}{{ ns.self == ns.self }}{{ ns.self }}"));
}

// Templates that use most constructs, to be damaged.
constexpr const char* kSeeds[] = {
    "{% macro m(a, b=[1]) %}{{ a ~ b[-1:] }}{{ kwargs }}{% endmacro %}{% for x, y in d.items() if x != 'q' %}"
    "{{ loop.index }}{{ m(x, b=y) }}{% else %}none{% endfor %}{{ '%s' % d.a | upper }}",
    "{%- set ns = namespace(t='', n=0) -%}{%- for c in 'añb' * 3 -%}{%- set ns.t = ns.t + c | replace('a', 'xy') -%}"
    "{%- if loop.last %}{% break %}{% elif c is in ['b'] %}{% continue %}{% endif -%}{%- endfor %}"
    "{{ ns.t[::-1] | trim('x') }}",
    "{# c #}{% filter indent(2) %}{{ l | map('string') | join('\\n') }}{% endfilter %}{% raw %}{{ x }}{% endraw %}"
    "{{ l | sort(reverse=true) | tojson(indent=1) }}{% set z | e %}<{{ l | sum // 2 ** 2 }}>{% endset %}{{ z }}",
    "{% with q = 1.5 %}{% call(i) k() %}{{ i }}{{ q }}{% endcall %}{% endwith %}{% macro k() %}{{ caller(1) }}"
    "{% endmacro %}{{ 'x y z'.split(' ', 1) }}{{ l[0] if l is defined and not (1 in l) else u | default('é\\x41') }}",
};

TEST(DamagedTemplatesRenderOrAreRefused) {
  int num_rendered = 0, num_refused = 0;
  constexpr std::string_view kBytes = "{}%#-'\"()[]|~.:,\\ \n019ainrx\xC3\xA9\xFF";
  for (uint32_t round = 0; round < 2000; ++round) {
    std::string text = kSeeds[round % std::size(kSeeds)];
    uint32_t state = round * 2654435761u + 1;
    const auto next = [&](size_t below) {
      state = state * 1664525u + 1013904223u;
      return (state >> 8) % below;
    };
    for (size_t change = 0; change < 1 + round % 3; ++change) {
      const size_t at = next(text.size()), size = next(3);
      text.replace(at, next(2) == 0 ? size : 0, std::string(size, kBytes[next(kBytes.size())]));
    }
    try {
      RenderTemplate(text, R"({"d": {"a": 1, "q": [2]}, "l": [3, 1, 2]})");
      ++num_rendered;
    } catch (const Error& error) {
      CHECK(error.status() != Status::kInternal);
      ++num_refused;
    }
  }
  CHECK(num_rendered > 100);
  CHECK(num_refused > 500);
}

}  // namespace
}  // namespace dgrt::jinja
