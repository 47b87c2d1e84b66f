"""A generator of chat templates and conversations: constructs that templates in the wild use, put together by a seed.

A case is data only, so that any renderer can be compared with any other. A case may also have no rendering: templates
that raise, do not parse, or fail are among them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

FROZEN_TIME = "2026-03-14 15:09:26"  # what strftime_now sees in comparisons


@dataclass(frozen=True)
class TemplateCase:
    """One template with what it is given.

    Attributes:
        source: The Jinja text.
        messages: The conversation.
        tools: Schemas, or None.
        add_generation_prompt: Whether the model's turn is opened; False where the last message is continued.
        continued: Key of the last message that is continued, or None.
        variables: More variables, such as "documents" and "enable_thinking".
    """

    source: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True
    continued: str | None = None
    variables: dict[str, Any] = field(default_factory=dict)


_HEADS = [
    "{{ bos_token }}", "{{- bos_token -}}\n", "{% set ns = namespace(first=true, count=0) %}", "",
    "\n  {{ bos_token }}\n",
    "{%- if messages[0]['role'] == 'system' -%}{{ messages[0].content | trim }}{%- endif -%}",
    "{% set loop_messages = messages[1:] if messages[0].role == 'system' else messages %}",
    "{%- macro turn(m, end='<turn|>') -%}<|turn>{{ m.role }}\n{{ m.content }}{{ end }}\n{%- endmacro -%}",
    "{% set style = {'user': 'U', 'assistant': 'A'} %}",
    "{{ strftime_now('%d %B %Y %H:%M') }}\n", "{# a comment #}\n",
    "{%- if tools -%}<|tool>{{ tools | tojson }}<tool|>{%- endif -%}",
    "{% if tools is not none %}{% for t in tools %}{{ t | tojson(indent=2) }}\n{% endfor %}{% endif %}",
    "{% if documents %}{% for d in documents %}{{ d.title }}: {{ d['text'] }}\n{% endfor %}{% endif %}",
    "{% if enable_thinking is defined and enable_thinking %}<|think|>\n{% endif %}",
    "{{ tools | tojson(separators=(',', ':'), sort_keys=true) if tools else 'no tools' }}",
    "{{ unk_token is defined }}{{ nothing is defined }}{{ nothing }}",
]  # fmt: skip
_TURNS = [
    "<|turn>{{ m['role'] }}\n{{ m['content'] }}<turn|>\n",
    "{{- '<|turn>' + m.role + '\n' + (m.content if m.content is string else m.content | tojson) + '<turn|>\n' -}}",
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ m.role | upper }}: {{ m.content }}{% endif %}\n",
    "  {% if m.content is string %}\n  {{ m.content | trim }}\n  {% else %}\n  {% for p in m.content %}\n"
    "{{ p['text'] }}\n  {% endfor %}\n  {% endif %}\n",
    "{{ m | tojson }}\n", "{{ m | tojson(ensure_ascii=true) }}", "{{ m | tojson(indent=1, sort_keys=true) }}\n",
    "{{ m.items() | list }}", "{{ m | dictsort }}",
    "{%- for k, v in m.items() -%}{{ k }}={{ v }};{%- endfor -%}",
    "{% if m.tool_calls is defined %}{% for c in m.tool_calls %}call:{{ c.function.name }}"
    "{{ c.function.arguments | tojson if c.function.arguments is mapping else c.function.arguments }}{% endfor %}"
    "{% elif m.role == 'tool' %}response:{{ m.name | default('unknown') }}:{{ m.content }}{% else %}{{ m.content }}"
    "{% endif %}",
    "{% set content = m.content if m.content is string else m.content | map(attribute='text') | join(' ') %}"
    "[{{ loop.index }}/{{ loop.length }}] {{ content.strip() }}{{ '\n' if not loop.last }}",
    "{% if loop.index > 2 %}{% break %}{% endif %}{{ m.content }}",
    "{% if loop.index0 % 2 == 1 %}{% continue %}{% endif %}"
    "{{ m['content'] | string | replace('\n', ' ') | truncate(30) }}",
    "{% if m.role not in ['user', 'assistant', 'system'] %}{{ raise_exception('unknown role ' + m.role) }}{% endif %}"
    "{{ m.content }}",
    "{% set ns2 = namespace(text='') %}{% for c in m.content %}{% set ns2.text = ns2.text ~ c %}{% endfor %}"
    "{{ ns2.text }}",
    "{{ m.reasoning_content or m.thinking or '' }}{{ m.content }}",
    "{{ (m.content | string).split('</think>')[-1].lstrip('\n') }}", "{{ m.content[:20] ~ '…' }}",
    "{{ m.get('name', 'nobody') }}{{ m.content | length }}", "{{ '%s: %s' | format(m.role, m.content) }}",
    "{% if (loop.index0 % 2 == 0) != (m.role == 'user') %}{{ raise_exception('roles must alternate') }}{% endif %}x",
    "{%+ if m.role == 'user' %}Q{% else %}A{%+ endif %} {{ m.content | indent(2) | wordcount }}\n",
    "{{ m.content | e }}{{ m.content | urlencode }}", "{{ loop.cycle('a', 'b') }}{{ loop.previtem.role }}",
    "{% filter upper %}{{ m.content }}{% endfilter %}", "{{ m.role | capitalize | center(12) }}|",
    "{% generation %}{% set inner = m.content %}{{ inner }}{% endgeneration %}{{ inner }}",
    "{{ dict(a=1, b=m.role) | tojson }}", "{{ range(3) | list }}{{ [m.role, 'x'] | sort | first }}",
    "{{ m.role is eq 'user' }}{{ m.content is iterable }}{{ m.content is sequence }}",
]  # fmt: skip
_TAILS = [
    "{% if add_generation_prompt %}<|turn>model\n{% endif %}", "{%- if add_generation_prompt -%}model{%- endif -%}\n\n",
    "",
    "{{ 'model\n' if add_generation_prompt else eos_token }}",
    "{% if add_generation_prompt and not (enable_thinking | default(false)) %}<|channel>thought\n<channel|>{% endif %}",
    "{{- messages | length }}{{ messages[-1].role }}", "{{ messages | map(attribute='role') | unique | join(',') }}",
    "{{ messages | selectattr('role', 'eq', 'user') | list | length }}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "{{ lipsum is defined }}{{ cycler('a', 'b').next() }}{{ joiner(',')() }}",
]  # fmt: skip
_BAD = [
    "{% for %}", "{{ 1 / 0 }}", "{{ messages.__class__ }}", "{{ messages[99].role.x }}", "{% generation %}",
    "{{ 'a' + 1 }}",
    "{{ messages.append(1) }}", "{{ namespace(_a=1) }}", "{{ dict.__base__ }}", "{{ range(10 ** 9) }}", "{% break %}",
    "{{ [1, 2] | tojson(bad=1) }}", "{{ x | nofilter }}", "{{ ''.__init__ }}", "{{ dict.fromkeys('ab') }}",
    "{{ raise_exception('stop here') }}",
    "{% for i in [1] %}{% generation %}{% break %}{% endgeneration %}{% endfor %}",
]  # fmt: skip
_TEXTS = [
    "Hi", "", "  spaces  ", "Grüße €", "two\nlines\n", "<b>&'\"</b>", "日本語 🍸", "{{ x }}", "a</think>b", "<turn|>",
    "\\u00e9\t",
]  # fmt: skip
_TOOLS = [
    {"type": "function", "function": {"name": "f", "description": "Déjà", "parameters": {"type": "object"}}},
    {"name": "g", "strict": True, "n": 1.5, "none": None},
]


def template_cases(seed: int, count: int) -> list[TemplateCase]:
    """Returns `count` cases; the same for the same seed."""
    rng = random.Random(seed)
    return [_case(rng) for _ in range(count)]


def _case(rng: random.Random) -> TemplateCase:
    messages = _conversation(rng)
    continued = rng.choice(["content", "content", "reasoning_content"]) if rng.random() < 0.2 else None
    variables: dict[str, Any] = {}
    if rng.random() < 0.3:
        variables["enable_thinking"] = rng.random() < 0.5
    if rng.random() < 0.2:
        variables["documents"] = [{"title": rng.choice(_TEXTS), "text": rng.choice(_TEXTS)}]
    if rng.random() < 0.1:
        variables["bos_token"] = "<other>"
    return TemplateCase(
        source=_source(rng),
        messages=messages,
        tools=rng.sample(_TOOLS, rng.randint(0, 2)) if rng.random() < 0.3 else None,
        add_generation_prompt=continued is None,
        continued=continued,
        variables=variables,
    )


def _source(rng: random.Random) -> str:
    heads = "".join(rng.sample(_HEADS, rng.randint(0, 3)))
    turns = rng.sample(_TURNS, rng.choice([1, 1, 1, 2]))
    if "macro turn" in heads and rng.random() < 0.7:
        turns.append("{{ turn(m) }}{{ turn(m, end='') }}")
    dash = rng.choice(["", "-"])
    where = "loop_messages" if "loop_messages" in heads else "messages"
    body = f"{{%{dash} for m in {where} {dash}%}}{''.join(turns)}{{%{dash} endfor {dash}%}}"
    bad = rng.choice(_BAD) if rng.random() < 0.12 else ""
    return heads + body + bad + rng.choice(_TAILS)


def _conversation(rng: random.Random) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if rng.random() < 0.3:
        messages.append({"role": "system", "content": rng.choice(_TEXTS)})
    for _ in range(rng.randint(1, 3)):
        messages.append({"role": "user", "content": _content(rng)})
        if rng.random() < 0.6:
            messages.append({"role": "assistant", "content": _content(rng)})
            if rng.random() < 0.3:
                messages[-1][rng.choice(["reasoning_content", "thinking", "reasoning"])] = rng.choice(_TEXTS)
        if rng.random() < 0.25:
            arguments = rng.choice(['{"x": 1}', {"x": [1, None, "é"]}])
            call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
            messages.append({"role": "tool", "tool_call_id": "c1", "name": "f", "content": rng.choice(_TEXTS)})
    if rng.random() < 0.1:
        messages[-1]["role"] = "developer"
    return messages


def _content(rng: random.Random) -> Any:
    text = rng.choice(_TEXTS)
    return [{"type": "text", "text": text}, {"type": "text", "text": "."}] if rng.random() < 0.2 else text
