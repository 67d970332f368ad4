"""The program that gives an answer again with nothing but transformers, and our loop where the strategy has one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parley.engines.decoding import LISTENERS, Plan
from parley.engines.loading import Loaded
from parley.messages import Message
from parley.settings import Settings

CLONE = Path(__file__).parent.parent.parent
CONTROL = "[t.content for t in tokenizer.added_tokens_decoder.values() if t.content.strip()]"


def transformers_program(
    loaded: Loaded, messages: Sequence[Message], settings: Settings, plan: Plan, seed: int
) -> str:
    """Python that prints the same text; `messages` are those that fitted the context."""
    where = [repr(_name(loaded)), *_named(revision=loaded.row.revision)]
    typed = any(token in m.content for m in messages for token in loaded.tokenizer.chat_control_tokens)
    template = ["messages", *_named(add_generation_prompt=True, return_dict=True, return_tensors="pt")]
    template += _named(enable_thinking=settings.thinking if loaded.thinking else None)
    template += _named(sanitize_control_tokens=typed or None)
    lines = [
        "import torch",
        "from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig",
        *_imports(plan),
        "",
        f"tokenizer = {_call('AutoTokenizer.from_pretrained', where)}",
        f"model = {_call('AutoModelForCausalLM.from_pretrained', [*where, f'dtype={loaded.model.dtype}'])}",
        *([f"tokenizer.chat_control_tokens = {CONTROL}"] if typed else []),
        f"messages = {_list([m._asdict() for m in messages])}",
        f"prompt = {_call('tokenizer.apply_chat_template', template)}",
        f"model.generation_config = {_call('GenerationConfig', _named(**plan.config))}",
        *([f"torch.manual_seed({seed})"] if plan.config["do_sample"] else []),
        f"output = {_call('model.generate', ['**prompt', *_generate(plan)])}",
        'answer = tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)',
        *[f"answer = answer.partition({text!r})[0]" for text in settings.stop_strings],
        "print(answer.strip())",
    ]
    return "\n".join(lines)


def _name(loaded: Loaded) -> str:
    """The model for a reader: nothing of where this machine keeps its folders."""
    folder = loaded.row.folder
    if folder is None:
        return loaded.row.id
    return str(folder.relative_to(CLONE)) if folder.is_relative_to(CLONE) else loaded.row.name


def _imports(plan: Plan) -> list[str]:
    ours = [type(processor) for processor in plan.processors] + ([plan.loop] if plan.loop else [])
    return [f"from {each.__module__} import {each.__name__}  # in a clone of Parley" for each in ours]


def _generate(plan: Plan) -> list[str]:
    arguments = []
    if plan.loop:
        watching = dict.fromkeys(LISTENERS[plan.loop], "lambda *_: None")
        arguments = [f"custom_generate={plan.loop.__name__}", *(f"{name}={do}" for name, do in watching.items())]
    if plan.processors:
        arguments.append(f"logits_processor=[{', '.join(map(repr, plan.processors))}]")
    return [*arguments, *_named(**plan.options)]


def _named(**values: Any) -> list[str]:
    return [f"{name}={value!r}" for name, value in values.items() if value is not None]


def _call(name: str, arguments: Sequence[str]) -> str:
    """A call on one line where it is short, else one argument a line."""
    line = f"{name}({', '.join(arguments)})"
    return line if len(line) < 70 else f"{name}(\n" + "".join(f"    {each},\n" for each in arguments) + ")"


def _list(items: Sequence[Any]) -> str:
    return "[\n" + "".join(f"    {item!r},\n" for item in items) + "]"
