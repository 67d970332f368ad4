"""Chat templates, one for each construct that is met in published ones. `TEMPLATES` has a row for each."""

ALTERNATE = (  # strict roles: the user begins, and the roles alternate
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('No system role') }}{% endif %}"
ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def chatml(content="{{ m.content }}", role="{{ m.role }}", *, before="", within="", ask=ASK, end="<|im_end|>\n"):
    """A template with one block for each message."""
    return f"{before}{{% for m in messages %}}{within}<|im_start|>{role}\n{content}{end}{{% endfor %}}{ask}"


def only(condition, text, otherwise=""):
    """A piece that is written where the condition holds."""
    return f"{{% if {condition} %}}{text}{{% else %}}{otherwise}{{% endif %}}"


ASSISTANT = "m.role == 'assistant'"
MODEL = {"role": f"{{{{ 'model' if {ASSISTANT} else m.role }}}}", "ask": ASK.replace("assistant", "model")}
TEMPLATES = {
    "chatml": chatml(),
    "trims": chatml("{{ m.content | trim }}"),
    "upper case": chatml("{{ m.content | upper }}"),
    "a space before each text": chatml(" {{ m.content }}"),
    "a space before answers": chatml(only(ASSISTANT, " ") + "{{ m.content }}"),
    "subscripts": chatml("{{ m['content'] }}", "{{ m['role'] }}"),
    "joins with plus": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{{ '<|im_start|>assistant\n' if add_generation_prompt }}",
    "joins with tilde": "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>' }}"
    "{% endfor %}" + ASK,
    "whitespace control": "{%- for m in messages -%}\n  {{- '<|im_start|>' + m.role + '\n' -}}\n  {{- m.content -}}\n"
    "  {{- '<|im_end|>\n' -}}\n{%- endfor -%}\n{%- if add_generation_prompt -%}\n  {{- '<|im_start|>assistant\n' -}}\n"
    "{%- endif -%}\n",
    "ends with a line break": chatml() + "\n",
    "ends with a comment": chatml() + "{# the end #}",
    "a macro": "{% macro block(m) %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endmacro %}"
    "{% for m in messages %}{{ block(m) }}{% endfor %}" + ASK,
    "a namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + ASK,
    "a default system prompt": chatml(
        before=only("messages[0].role != 'system'", "<|im_start|>system\nBe kind.<|im_end|>\n")
    ),
    "the system first and apart": "{% if messages[0].role == 'system' %}<|im_start|>system\n{{ messages[0].content }}"
    "<|im_end|>\n{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}{% for m in rest %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + ASK,
    "no system role": chatml(before=NO_SYSTEM),
    "drops the system": chatml().replace("in messages %", "in messages if m.role != 'system' %"),
    "strict roles": chatml(before=NO_SYSTEM, within=ALTERNATE),
    "strict roles after the system": "{% set rest = messages[1:] if messages[0].role == 'system' else messages %}"
    "{% if messages[0].role == 'system' %}<|im_start|>system\n{{ messages[0].content }}<|im_end|>{% endif %}"
    f"{{% for m in rest %}}{ALTERNATE}<|im_start|>{{{{ m.role }}}}\n{{{{ m.content }}}}<|im_end|>{{% endfor %}}{ASK}",
    "another name for the assistant": chatml(**MODEL),
    "another name and strict roles": chatml(before=NO_SYSTEM, within=ALTERNATE, **MODEL),
    "the system with the last question": "{% for m in messages %}{% if m.role == 'user' %}[INST] "
    "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% endif %}{{ m.content }}[/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}<|im_end|>{% endif %}{% endfor %}",
    "the system with the first question": "{% for m in messages %}{% if m.role == 'user' %}[INST] "
    "{% if loop.index0 == 1 and messages[0].role == 'system' %}<<SYS>>\n{{ messages[0].content }}\n<</SYS>>\n\n"
    "{% endif %}{{ m.content }} "
    "[/INST]{% elif m.role == 'assistant' %} {{ m.content }} <|im_end|>{% endif %}{% endfor %}",
    "no opening for an answer": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
    "roles in words": "{% for m in messages %}{{ m.role | capitalize }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}",
    "a mark of two pieces": "{% for m in messages %}{{ '<|im_' ~ 'start|>' }}{{ m.role }}\n{{ m.content }}<|im_end|>"
    "{% endfor %}" + ASK,
    "parts or text": chatml(only("m.content is string", "{{ m.content }}", "{{ m.content[0].text }}")),
    "parts only": chatml("{% for part in m.content %}{{ part.text }}{% endfor %}"),
    "parts only, by type": chatml(
        "{% for part in m.content if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    ),
    "the first part only": chatml("{{ m['content'][0]['text'] }}"),
    "parts only and strict roles": chatml(
        "{% for part in m.content %}{{ part.text }}{% endfor %}", before=NO_SYSTEM, within=ALTERNATE
    ),
    "opens a thought": chatml(ask=ASK.replace("assistant\n", "assistant\n<think>\n")),
    "drops thoughts by splitting": chatml(only(ASSISTANT, "{{ m.content.split('</think>')[-1] }}", "{{ m.content }}")),
    "writes thoughts": chatml(
        only("m.reasoning_content", "<think>\n{{ m.reasoning_content }}\n</think>\n\n") + "{{ m.content }}"
    ),
    "closes a thought when off": chatml(
        ask=ASK + only("add_generation_prompt and enable_thinking is false", "<think>\n\n</think>\n\n")
    ),
    "an empty thought in the last answer": chatml(
        only(f"{ASSISTANT} and loop.last", "<think>\n\n</think>\n\n") + "{{ m.content }}"
    ),
    "deletes commands": chatml(
        only("m.role == 'system'", "{{ m.content.replace('/no_think', '').replace('/think', '') }}", "{{ m.content }}")
    ),
    "deletes commands everywhere": chatml("{{ m.content.replace('/think', '') }}"),
    "channels": "{% for m in messages %}<|im_start|>{{ m.role }}{{ '<|channel|>final' if m.role == 'assistant' }}"
    "<|message|>{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{% endif %}",
    "generation tags": "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>"
    "{% endif %}{% endfor %}" + ASK,
    "loop controls": "{% for m in messages %}{% if not m.content %}{% continue %}{% endif %}<|im_start|>{{ m.role }}\n"
    "{{ m.content }}<|im_end|>\n{% endfor %}" + ASK,
    "as JSON": "{% for m in messages %}{{ m | tojson }}<|im_end|>{% endfor %}" + ASK,
    "another end for the last answer": chatml(end=only(f"{ASSISTANT} and loop.last", "<|endoftext|>", "<|im_end|>\n")),
    "a filter chain": chatml("{{ m.content | string | replace('\r\n', '\n') }}"),
}
