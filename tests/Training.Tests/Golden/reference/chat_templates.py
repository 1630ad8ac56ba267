"""Renders tests/Training.Tests/Golden/chat-templates.json with Jinja itself, set up as transformers sets it up.

Run with jinja2 3.1.6: python3 chat_templates.py > ../chat-templates.json
The templates are short ones of our own, in the shapes that published models use.
"""
import json
from datetime import datetime

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def raise_exception(message):
    raise TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception
env.globals["strftime_now"] = lambda f: datetime(2024, 7, 26, 9, 5, 3).strftime(f)

CHAT = [
    {"role": "system", "content": "Be brief. "},
    {"role": "user", "content": " Hi, \"you\"!\n"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "2 < 3 & 'x'?"},
    {"role": "assistant", "content": "  Yes – 🦙.\n"},
]
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "The weather in “a” place",
          "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1.0}}, "required": ["city"]}}}]
CALLS = [
    {"role": "user", "content": "Weather in Åbo?"},
    {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "id": "c1", "function": {"name": "weather", "arguments": {"city": "Åbo", "days": 2, "exact": True, "none": None, "f": 1e-7}}}]},
    {"role": "tool", "content": "{\"t\": -3.5}", "tool_call_id": "c1", "name": "weather"},
    {"role": "assistant", "content": "-3.5 °C"},
]

CHATML = """{%- if messages[0]['role'] == 'system' -%}
    {%- set start = 0 -%}
{%- else -%}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
{% for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
CHATML_LINES = """{% for message in messages %}
<|im_start|>{{ message['role'] }}
{% if message.role == 'assistant' %}
{% generation %}
{{ message['content'] }}<|im_end|>
{% endgeneration %}
{% else %}
{{ message['content'] }}<|im_end|>
{% endif %}
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""
LLAMA3 = """{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
LLAMA31 = """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("only single tool-calls") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
QWEN = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning)) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
LLAMA2 = """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"""
MISTRAL = """{%- set loop_messages = messages if messages[0]["role"] != "system" else messages[1:] %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {{- "[INST] " + message["content"] + "[/INST]" }}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}
            {%- set content = message.content.content %}
        {%- else %}
            {%- set content = message.content %}
        {%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- endif %}
{%- endfor %}
"""
PHI3 = """{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"""
MACROS = """{%- macro type_of(spec, depth=0) -%}
  {%- if spec.type == "object" -%}
    {{- "{" }}
    {%- for name, part in spec.properties | dictsort -%}
      {{- name ~ ("" if name in spec.required else "?") ~ ": " ~ type_of(part, depth + 1) }}
      {%- if not loop.last %}, {% endif %}
    {%- endfor -%}
    {{- "}" }}
  {%- else -%}
    {{- {"string": "str", "integer": "int"}[spec.type] | default("any") }}
    {%- if spec.default is defined %} = {{ spec.default }}{% endif %}
  {%- endif -%}
{%- endmacro -%}
{%- for tool in tools or [] -%}
{{ tool.function.name }}({{ type_of(tool.function.parameters) }})
{% endfor -%}
{% macro wrap(tag, class=none) %}<{{ tag }}{% if class %} {{ class }}{% endif %}>{{ caller() }}</{{ tag }}>{{ varargs }}{{ kwargs }}{% endmacro %}
{% call wrap('b', 1, class='c', x=2) %}{{ messages | length }}{% endcall %}
{% call(a) wrap('i') %}never{% endcall %}"""

def chat(name, template, messages=CHAT, tools=None, prompt=False):
    return {"name": name, "template": template, "messages": messages, "tools": tools, "add_generation_prompt": prompt}

cases = []
for name, template in [("chatml", CHATML), ("chatml-lines", CHATML_LINES), ("llama-3", LLAMA3), ("llama-3.1", LLAMA31), ("qwen", QWEN),
                       ("llama-2", LLAMA2), ("zephyr", ZEPHYR), ("gemma", GEMMA), ("mistral", MISTRAL), ("phi-3", PHI3), ("macros", MACROS)]:
    cases += [chat(name, template), chat(name + " without system", template, CHAT[1:], None, True), chat(name + " with tools", template, CALLS, TOOLS),
              chat(name + " two users", template, [CHAT[1], CHAT[3]])]

EXPRESSIONS = r"""
1 + 2 * 3 ** 2
2 ** 3 ** 2
-2 ** 2
7 // 2, -7 // 2, 7 % 3, -7 % 3, 7 / 2, 6 / 2, 7.5 // 2, -7.5 % 2
1_000 + 0.5
1e3
"a" "b" 'c'
"\n\t\\\'\"\x41\u00e9\q" | tojson
'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1, 'x', "it's", none] ~ {'k': (1,), 2: ()}
1 < 2 < 3, 1 < 3 < 2, 1 == 1.0, true == 1, 'a' != 'b', [1] == [1], (1,) == [1], {'a': 1} == {'a': 1.0}
'a' in 'cat', 'a' not in ['a'], 1 in {1: 2}, none in [none]
not 1 == 2, not true and false or true
1 if false, 'x' if true else 'y', ('a' if false else 'b') if true else 'c'
undefined_name, undefined_name is defined, undefined_name | default('d'), '' | default('e', true), none | default('f')
undefined_name | length, undefined_name is iterable, undefined_name | list, 'x' in undefined_name, undefined_name == other_undefined
[1, 2, 3][-1], [1, 2, 3][5] is defined, 'abc'[1], 'a🦙c'[1], 'a🦙c' | length, 'a🦙c'[::-1]
[0, 1, 2, 3, 4][1:3], [0, 1, 2, 3, 4][::-1], [0, 1, 2, 3, 4][::2], [0, 1, 2, 3, 4][-2:], [0, 1, 2, 3, 4][3:0:-1], [0, 1, 2][10:], [0, 1, 2][:-10], 'hello'[1:-1]
(1, 2)[0], (1, 2), (1,), (), [], {}
{'a': 1}.a, {'a': 1}['a'], {'a': 1}.b is defined, {'items': 3}['items'], {'a': {'b': [10, 20]}}.a.b.1
{'a': 1, 'b': 2}.items() | list, {'a': 1}.keys() | list, {'a': 1}.values() | list, {'a': 1}.get('a'), {'a': 1}.get('b'), {'a': 1}.get('b', 5)
' x '.strip() ~ '|' ~ ' x '.lstrip() ~ '|' ~ ' x '.rstrip() ~ '|' ~ 'xxaxx'.strip('x') ~ '|' ~ '\n a'.lstrip('\n')
'a,b,,c'.split(','), ' a  b '.split(), 'a,b,c'.split(',', 1), 'a b c'.split(none, 1), 'a,b,c'.rsplit(',', 1), 'a\nb\r\nc'.splitlines()
'abc'.startswith('ab'), 'abc'.startswith(('x', 'a')), 'abc'.endswith('bc'), 'aXb'.upper(), 'aXb'.lower(), 'hello wOrld-x'.title(), 'hELLO'.capitalize()
'aaa'.replace('a', 'b'), 'aaa'.replace('a', 'b', 2), 'banana'.count('an'), 'banana'.find('n'), 'banana'.find('x'), '-'.join(['a', 'b'])
'12'.isdigit(), 'a'.isalpha(), ' '.isspace(), 'AB'.isupper(), 'a-b'.partition('-'), 'ab'.removeprefix('a')
' x ' | trim, 'xax' | trim('x'), 'hello world-foo (bar' | title, 'hELLO' | capitalize, 'a' | upper, 'A' | lower, 5 | string ~ 1
[3, 1, 2] | sort, [3, 1, 2] | sort(reverse=true), ['b', 'A', 'c'] | sort, ['b', 'A'] | sort(case_sensitive=true), [{'a': 2}, {'a': 1}] | sort(attribute='a')
[1, 2, 1] | unique | list, ['a', 'A'] | unique | list, [1, 2, 3] | sum, [{'x': 1}, {'x': 2}] | sum(attribute='x'), [3, 1] | min, [3, 1] | max
[1, 2] | first, [1, 2] | last, [] | first is defined, 'abc' | first, [1, 2] | reverse | list, 'abc' | reverse, [1, 2] | join('-'), [{'n': 'a'}, {'n': 'b'}] | join('+', attribute='n')
[{'n': 'a'}, {'n': 'b'}, {}] | map(attribute='n') | list, [{'n': 'a'}, {}] | map(attribute='n', default='z') | list, ['a', 'b'] | map('upper') | list, ['a', 'b'] | map('replace', 'a', 'c') | list
[1, 2, 3, 4] | select('odd') | list, [1, 2, 3] | reject('equalto', 2) | list, [0, 1, ''] | select | list, [{'r': 'u'}, {'r': 'a'}, {}] | selectattr('r') | list, [{'r': 'u'}, {'r': 'a'}] | rejectattr('r', 'equalto', 'u') | list, [{'r': 'u'}, {'r': 'a'}] | selectattr('r', 'in', ['a']) | list
{'b': 1, 'a': 2} | dictsort, {'b': 1, 'a': 2} | dictsort(by='value'), {'b': 1, 'a': 2} | dictsort(reverse=true), {'b': 1} | items | list
'1' | int, '1.9' | int, 'x' | int, 'x' | int(7), 2.9 | int, -2.9 | int, '2.5' | float, 'x' | float, '1_0' | int, true | int, 'ff' | int(0, 16)
-3 | abs, 2.567 | round(2), 2.5 | round, 3.5 | round, 2.1 | round(0, 'ceil'), 2.9 | round(0, 'floor'), 7 | round
'a\n\nb\nc' | indent, 'a\nb' | indent(2, true), 'a\n\nb' | indent(2, blank=true), 'a\nb' | indent('> ')
('<a href="x">\'&' | e) ~ ('x' | safe) ~ ('a b c' | wordcount)
{'a': [1, 2.0, true, none, "é\"\\\n\u2028/<>&'"], 'b': {}} | tojson
{'b': [1, {}], 'a': []} | tojson(indent=2)
{'b': [1, 2], 'a': 'é'} | tojson(sort_keys=true, separators=(',', ':'), ensure_ascii=true)
1.0 | tojson, 1e16 | tojson, 1.5e-5 | tojson, 0.0001 | tojson, 123456789012345680.0 | tojson, 0.1 | tojson, 100000.0 | tojson
1e15, 1e16, 1.5e300, 5e-324, 0.1 + 0.2, 1 / 3, -0.0, 1e22, 123456.789, 2 ** 0.5, 2 ** -1, 9007199254740993.0
1 is number, true is number, 1 is integer, true is integer, 1.0 is float, 's' is string, [] is sequence, {} is mapping, 's' is sequence, {} is iterable, 1 is iterable, none is none, 1 is not none
true is true, 1 is true, false is false, true is boolean, 4 is even, 4 is odd, 9 is divisibleby 3, 9 is divisibleby(2), 1 is eq 1, 1 is ne(2), 1 is lt 2, 'a' is in ['a'], 'a' is lower, 'A' is upper, 1 is sameas 1
range(3) | list, range(1, 7, 2) | list, range(5, 0, -2) | list, range(0) | list, dict(a=1, b=2), dict({'x': 1}, y=2)
"x" * 3, 3 * "ab", [1] * 2, [1] + [2], (1,) + (2,)
[1, 2, 3] | length == 3 and 'a' | upper == 'A'
{"a": 1}.update({"b": 2})
[1].append(2)
[1, 2].index(2), [1, 1].count(1)
''.__class__
raise_exception('no: ' ~ 5)
undefined_name.member
undefined_name()
none + 'x'
'a' + 1
1 / 0
'a' < 1
[][1:1:0]
5 | unknown_filter
5 is unknown_test
range(1000000)
strftime_now('%d %b %Y, %A %B %-d %H:%M:%S %p %I %y %j %m %a %%')
""".strip("\n").split("\n")
cases += [chat(expression, "{{ " + expression + " }}", []) for expression in EXPRESSIONS]

STATEMENTS = [
    "{% for i in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}",
    "{% for i in [] %}x{% else %}none{% endfor %}{% for i in [1, 2, 3, 4] if i % 2 == 0 %}{{ loop.index }}:{{ i }} {% else %}-{% endfor %}",
    "{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}",
    "{% set ns = namespace(x=1) %}{% for i in [1, 2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }} {{ ns.y is defined }}",
    "{% if false %}{% set x = 1 %}{% else %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% for k, v in {'x': 1, 'y': 2}.items() %}{{ k }}{{ v }}{% endfor %}{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% set x %}a {{ 1 }}\n{% endset %}[{{ x }}]{% set y | upper | trim %} abc {% endset %}[{{ y }}]",
    "{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for c in 'ab' %}{% for d in 'xy' %}{{ loop.index }}{{ c }}{{ d }}{{ loop.cycle('-', '+') }}{% endfor %}{% endfor %}",
    "{% macro f(a, b='B', c) %}{{ a }}{{ b }}{{ c is defined }}{% endmacro %}{{ f(1) }} {{ f(1, 2, 3) }} {{ f(b=4, a=5) }} {{ f(*[1, 2]) }} {{ f(**{'a': 7}) }}",
    "{% set g = 'g' %}{% macro f() %}{{ g }}{% set g = 'h' %}{{ g }}{% endmacro %}{{ f() }}{{ g }}",
    "{% macro fact(n) %}{{ 1 if n < 2 else n * (fact(n - 1) | int) }}{% endmacro %}{{ fact(6) }}",
    "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}",
    "{% filter upper %}abc{{ 'd' }}{% endfilter %}",
    "a\n  {% if true %}\n  b\n  {% endif %}\n  {{ 'c' }}\nd\n\n",
    "a  \n  {%- if true -%}  \n  b  \n  {%- endif +%}\n  c{#- x -#}  d\n{# comment #}\n  e{%+ if true %} f{% endif %}",
    "  {%+ if true %}x{% endif %}\n  {# c #}\n{{ 1 -}}\n  y  {{- 2 }}\n",
    "{% raw %}{{ x }} {% if %}{% endraw %}{{ '{% not a tag %}' }}{{ \"}}\" }}",
    "\r\na\r\n{% if true %}\r\nb\r\n{% endif %}\r\n",
    "{% for m in messages %}{{ m.content }}{% endfor",
    "{% for m in messages %}{{ m.content }}",
    "{{ 1 + }}", "{{ (1 }}", "{% unknown %}", "{% if x %}{% endfor %}", "{{ 'abc }}", "{# x", "{% set ns.x = 1 %}", "{% set x = 1 %}{% set x.y = 2 %}",
    "{% do namespace() %}x", "{{ [1, 2,] }}{{ {'a': 1,} }}{{ (1, 2,) }}",
    "{{ '' if messages else 'empty' }}{{ messages[0].role is defined }}",
    "{% for a in [[1, 2], [3]] %}{% set a, b = a %}{{ b }}{% endfor %}",
    "{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}{{ tools is none }}{{ add_generation_prompt }}",
]
cases += [chat(statement, statement, []) for statement in STATEMENTS]

for case in cases:
    try:
        case["text"] = env.from_string(case["template"]).render(
            messages=case["messages"], tools=case["tools"], documents=None, add_generation_prompt=case["add_generation_prompt"],
            bos_token="<s>", eos_token="</s>")
    except Exception as error:
        case["fails"] = f"{type(error).__name__}: {error}"

print(json.dumps({"what": "chat templates and expressions, rendered by jinja2 3.1.6 (reference/chat_templates.py)", "cases": cases}, ensure_ascii=False, indent=1))
