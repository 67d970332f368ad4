"""Writes the Python program that reproduces an answer with transformers, and with our decoder where it is needed."""

from collections.abc import Sequence
from pathlib import Path

from parley.generation.chat_template import as_dicts, template_variables
from parley.generation.generation_config import GenerationPlan
from parley.generation.loaded_model import LoadedModel
from parley.generation.prompt import Prompt
from parley.settings import Settings
from parley.snippet import call, listed, named
from parley.strategies.processors.answer_form import AnswerForm, Thought
from parley.strategies.processors.order import expression
from parley.strategies.registry import CONSTANT_DRAFTS

CLONE = Path(__file__).parent.parent.parent


def transformers_program(
    loaded: LoadedModel, prompt: Prompt, settings: Settings, plan: GenerationPlan, seed: int
) -> str:
    """Python that prints the same text."""
    prompts = [prompt, *([prompt.negative] if prompt.negative else [])]
    has_control_tokens = any(
        token in m.content for each in prompts for m in each.messages for token in loaded.tokenizer.chat_control_tokens
    )
    template = ["messages", *named(add_generation_prompt=True, return_dict=True, return_tensors="pt")]
    template += named(**template_variables(loaded, settings))
    template += named(sanitize_control_tokens=has_control_tokens or None)
    lines = [
        "import torch",
        "from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig",
        *_imports(loaded, plan),
        "",
        *_load(loaded, "tokenizer", "model"),
        *([f"tokenizer.chat_control_tokens = {_control_tokens(loaded)}"] if has_control_tokens else []),
        *_prompt(loaded, "prompt", prompt, template),
        *(_prompt(loaded, "negative", prompt.negative, template) if prompt.negative else []),
        f"model.generation_config = {call('GenerationConfig', named(**plan.config))}",
        *_draft(plan),
        *([f"torch.manual_seed({seed})"] if plan.config["do_sample"] else []),
        f"output = {call('model.generate', ['**prompt', *_generate(loaded, prompt, plan)])}",
        *_answer(loaded),
        *[f"answer = answer.partition({text!r})[0]" for text in settings.stop_strings],
        "print(answer.strip())",
    ]
    return "\n".join(lines)


def _answer(loaded: LoadedModel) -> list[str]:
    """The lines that decode the answer. Where the marks of a thought are special tokens, its text is cut off by them.

    Without them the thought and the answer would run together.
    """
    new = 'output[0, prompt["input_ids"].shape[1] :]'
    special = {token.content: id for id, token in loaded.tokenizer.added_tokens_decoder.items() if token.special}
    dialect = loaded.dialect
    if not any(token in mark for mark in dialect.structure for token in special):
        return [f"answer = tokenizer.decode({new}, skip_special_tokens=True)"]
    ends = [*dialect.ends, *(token for token, id in special.items() if id in loaded.end_ids)]
    return [
        f"answer = tokenizer.decode({new}).rpartition({(dialect.answer or dialect.closing).strip()!r})[2]",
        *(f"answer = answer.partition({end!r})[0]" for end in dict.fromkeys(ends)),
    ]


def _control_tokens(loaded: LoadedModel) -> list[str]:
    """The guarded tokens that are not special: transformers guards the special ones by itself."""
    special = {token.content for token in loaded.tokenizer.added_tokens_decoder.values() if token.special}
    return [token for token in loaded.tokenizer.chat_control_tokens if token not in special]


def _prompt(loaded: LoadedModel, name: str, prompt: Prompt, template: Sequence[str]) -> list[str]:
    if prompt.spliced or not prompt.as_template:
        why = "answers as generated" if prompt.as_template or prompt.continues else "typed control tokens as text"
        ids = f"{name} = {{'input_ids': torch.tensor({prompt.ids.tolist()})}}  # {why}"
        return [ids, f"{name}['attention_mask'] = torch.ones_like({name}['input_ids'])"]
    messages = f"messages = {listed(as_dicts(loaded, prompt.messages))}"
    return [messages, f"{name} = {call('tokenizer.apply_chat_template', template)}"]


def _load(loaded: LoadedModel, tokenizer: str, model: str) -> list[str]:
    gguf = Path(loaded.spec.gguf).name or None
    where = [repr(_name(loaded)), *named(revision=loaded.spec.revision, gguf_file=gguf)]
    weights = [*where, f"dtype={loaded.model.dtype}"]
    return [
        *([f"{tokenizer} = {call('AutoTokenizer.from_pretrained', where)}"] if tokenizer else []),
        f"{model} = {call('AutoModelForCausalLM.from_pretrained', weights)}",
    ]


def _draft(plan: GenerationPlan) -> list[str]:
    """The lines that load the draft model. The number of draft tokens goes into the config of the draft model."""
    if plan.draft is None:
        return []
    config = call(
        "GenerationConfig", named(**{name: plan.config[name] for name in ("num_assistant_tokens", *CONSTANT_DRAFTS)})
    )
    load = _load(plan.draft, "draft_tokenizer" if plan.cross_tokenizer else "", "draft")
    return [*load, f"draft.generation_config = {config}"]


def _name(loaded: LoadedModel) -> str:
    """The name of the model in the program, without the folders of this machine."""
    folder = loaded.spec.folder
    if loaded.spec.adapter:
        return loaded.spec.name
    if folder is None:
        return loaded.spec.id
    return str(folder.relative_to(CLONE)) if folder.is_relative_to(CLONE) else loaded.spec.name


def _needs_decoder(loaded: LoadedModel, plan: GenerationPlan) -> bool:
    """Whether our decoder is needed.

    For a draft with another tokenizer, transformers converts through the text only where the vocabulary sizes differ.
    """
    sizes = {each.model.config.get_text_config().vocab_size for each in (loaded, plan.draft) if each}
    return not plan.strategy.stock or (plan.cross_tokenizer and len(sizes) == 1)


def _imports(loaded: LoadedModel, plan: GenerationPlan) -> list[str]:
    decoder = [plan.decoder] if plan.decoder and _needs_decoder(loaded, plan) else []
    watermark = [type(mark)] if (mark := plan.config.get("watermarking_config")) else []
    imported = [type(processor) for processor in plan.processors] + decoder + watermark
    imported += [Thought] if any(isinstance(each, AnswerForm) for each in plan.processors) else []
    clone = {True: "  # in a clone of Parley", False: ""}
    own = [(each, each.__module__.startswith("parley.")) for each in dict.fromkeys(imported)]
    return [f"from {each.__module__} import {each.__name__}{clone[is_own]}" for each, is_own in own]


def _generate(loaded: LoadedModel, prompt: Prompt, plan: GenerationPlan) -> list[str]:
    arguments = []
    needs_decoder = bool(plan.decoder) and _needs_decoder(loaded, plan)
    if plan.decoder and needs_decoder:
        callbacks = [f"{name}=lambda *_: None" for name in dict.fromkeys(plan.strategy.events)]
        arguments = [f"custom_generate={plan.decoder.__name__}", *callbacks]
    if plan.draft:
        arguments.append("draft=draft" if needs_decoder else "assistant_model=draft")
    if plan.draft and plan.cross_tokenizer:
        pair = ["tokenizer=tokenizer", "assistant_tokenizer=draft_tokenizer"]
        arguments += ["tokenizers=(tokenizer, draft_tokenizer)"] if needs_decoder else pair
    if prompt.negative:
        arguments.append('negative_prompt_ids=negative["input_ids"]')
    if plan.processors:
        arguments.append(f"logits_processor=[{', '.join(map(expression, plan.processors))}]")
    return [*arguments, *(named(**plan.options) if needs_decoder else [])]
