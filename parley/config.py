"""The environment variables that the owner of the app can set. Each value is checked when it is read.

`python app.py --help` and docs/settings.md list them. `HF_TOKEN` is not one of them: huggingface_hub reads it.
"""

import argparse
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from parley.errors import BadVariable

T = TypeVar("T")

ENGINES = ("auto", "openvino", "transformers")
QUANTIZATIONS = ("auto", "none", "int8", "int4")
GPU_SIZES = {"large": 48_000_000_000, "xlarge": 96_000_000_000}  # bytes of memory for a turn on ZeroGPU
# The settings that every server for chat completions supports, and those that only some servers support.
STANDARD_REMOTE_SETTINGS = ("temperature", "top_p", "seed")
EXTRA_REMOTE_SETTINGS = ("top_k", "min_p", "repetition_penalty", "thinking", "reasoning_effort")


@dataclass(frozen=True)
class Variable(Generic[T]):
    """One environment variable that the owner can set."""

    name: str
    values: str  # the allowed values, for people
    check: Callable[[str, str], T]  # takes the name and the stripped text, returns the value
    default: T
    help: str  # one sentence
    empty_counts: bool = False  # whether an empty text is a value; otherwise it means the default
    old_name: str = ""

    def read(self, environ: Mapping[str, str] = os.environ) -> T:
        """The checked value, or the default if the variable is not set.

        Raises `BadVariable` for a wrong value, and if the old name is set. The sentence names the variable.
        """
        if self.old_name and environ.get(self.old_name):
            raise BadVariable(f"{self.old_name} is now called {self.name}. Rename the variable.")
        text = environ.get(self.name)
        if text is None or not (text.strip() or self.empty_counts):
            return self.default
        return self.check(self.name, text.strip())

    @property
    def default_text(self) -> str:
        """The default as the owner would write it."""
        if isinstance(self.default, tuple):
            return ",".join(self.default) or "empty"
        return str(int(self.default)) if isinstance(self.default, bool) else str(self.default or "empty")


def check_key(name: str, text: str) -> str:
    """The key. Raises `BadVariable`, without the key in it, for characters that an HTTP header cannot have."""
    if not all("!" <= character <= "~" for character in text):
        raise BadVariable(f"{name} has characters that no key has. Copy it once more.")
    return text


def _one_of(choices: Sequence[str], otherwise: str = "") -> Callable[[str, str], str]:
    def check(name: str, text: str) -> str:
        if text not in choices:
            raise BadVariable(f"{name} is {text!r}. Set it to one of {', '.join(choices)}{otherwise}.")
        return text

    return check


def _names(_: str, text: str) -> tuple[str, ...]:
    """The items between commas, without duplicates."""
    return tuple(dict.fromkeys(item.strip() for item in text.split(",") if item.strip()))


def _pairs(name: str, text: str) -> Mapping[str, str]:
    pairs = {}
    for item in _names(name, text):
        target, _, draft = (part.strip() for part in item.partition("="))
        if not (target and draft):
            raise BadVariable(f"{name} has the item {item!r}. Write target=draft, a comma between pairs.")
        pairs[target] = draft
    return pairs


def _switch(name: str, text: str) -> bool:
    if text not in ("0", "1"):
        raise BadVariable(f"{name} is {text!r}. Set it to 1 or 0.")
    return text == "1"


def _seconds(name: str, text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise BadVariable(f"{name} is {text!r}. The owner of this app has to set it to a whole number of seconds.")
    return int(text)


def _address(name: str, text: str) -> str:
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise BadVariable(f"{name} is no address. Write one such as http://127.0.0.1:8000/v1.")
    return text


def _remote_settings(name: str, text: str) -> tuple[str, ...]:
    known = (*STANDARD_REMOTE_SETTINGS, *EXTRA_REMOTE_SETTINGS)
    if unknown := sorted(set(_names(name, text)) - set(known)):
        raise BadVariable(f"{name} has {unknown[0]!r}. It may have {', '.join(known)}, a comma between them.")
    return _names(name, text)


MODEL_IDS = Variable[tuple[str, ...]](
    name="MODEL_IDS",
    values="names and folders with commas between them",
    check=_names,
    default=(),
    help="The models that visitors can choose, the default first: org/name, org/name@revision or org/name/file.gguf "
    "on the Hub, or a folder or GGUF file, also as label=item; if empty, the page offers what suits the hardware.",
)
DRAFT_MODELS = Variable[Mapping[str, str]](
    name="DRAFT_MODELS",
    values="pairs target=draft with commas between them",
    check=_pairs,
    default={},
    help="The draft model for each target model; it replaces the draft model of the catalogue.",
)
ALLOW_ANY_MODEL = Variable[bool](
    name="ALLOW_ANY_MODEL",
    values="1 or 0",
    check=_switch,
    default=False,
    help="With 1, visitors can use any model on the Hub; it has no effect on a hosted Space.",
)
ENGINE = Variable[str](
    name="ENGINE",
    values=", ".join(ENGINES),
    check=_one_of(ENGINES),
    default="auto",
    help="The library that runs the local models on a CPU; auto uses OpenVINO for every model that it supports.",
)
QUANTIZATION = Variable[str](
    name="QUANTIZATION",
    values=", ".join(QUANTIZATIONS),
    check=_one_of(QUANTIZATIONS),
    default="auto",
    help="How the weights are stored in memory: none means floats, int8 one byte for each, int4 (on GPUs) half a byte "
    "for each; auto decides by the hardware.",
)
REMOTE_MODELS = Variable[tuple[str, ...]](
    name="REMOTE_MODELS",
    values="names with commas between them",
    check=_names,
    default=(),
    help="The models that run on a server for chat completions; they are in the same list, and the server reads what "
    "visitors type.",
)
REMOTE_BASE_URL = Variable[str](
    name="REMOTE_BASE_URL",
    values="an address such as http://127.0.0.1:8000/v1",
    check=_address,
    default="",
    help="The address of the server of REMOTE_MODELS; if empty, Inference Providers answer, paid through HF_TOKEN.",
)
REMOTE_API_KEY = Variable[str](
    name="REMOTE_API_KEY",
    values="a secret",
    check=check_key,
    default="",
    help="The key for the server at REMOTE_BASE_URL, if it needs one.",
)
REMOTE_SETTINGS = Variable[tuple[str, ...]](
    name="REMOTE_SETTINGS",
    values=f"any of {', '.join((*STANDARD_REMOTE_SETTINGS, *EXTRA_REMOTE_SETTINGS))} with commas between them",
    check=_remote_settings,
    default=STANDARD_REMOTE_SETTINGS,
    help="The settings that the server supports besides the length, the stop strings and the system prompt.",
    empty_counts=True,
)
ZEROGPU_SIZE = Variable[str](
    name="ZEROGPU_SIZE",
    values=", ".join(GPU_SIZES),
    check=_one_of(tuple(GPU_SIZES), ", or leave it out"),
    default="",
    help="The GPU memory for a turn on ZeroGPU: 48 GB (large, also if empty), or 96 GB at twice the quota (xlarge).",
)
MAX_GPU_SECONDS = Variable[int](
    name="MAX_GPU_SECONDS",
    values="a whole number of seconds",
    check=_seconds,
    default=120,
    help="The longest GPU time that one turn on ZeroGPU requests.",
    old_name="MOST_GPU_SECONDS",
)

VARIABLES: dict[str, Variable[Any]] = {
    each.name: each
    for each in (
        *(MODEL_IDS, DRAFT_MODELS, ALLOW_ANY_MODEL, ENGINE, QUANTIZATION),
        *(REMOTE_MODELS, REMOTE_BASE_URL, REMOTE_API_KEY, REMOTE_SETTINGS),
        *(ZEROGPU_SIZE, MAX_GPU_SECONDS),
    )
}


def handle_command_line(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> None:
    """Handles `--help`, and checks all variables.

    `arguments` are those after the program's name, by default those of this process. Raises `SystemExit` after
    `--help`, and with a sentence for a wrong variable.
    """
    parser = argparse.ArgumentParser(
        prog="python app.py",
        description="Starts Parley, a chat with open language models.",
        epilog="variables of the environment:\n\n" + _help_table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(arguments)
    for variable in VARIABLES.values():
        try:
            variable.read(environ)
        except BadVariable as error:
            raise SystemExit(str(error)) from None


def _help_table() -> str:
    rows = []
    for each in VARIABLES.values():
        text = f"{each.help} Values: {each.values}. Default: {each.default_text}."
        indent = " " * 18
        rows.append(textwrap.fill(text, 100, initial_indent=f"{each.name:18}", subsequent_indent=indent))
    return "\n\n".join(rows)
