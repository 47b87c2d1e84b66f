"""Templates of one construct each, for test_chat_templates.py."""

from __future__ import annotations

# One template a line.
_LINES = r"""
{% for i in [1] %}{{ x }}{% endfor %}{% set x = 1 %}{{ 'x'|int(7, 99) }}{% raw %}{% endraw %}
{% for i in [1] %}{{ x }}{% endfor %}{% if i %}{% set x = 1 %}{% else %}{% set x=3 %}{% endif %}|{{ x }}
{% for i in [1,2] %}{% break %}{% else %}E{% endfor %}{% for i in [1,2] %}{% continue %}{% else %}E{% endfor %}
{% for i in [1,2,3] %}{{ y }}{% set y = i %}{% endfor %}
{% macro m() %}{{ texts }}{% endmacro %}{{ m() }}{% set texts = 1 %}{{ m() }}
{{ (['a']|map('upper'))[0] }}{{ [1]|map('string')|list }}
{{ range(3) }} {{ range(1,5,2) }} {{ range(3)[1] }} {{ range(5, 0, -2)|list }} {{ range(3)|sum }}
{{ {'a':1}.items() }}{{ {'a':1}.keys() }}{{ {'a':1}.values() }}
{{ 1 in u }} {{ u is iterable }} {{ u is sequence }} {{ u is callable }} {{ [u] }} {{ u|length }} {{ u|list }}
{{ 'a' * -1 }}{{ 2 * 'ab' }}{{ [1] * 3 }}{{ (1,) * 2 }}
{{ 2**3**2 }} {{ -2**2 }} {{ 7//-2 }} {{ -7 % 3 }} {{ 1/2 }} {{ 1e20 }} {{ 1.0 }} {{ 1e16 }} {{ 1e-5 }} {{ 2 ** -1 }}
{{ 1 ~ 2 * 3 }} {{ '1' + 2 ~ 3 * 4 }} {{ 2 * 3 ~ 4 }} {{ '1' ~ 2 + 3 if false else 5 }} {{ not 1 == 2 and 3 or 4 }}
{{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 5.5 % -2 }} {{ 0.1 + 0.2 }} {{ 123456789.123 }} {{ 1e22 }} {{ 5e-324 }} {{ 8 / 2 }}
{{ ('<'|e) + '<' }}{{ '<'|e|e }}{{ '<'|safe|e }}{{ x|tojson|safe }}{{ ('<'|safe) ~ '<' }}
{{ dict(a=1) }}{{ dict({'b': 2}, a=1) }}{{ dict([('k', 1)]) }}
{{ {'a': 1}|length }}{{ (x|items)|list }}{{ 'abc'|batch(2)|list }}{{ [1,2,3]|batch(2, 0)|list }}
{{ '%s' % 1 }} {{ '%s %s' % (1, 'x') }} {{ '%d' % 2.7 }} {{ '%%' % () }} {{ '%r' % 'a' }} {{ '%s' % u }}|
{{ 'a{}'.format('<') }}{{ '{1}{0}{{}}{n}'.format(1, 2, n=3) }}
{{ 'ß'|upper }} {{ 'ab c-d (e)'|title }} {{ "ab c it's".title() }} {{ 'ÀÉ'|lower }} {{ 'àé'|capitalize }}
{{ 'İ'|lower }}
{% generation %}{% set q = 1 %}a{% endgeneration %}{{ q }}
{% for a in [1] %}{% generation %}{{ a }}{{ loop.index }}{% endgeneration %}{% endfor %}
{{ 'x'.foo is defined }} {{ x.update is defined }}[{{ x.update }}] {{ [].append is defined }} {{ x['update'] }}
{% macro m(a,b=a) %}{{a}}{{b}}{{ c }}{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(b=2, a=1) }}{{ m() }}
{% macro w() %}<{{ caller() }}>{% endmacro %}{% call w() %}in{{ x.a }}{% endcall %}
{% macro w() %}<{{ caller('q') }}{{ kwargs }}{{ varargs }}{% endmacro %}{% call(z) w(1,2,k=3) %}in{{ z }}{% endcall %}
{% macro a(n) %}{{ n }}{% if n > 0 %}{{ a(n-1) }}{% endif %}{% endmacro %}{{ a(20) }}
{{ 'é' | tojson(ensure_ascii=true) }}{{ '😀' | tojson(true) }}{{ '\x7f\x1f/"\\' | tojson }}
{{ [1,[2]]|tojson(indent=2) }}{{ {'a':[],'b':{}}|tojson(indent=1) }}{{ [1,2]|tojson(indent='--') }}
{{ [[1]]|tojson(indent=0) }}
{{ {'b':1,'a':2}|tojson(sort_keys=true,separators=(',',':')) }}{{ {1:2,none:3,true:4,1.5:5}|tojson }}
{{ true|tojson }}{{ none|tojson }}{{ 1.5|tojson }}{{ (1,2)|tojson }}{{ 1e300|tojson }}
{{ 5|round }} {{ 2.5|round }} {{ 2.567|round(2) }} {{ 2.5|round(0,'ceil') }} {{ 42.55|round(1, 'floor') }}
{{ 3.5|round|int }}
{{ '42.7'|int }} {{ 'x'|int }} {{ 'x'|int(5) }} {{ '0x1f'|int(0,16) }} {{ ' 1_000 '|int }} {{ none|int }}
{{ '3'|float }} {{ '1e3'|float }}
{% set a,b = 1,2 %}{{ a }}{{ b }}{% set (c, d), e = (1,2),3 %}{{ c }}{{ d }}{{ e }}
{{ a if false }}|{{ 1 if 0 }}|{{ 'a' if x else 'b' if y else 'c' }}|{{ (1 if 0) is defined }}
{{ not u }}{{ [1,2]|join(', ') ~ none }}{{ [1,2,3]|join }}{{ [{'a':1},{'a':2}]|join(',', attribute='a') }}
{{ [none,true,'a\n',"it's",'"',"'\"",1.0,u,(1,),(),{}] }}{{ ['é','\u200b','\t','😀','\xa0','\\'] }}
{{ {'b':1,'A':2,'c':0}|dictsort }}{{ {'b':1,'a':2}|dictsort(by='value') }}{{ {'b':1,'A':2}|dictsort(true) }}
{{ loop }}{{ 10|string|length }}{{ none|default('d') }}{{ none|default('d',true) }}{{ u|default }}{{ u|d(1) }}
{% set z %}a{{ 1 }}{% endset %}{{ z|upper }}{% set z2 | upper | trim %} abc {% endset %}{{ z2 }}
{% filter upper %}abc{{ 'x' }}{% endfilter %}{% filter trim | upper %} s {% endfilter %}
{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }}
{% raw %}{{ x }}{% endraw %}  {#- c -#}  end  {%- raw -%}  {% x %}  {%- endraw -%}  y
{{ messages[-1].content }}{{ messages[0]['role'] }}{{ messages[:1] }}{{ 'abcdef'[::-2] }}{{ 'abcdef'[1:-1] }}
{{ [1,2,3][-2:] }}{{ (1,2,3)[:2] }}
{{ 'é😀x'|length }}{{ 'é😀x'[1] }}{{ 'é😀x'[1:] }}{{ 'abc'[true] }}
{{ 'abc'[7] }}|{{ [1][u] }}|{{ messages[9] }}|{{ [1]['a'] }}
{% for k, v in x.items() %}{{ k }}={{ v }}{{ loop.last }}{{ loop.length }}{% endfor %}
{% for c in 'ab' %}{{ c }}{% endfor %}{% for k in x %}{{ k }}{% endfor %}
{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ loop.last }}{{ m.content }}{% else %}none{% endfor %}
{% set ns = namespace(f=false) %}{% for m in messages if not ns.f %}{% set ns.f = true %}{{ m.role }}{% endfor %}
{% set ns = namespace(f=false) %}{% for m in messages if not ns.f %}{{ loop.last }}{% set ns.f = true %}{% endfor %}
{% for i in range(3) %}{{ loop.cycle('a','b') }}{{ loop.revindex }}{{ loop.revindex0 }}{% endfor %}
{% for i in range(3) %}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }}{{ loop.depth0 }}{% endfor %}
{% for i in range(4) %}{{ loop.changed(i // 2) }}{% endfor %}
{% for a in [1,2] %}{% for b in [3] %}{{ loop.index }}{{ a }}{% endfor %}{{ loop.index }}{% endfor %}
{% for (a, b), c in [((1,2),3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% for i in u %}x{% else %}empty{% endfor %}
{% for i in [] %}x{% else %}{{ loop }}empty{% endfor %}{% for a in 1, 2 %}{{ a }}{% endfor %}
{{ messages | selectattr('role','equalto','user') | map(attribute='content') | list }}
{{ messages | rejectattr('role','in',['user']) | list | length }}
{{ messages|map(attribute='nope', default='d')|join(',') }}{{ [{'a':{'b':1}}]|map(attribute='a.b')|list }}
{{ [[1,2]]|map(attribute=0)|list }}{{ none|map('upper')|list }}
{{ [[1,2],[3]]|map('length')|list }}{{ [1,2,3]|select('odd')|list }}{{ [0,1]|select|list }}
{{ [1,2]|reject('eq',1)|list }}{{ ['a']|map('replace','a','b')|list }}
{{ '  a b  c '.split() }}{{ 'a,b,c'.split(',', 1) }}{{ 'a,b,c'.rsplit(',', 1) }}{{ ' a b c '.rsplit(None, 1) }}
{{ 'a'.split(sep=',') }}{{ ''.split() }}{{ ''.split(',') }}{{ 'a  b'.split(' ') }}{{ ' a  b '.split(none, 1) }}
{{ 'xxaxx'.strip('x') }}{{ 'xxaxx'.lstrip('x') }}{{ ' a '.rstrip() }}|{{ 'Abc'.startswith(('A','b')) }}
{{ 'abc'.find('c') }}{{ 'abc'.rfind('z') }}{{ ','.join(['a','b']) }}{{ 'a\u2003b'.split() }}
{{ 'Ab'.upper().lower().capitalize() }}{{ 'a'.isdigit() }}{{ '12'.isdigit() }}{{ ' '.isspace() }}{{ 'aB'.isalpha() }}
{{ 'A'.isupper() }}{{ 'a b'.partition(' ') }}{{ 'a b c'.rpartition(' ') }}{{ 'abc'.removeprefix('a') }}
{{ 'abc'.removesuffix('c') }}{{ 'a\r\nb\x0bc\n'.splitlines() }}{{ 'aXa'.count('a') }}{{ 'abc'.index('b') }}
{{ 'é'.find('x') }}
{{ 'abc'|replace('b','x') }}{{ 'aaa'|replace('a','b',2) }}{{ 'abc'.replace('','-') }}{{ 'abc'.replace('a','b', 0) }}
{{ 5|replace(5, 6) }}
{{ [1,2,3]|sum }}{{ [1,2.5]|sum }}{{ [{'a':1}]|sum('a', 5) }}{{ [1,2]|max }}{{ texts|sort }}
{{ texts|sort(case_sensitive=true) }}{{ texts|min }}{{ []|max }}|{{ [1,1,2,'a','A']|unique|list }}{{ 'abc'|reverse }}
{{ [1,2]|reverse|list }}{{ [1,2]|last }}{{ []|first }}|{{ 'abc'|list }}{{ x|list }}
{{ [3,1,2]|sort(reverse=true) }}{{ [{'a':2},{'a':1}]|sort(attribute='a') }}{{ [{'a':2},{'a':1}]|max(attribute='a') }}
{{ [{'b':1},{'b':1}]|sort(attribute='zz') }}
{{ 'a\nb\n\nc'|indent(2) }}|{{ 'a\nb'|indent(2, true) }}|{{ 'a\n\nb'|indent(2, blank=true) }}
{{ 'a\nb\n'|indent('> ') }}|{{ ''|indent }}
{{ 1 < 2 < 3 }}{{ 1 < 2 > 5 }}{{ 1 in [1] not in [true] }}{{ 'a' not in 'abc' }}{{ not 1 in [2] }}{{ '' in 'a' }}
{{ 'a' in x }}{{ [1] in [[1]] }}{{ {} in [{}] }}
{{ 1 == 1.0 }}{{ true == 1 }}{{ [1] == [1.0] }}{{ {'a':1} == {'a':1} }}{{ (1,2) < (1,3) }}{{ 'a' < 'b' }}
{{ 'a' == 1 }}{{ none == none }}{{ u == v }}{{ [1] == (1,) }}{{ 'é' > 'z' }}
{{ 3 is odd }}{{ 4 is divisibleby 2 }}{{ 4 is divisibleby(3) }}{{ x is mapping }}{{ 'a' is string }}{{ none is none }}
{{ 1 is number }}{{ true is boolean }}{{ 1 is not string }}{{ true is true }}{{ 5 is in [5] }}{{ 5 is eq 5 }}
{{ true is number }}{{ true is integer }}{{ 1.0 is float }}{{ x is iterable }}{{ 1 is iterable }}
{{ range is callable }}{{ (x|items) is sequence }}{{ none is sameas none }}{{ 1 is true }}{{ 'a' is sequence }}
{{ x.items()|list }}{{ x.keys()|list }}{{ x.get('q', 5) }}{{ x.get('q') }}{{ x['q'] is defined }}{{ x.a }}
{{ x.get('a') }}{{ [1,2,1].count(1) }}{{ [1,2].index(2) }}{{ (1,2).count(1) }}
{{ "a" "b" }}{{ 'a\x41\u00e9\101\q\'\U0001F600\a' }}{{ 'é\é' }}{{ 1_000 }}{{ 0x1F }}{{ 0b11 }}{{ 0o17 }}{{ 1.5e3 }}
{{ 1e2 }}{{ 00 }}
{% if x %}a{% elif y %}b{% else %}c{% endif %}
{% if u %}a{% elif x %}b{% endif %}{% if not x %}a{% elif u %}b{% else %}c{% endif %}
{{ {'a':{'b':[1,{'c':2}]}}.a.b[1].c }}{{ [[1]].0.0 }}{{ {'x': 1, 'x': 2} }}{{ {(1,2): 3}[(1,2)] }}{{ {1: 'a'}[true] }}
{{ [1,2,][1] }}{{ (1) }}{{ (1,) }}{{ () }}
{{ 'x' ~ 1 ~ none ~ true ~ [1] ~ 1.0 ~ u }}{{ -x.a }}{{ +1 }}{{ - -1 }}{{ -5|abs }}{{ (-5)|abs }}{{ not not 1 }}
{{ namespace(a=1).a }}{% set ns = namespace({'q':1}, b=2) %}{{ ns.q + ns.b }}{{ ns.zz }}
{% set ns = namespace(q=1) %}{% set ns.q = ns.q + 1 %}{{ ns.q }}{% if true %}{% set ns.q = 7 %}{% endif %}{{ ns.q }}
{{ "%s" | format("x") }}{{ 7 % 3 }}{{ 7 / 2 }}{{ 'a' and 'b' }}{{ '' or 'c' }}{{ 0 and 1 }}{{ none or u }}
{{ true + true }}{{ [1] + [2] }}{{ (1,) + (2,) }}
{{ 1, 2 }}{{ x, }}{{ x['a'] }}{{ 3.0|int }}{{ 1e300*1e10 }}{{ -1e300*1e10 }}{{ 100000000000000000.0 }}{{ 1.10 }}
"""

# Render in transformers; the native text must be the same.
EXPRESSIONS = [
    *_LINES.strip("\n").split("\n"),
    # White space around tags.
    "{%- if true -%}  x  {%- endif -%}  y  {%+ if true +%}  z  {%+ endif +%}\n"
    "  {% if true %}  \n"
    "    a\n"
    "  {% endif %}\n"
    " b {% if true %} c {% endif %} \n"
    "  {# comment #}  \n"
    "  {{ 1 }}  \n"
    "  {%- set q = 1 %}\n"
    "x",
    '{{ "\\\n" }}',
]

# Fail in transformers, and here with the line.
REFUSED = r"""
{{ x|items|length }}
{% set ns = namespace() %}{% set ns._a = 1 %}
{{ namespace(_a=1) }}
{{ m.x }}
{{ u.x }}
{{ u['x'] }}
{{ u() }}
{{ u[1:] }}
{{ {'a':u}|tojson }}
{{ range(3)|tojson }}
{{ {(1,2): 3}|tojson }}
{{ (1 if 0).a }}
{% call x() %}{% endcall %}
{{ raise_exception('bad ' ~ 1) }}
{{ 1 + 'a' }}
{{ 'a' + none }}
{{ u + 1 }}
{{ 1 + u }}
{{ [1] + (1,) }}
{{ 1 < 'a' }}
{{ none < none }}
{{ u < 1 }}
{{ 1 / 0 }}
{{ 1 % 0 }}
{{ 1.5 // 0 }}
{{ 0 ** -1 }}
{{ 1e3 ** 1e3 }}
{{ -'a' }}
{{ x.append(1) }}
{{ [].append(1) }}
{{ x.pop('a') }}
{{ x.update({}) }}
{{ loop.index }}
{% set x.y = 1 %}
{{ x.a.b.c }}
{% for a, b in [[1]] %}{% endfor %}
{% for a in 5 %}{% endfor %}
{% for a in none %}{% endfor %}
{% set a, b = 1 %}
{{ x['a':] }}
{{ messages[9].x }}
{{ [1, 'a']|sort }}
{{ [u, 'a']|min }}
{{ 5|length }}
{{ none|join }}
{{ 'a'|round }}
{{ 'a'|abs }}
{{ u|int }}
{{ 'a'|replace }}
{{ 'a'|upper(1) }}
{{ 'a'|default(1, 2, 3) }}
{{ 'a'|trim(nope=1) }}
{{ 5|indent }}
{{ x|dictsort(by='z') }}
{{ 5|items|list }}
{{ (x|items)|last }}
{{ [1]|map|list }}
{{ 'a'.split('') }}
{{ 'a'.index('b') }}
{{ 'a'.join([1]) }}
{{ 'a'.strip(1) }}
{{ 'a'.upper(1) }}
{{ '%s %s' % 1 }}
{{ '%s' % (1, 2) }}
{{ '%d' % 'a' }}
{{ '%' % 1 }}
{{ '{} {}'.format(1) }}
{{ '{'.format(1) }}
{{ '{a}'.format(b=1) }}
{{ {[1]: 2} }}
{{ x.get([]) }}
{{ [[]]|unique|list }}
{{ 'a' in 5 }}
{{ 1 in 'a' }}
{{ 'a' is odd }}
{{ 5 is divisibleby 0 }}
{{ 5 is in 5 }}
{{ range(200000) }}
{{ range(0) + [] }}
{{ range(1, 2, 0) }}
{{ range('a') }}
{{ range() }}
{{ dict(5) }}
{{ [1,2][::0] }}
{{ messages[0].content['a':] }}
{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{% endmacro %}{{ m(b=2) }}
{% macro m(a) %}{% endmacro %}{{ m(1, a=2) }}
{% macro m(a) %}{{ a.x }}{% endmacro %}{{ m() }}
{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}
{% for a in [1] %}{{ loop.cycle() }}{% endfor %}
{{ strftime_now(5) }}
{{
{{ }}
{{ x
{% if %}a{% endif %}
{% if x %}
{% for %}{% endfor %}
{% for a in %}{% endfor %}
{% for 5 in x %}{% endfor %}
{% endfor %}
{% set 5 = 1 %}
{% set true = 1 %}
{% set x %}
{% macro %}{% endmacro %}
{% macro m(a=1, b) %}{% endmacro %}
{% break %}
{% for a in [1] %}{% generation %}{% break %}{% endgeneration %}{% endfor %}
{% for a in [1] %}{% macro m() %}{% continue %}{% endmacro %}{% endfor %}
{# open
{% raw %} x
{{ 'open }}
{{ (1 }}
{{ 1) }}
{{ [1 }}
{{ (1] }}
{{ {1} }}
{{ {1:} }}
{{ 1 + }}
{{ a. }}
{{ a[] }}
{{ a b }}
{{ $ }}
{{ a ! b }}
{{ f(a=1, 2) }}
{{ f(a=1, a=2) }}
{{ 'a\x1' }}
{{ 'a\U11111111' }}
{{ x is }}
{{ x is string is string }}
{{ x | }}
{% call 5 %}{% endcall %}
{{ 007 }}
""".strip("\n").split("\n")

# Render in transformers, or could; here they are refused with this part of the reason.
BEYOND = [
    ("{{ x | pprint }}", 'filter "pprint" is not supported'),
    ("{{ x | urlencode }}", 'filter "urlencode" is not supported'),
    ("{{ x | groupby('a') }}", 'filter "groupby" is not supported'),
    ("{{ x is lower }}", 'test "lower" is not supported'),
    ("{% include 'x' %}", 'statement "include" is not supported'),
    ("{% block x %}{% endblock %}", 'statement "block" is not supported'),
    ("{% autoescape true %}{% endautoescape %}", 'statement "autoescape" is not supported'),
    ("{% for a in [] recursive %}{% endfor %}", '"recursive" loops are not supported'),
    ("{{ dict(*[]) }}", "arguments with * or ** are not supported"),
    ("{{ x['a', 'b'] }}", "subscripts with commas are not supported"),
    ("{{ '\\N{DIGIT ONE}' }}", "escapes with names of characters"),
    ("{{ '\\ud83d' }}", "half a character"),
    ("{{ 99999999999999999999 }}", "does not fit in 64 bits"),
    ("{{ 9223372036854775807 + 1 }}", "integers beyond 64 bits are not supported"),
    ("{{ 10 ** 30 }}", "integers beyond 64 bits are not supported"),
    ("{{ '%5s' % 1 }}", 'the format "%5" is not supported'),
    ("{{ '{:5}'.format(1) }}", 'the format "{:5}" is not supported'),
    ("{{ (1).real }}", '"real" of a int is not supported'),
    ("{{ 'a'.swapcase() }}", '"swapcase" of a str is not supported'),
    ("{{ x.__class__ }}", 'attribute "__class__" is not supported'),
    ("{{ x.get }}", "printing a method is not supported"),
    ("{{ [1] | map('string') }}", "printing a generator is not supported"),
    ("{{ namespace() }}", "printing a Namespace is not supported"),
    ("{{ range(5)[1:] }}", "slices of a range are not supported"),
    ("{{ cycler('a') }}", "lipsum, cycler and joiner are not supported"),
    ("{{ ('a' | e).strip() }}", "methods of a text that is marked as safe are not supported"),
    ("{{ ('a' | safe) | upper }}", 'filter "upper" of a text that is marked as safe'),
    ("{{ 'ΑΣ' | lower }}", "the Greek letter sigma"),
    ("{{ 'é'.isalpha() }}", "beyond ASCII is not supported"),
    ("{{ x.keys() == x.keys() }}", "comparing views of dicts is not supported"),
    ("{{ [1] | sort(attribute='a,b') }}", "sorting by several attributes is not supported"),
    ("{% macro m(caller) %}{% endmacro %}", 'a parameter "caller" is not supported'),
]
