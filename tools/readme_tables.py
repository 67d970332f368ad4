"""Generates parts of the README and of docs/ from the code: `python -m tools.readme_tables`."""

import argparse
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from gradio_client import Client

from parley.api.openai.requests import ChatRequest, CompletionRequest
from parley.config import VARIABLES
from parley.engines.base import TurnRequest
from parley.errors import CODES
from parley.events import Answer
from parley.messages import Message, build_messages
from parley.models import registry
from parley.models.reasoning_dialects import DIALECTS
from parley.models.tools.dialects import DIALECTS as TOOLS
from parley.serving import preload
from parley.serving.model_pool import ModelPool
from parley.settings import OPTIONS, Option, Settings
from parley.strategies.registry import STRATEGIES, TRUNCATION, Strategy
from parley.strategies.requirements import REQUIREMENTS

README = Path(__file__).parent.parent / "README.md"
DOCS = README.parent / "docs"
ASKED = (
    "Hello, who are you?",
    "My name is Clara, and my favourite animal is the otter.",
    "What is top-p sampling?",
    "What is my favourite animal?",
)
HARDWARE = {
    "any": "anywhere",
    "cpu": "CPU",
    "zerogpu": "GPU and ZeroGPU",
    "gpu-16": "GPU, 16 GB",
    "gpu-48": "GPU, 48 GB",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def settings_table() -> str:
    """The table of all settings of a turn, by their names in the API."""
    rows = ([f"`{o.name}`", o.label, _default(o), _bounds(o), o.help] for o in OPTIONS.values())
    return table(["name", "label", "default", "bounds", "what it does"], rows)


def variables_table() -> str:
    """The table of all environment variables that the owner can set."""
    rows = ([f"`{v.name}`", v.values, v.default_text, v.help] for v in VARIABLES.values())
    return table(["variable", "values", "default", "what it does"], rows)


def strategies_table() -> str:
    """The table of all decoding strategies."""
    rows = ([f"[{s.label}]({s.source})", s.summary, s.when, _names(s), _needs(s)] for s in STRATEGIES.values())
    return table(["strategy", "what it does", "when to use it", "its own settings", "needs"], rows)


def _names(strategy: Strategy) -> str:
    names, run = (", ".join(f"`{name}`" for name in each) for each in (strategy.settings, TRUNCATION))
    return names.replace(run, f"`{TRUNCATION[0]}` to `{TRUNCATION[-1]}`") or "none"


def _needs(strategy: Strategy) -> str:
    return ", ".join(REQUIREMENTS[name].needs for name in strategy.requirements) or "nothing"


def models_table() -> str:
    """The table of all models of the catalogue."""
    rows = (
        [
            f"[{row.label}](https://huggingface.co/{row.id})" if row.id and not row.folder else row.label,
            _millions(row.parameters) if row.parameters else "none",
            f"{row.bytes / 1e9:.2f} GB" if not row.folder and row.bytes else "none",
            row.licence,
            "yes" if row.thinking else "no",
            HARDWARE[row.tier] + " and the CPU of ZeroGPU" * (row.cpu_on_zerogpu and row.tier != "any"),
        ]
        for row in registry.MODELS
    )
    return table(["model", "parameters", "download", "licence", "thinks", "offered on"], rows)


def dialects_table() -> str:
    """The table of all marks of thoughts."""
    rows = (
        [f"[{row.models}]({row.source})", *map(_mark, (row.opening, row.closing, row.restart + row.answer))]
        for row in DIALECTS.values()
    )
    return table(["models", "before the thought", "after it", "before the answer"], rows)


def tools_table() -> str:
    """The table of all dialects of tools."""
    rows = (
        [f"[{row.models}]({row.source})", *(_mark(each) for each in (row.opening, row.closing))]
        for row in TOOLS.values()
    )
    return table(["models", "before the calls", "after them"], rows)


def errors_table() -> str:
    """The table of the codes of errors."""
    rows = ([f"`{name}`", str(row.status), row.meaning] for name, row in CODES.items())
    return table(["code", "HTTP", "meaning"], rows)


def parameters_table() -> str:
    """The table of the parameters of the OpenAI API."""
    rows: list[list[str]] = []
    for kind, name in ((ChatRequest, "chat"), (CompletionRequest, "texts")):
        for each, described in kind.model_fields.items():
            other = next((row for row in rows if row[0] == f"`{each}`" and row[2] == described.description), None)
            if other:
                other[1] = "both"
            else:
                rows.append([f"`{each}`", name, described.description or ""])
    return table(["parameter", "of", "what it does"], rows)


def printed_api(url: str) -> str:
    """What `view_api()` of gradio_client prints of the app at `url`, as a block of code."""
    printed = Client(url, verbose=False).view_api(print_info=False, return_format="str")
    return "\n".join(["```text", *(line.rstrip() for line in str(printed).strip().splitlines()), "```"])


def view_api() -> str:
    """The same of the app, which is started for it."""
    from app import demo, page

    _, url, _ = demo.launch(**page.LAUNCH, prevent_thread_lock=True, quiet=True)
    try:
        return printed_api(url)
    finally:
        demo.close()


def _mark(text: str) -> str:
    return f"`{text.strip()}`" if text else "nothing"


def transcript() -> str:
    """Budgie's answers to the questions `ASKED`, in one conversation, with greedy decoding."""
    settings = Settings.check({"model": "budgie", "strategy": "greedy"})
    history: list[Message] = []
    with ModelPool().lease(registry.find("budgie"), lambda _: None, threading.Event()) as engine:
        for text in ASKED:
            messages = build_messages([m._asdict() for m in history], text)
            answer = Answer.of(engine.stream(TurnRequest.of(messages, settings, threading.Event())))
            history += [messages[-1], Message("assistant", answer.text)]
    return "\n>\n".join(f"> **{'You' if m.role == 'user' else 'Budgie'}:** {m.content}" for m in history)


PARTS: Mapping[Path, Mapping[str, Callable[[], str]]] = {
    README: {"transcript": transcript},
    DOCS / "strategies.md": {"strategies": strategies_table},
    DOCS / "models.md": {"models": models_table, "dialects": dialects_table},
    DOCS / "api.md": {
        "parameters": parameters_table,
        "tools": tools_table,
        "errors": errors_table,
        "view_api": view_api,
    },
    DOCS / "settings.md": {"settings": settings_table, "variables": variables_table},
}


def front_matter(text: str) -> str:
    """`text` with new lists of models in its front matter: those to link, and those that a Space preloads."""
    hub_ids = [row.id for row in preload.models_at_startup({"SPACES_ZERO_GPU": "true"}) if row.id and not row.folder]
    for name in ("models", "preload_from_hub"):
        items = "".join(f"  - {id}\n" for id in hub_ids)
        text = re.sub(rf"(?m)^{name}:\n(  - .*\n)+", f"{name}:\n{items}", text, count=1)
    return text


def written(path: Path, text: str) -> str:
    """The text of `path` with newly generated parts between its markers.

    Raises `ValueError` if a marker is missing.
    """
    text = front_matter(text) if path == README else text
    for name, make in PARTS[path].items():
        text = between(text, name, make())
    return text


def between(text: str, name: str, part: str) -> str:
    """`text` with `part` between the markers of `name`. Raises `ValueError` if a marker is missing."""
    begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    return text[: text.index(begin) + len(begin)] + part + text[text.index(end) :]


def _millions(count: int) -> str:
    return f"{count / 1e9:.1f} B" if count > 999_500_000 else f"{count / 1e6:.3g} M"


def _default(o: Option) -> str:
    if o.default in ("", None):
        return "the default" if o.name == "model" else "empty"
    return str(o.default).lower() if o.kind is bool else str(o.default)


def _bounds(o: Option) -> str:
    if o.choices:
        return " or ".join(o.choices)
    if o.kind is str:
        return f"up to {o.high:g} characters"
    return "" if o.kind is bool else f"{o.low:.15g} to {o.high:.15g}"


def main() -> None:
    """Runs the command line."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for path in PARTS:
        path.write_text(written(path, path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
