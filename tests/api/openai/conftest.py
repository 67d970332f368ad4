"""How the tests of this folder ask: with the `openai` package, against the app that runs in their process."""

import os
import shutil
import threading

import openai
import pytest

from parley.serving import turn
from tests.conftest import ROOT
from tests.models.tools.test_forced_calls import WRITTEN

TEMPLATE = """{%- if tools %}<|im_start|>system
Tools:
{%- for tool in tools %} {{ tool | tojson }}{% endfor %}
Call one as <tool_call>{"name": "…", "arguments": {}}</tool_call>.<|im_end|>
{% endif -%}
{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}
{%- for call in m.tool_calls or [] %}
<tool_call>{{ {"name": call.function.name, "arguments": call.function.arguments} | tojson }}</tool_call>
{%- endfor %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@pytest.fixture(scope="module")
def openai_client(inside):
    with openai.OpenAI(base_url=f"{inside.url}/v1", api_key="none", max_retries=0, timeout=90) as client:
        yield client


def save_with_tools(folder, template=TEMPLATE):
    """Budgie's weights with a chat template that knows tools."""
    shutil.copytree(ROOT / "parley" / "budgie" / "weights", folder)
    (folder / "chat_template.jinja").write_text(template)
    return folder


@pytest.fixture(scope="session")
def tools_folder(tmp_path_factory):
    return save_with_tools(tmp_path_factory.mktemp("models") / "handy")


@pytest.fixture(scope="session")
def dialect_folders(tmp_path_factory):
    """The same with templates of other dialects, by their names."""
    marks = {"lfm": "<|tool_list_start|>", "llama": '{"name": function name, "parameters": …}'}
    folders = tmp_path_factory.mktemp("dialects")
    usual = '<tool_call>{"name": "…", "arguments": {}}</tool_call>'
    return {
        name: save_with_tools(folders / name, TEMPLATE.replace(usual, marks.get(name, "") + written, 1))
        for name, written in WRITTEN.items()
    }


@pytest.fixture
def handy(inside, tools_folder, monkeypatch):
    """The name of that model, while it is offered."""
    monkeypatch.setenv("MODEL_IDS", f"{os.environ['MODEL_IDS']},{tools_folder}")
    return tools_folder.name


@pytest.fixture
def scripted(inside, handy, monkeypatch):
    """Makes the model write what a function of its conversation says. All else is as ever.

    A model as small as Budgie calls no tools.
    """
    runner = inside.demo.turns._runner
    reply = runner._reply
    prompts = []

    def script(says):
        def scripted_reply(run_id, messages, settings, session, generated, *, given=()):
            with turn.POOL.lease(turn.registry.find(handy), lambda _: None, threading.Event()) as engine:
                tokenizer = engine.loaded.tokenizer
            prompts.append(messages)
            ids = tokenizer.encode(says(messages), add_special_tokens=False)
            given = [*ids, tokenizer.convert_tokens_to_ids("<|im_end|>")]
            return reply(run_id, messages, settings, session, generated, given=given)

        monkeypatch.setattr(runner, "_reply", scripted_reply)
        return prompts

    return script
