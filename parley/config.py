"""The environment variables that the owner of the app can set. Each value is checked when it is read.

`python app.py --help` and docs/settings.md list them. `HF_TOKEN` is not one of them: huggingface_hub reads it.
"""

import argparse
import os
import socket
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from parley.errors import BadVariable
from parley.variable import Variable, address, names, networks, one_of, pairs, path, switch, whole_number

LOG_LEVELS = ("debug", "info", "warning", "error")
ENGINES = ("auto", "openvino", "transformers")
QUANTIZATIONS = ("auto", "none", "int8", "int4")
GPU_SIZES = {"large": 48_000_000_000, "xlarge": 96_000_000_000}  # bytes of memory for a turn on ZeroGPU
# The settings that every server for chat completions supports, and those that only some servers support.
STANDARD_REMOTE_SETTINGS = ("temperature", "top_p", "seed")
HOST_PROXIES = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"  # a Space is reached only through those of its host
EXTRA_REMOTE_SETTINGS = (
    *("top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "dry_multiplier", "dry_base"),
    *("dry_allowed_length", "dynatemp_range", "dynatemp_exponent", "xtc_probability", "xtc_threshold"),
    *("thinking", "reasoning_effort"),
)


def check_key(name: str, text: str) -> str:
    """The key. Raises `BadVariable`, without the key in it, for characters that an HTTP header cannot have."""
    if not all("!" <= character <= "~" for character in text):
        raise BadVariable(f"{name} has characters that no key has. Copy it once more.")
    return text


def _remote_settings(name: str, text: str) -> tuple[str, ...]:
    known = (*STANDARD_REMOTE_SETTINGS, *EXTRA_REMOTE_SETTINGS)
    if unknown := sorted(set(names(name, text)) - set(known)):
        raise BadVariable(f"{name} has {unknown[0]!r}. It may have {', '.join(known)}, a comma between them.")
    return names(name, text)


MODEL_IDS = Variable[tuple[str, ...]](
    name="MODEL_IDS",
    values="names and folders with commas between them",
    check=names,
    default=(),
    help="The models that visitors can choose, the default first: org/name, org/name@revision or org/name/file.gguf "
    "on the Hub, or a folder or GGUF file, also as label=item; if empty, the page offers what suits the hardware.",
)
DRAFT_MODELS = Variable[Mapping[str, str]](
    name="DRAFT_MODELS",
    values="pairs target=draft with commas between them",
    check=pairs,
    default={},
    help="The draft model for each target model; it replaces the draft model of the catalogue.",
)
ALLOW_ANY_MODEL = Variable[bool](
    name="ALLOW_ANY_MODEL",
    values="1 or 0",
    check=switch,
    default=False,
    help="With 1, visitors can use any model on the Hub; it has no effect on a hosted Space.",
)
ENGINE = Variable[str](
    name="ENGINE",
    values=", ".join(ENGINES),
    check=one_of(ENGINES),
    default="auto",
    help="The library that runs the local models on a CPU; auto uses OpenVINO for every model that it supports.",
)
QUANTIZATION = Variable[str](
    name="QUANTIZATION",
    values=", ".join(QUANTIZATIONS),
    check=one_of(QUANTIZATIONS),
    default="auto",
    help="How the weights are stored in memory: none means floats, int8 one byte for each, int4 (on GPUs) half a byte "
    "for each; auto decides by the hardware.",
)
REMOTE_MODELS = Variable[tuple[str, ...]](
    name="REMOTE_MODELS",
    values="names with commas between them",
    check=names,
    default=(),
    help="The models that run on a server for chat completions; they are in the same list, and the server reads what "
    "visitors type.",
)
REMOTE_BASE_URL = Variable[str](
    name="REMOTE_BASE_URL",
    values="an address such as http://127.0.0.1:8000/v1",
    check=address,
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
API_KEY = Variable[str](
    name="API_KEY",
    values="a secret",
    check=check_key,
    default="",
    help="The key that programs have to send to /v1 and /tokenize; if empty, they need none.",
)
GRADIO_MCP_SERVER = Variable[bool](
    name="GRADIO_MCP_SERVER",
    values="1 or 0, also True or False",
    check=lambda name, text: switch(name, {"true": "1", "false": "0"}.get(text.lower(), text)),
    default=False,
    help="With True, agents find the tools chat, compare, models and strategies at /gradio_api/mcp (MCP).",
)
ZEROGPU_SIZE = Variable[str](
    name="ZEROGPU_SIZE",
    values=", ".join(GPU_SIZES),
    check=one_of(tuple(GPU_SIZES), ", or leave it out"),
    default="",
    help="The GPU memory for a turn on ZeroGPU: 48 GB (large, also if empty), or 96 GB at twice the quota (xlarge).",
)
MAX_GPU_SECONDS = Variable[int](
    name="MAX_GPU_SECONDS",
    values="a whole number of seconds",
    check=whole_number(1, " of seconds"),
    default=120,
    help="The longest GPU time that one turn on ZeroGPU requests.",
    old_name="MOST_GPU_SECONDS",
)

ROOT_PATH = Variable[str](
    name="ROOT_PATH",
    values="a path such as /parley",
    check=path,
    default="",
    help="The path under which a proxy serves the app.",
)
METRICS = Variable[bool](
    name="METRICS", values="1 or 0", check=switch, default=True, help="With 0, /metrics is not served."
)
LOG_LEVEL = Variable[str](
    name="LOG_LEVEL",
    values=", ".join(LOG_LEVELS),
    check=one_of(LOG_LEVELS),
    default="info",
    help="What the log holds; info has a line for each turn, without a word of it.",
)
FORWARDED_ALLOW_IPS = Variable[str](  # uvicorn reads it
    name="FORWARDED_ALLOW_IPS",
    values="addresses or networks with commas between them",
    check=networks,
    default="",
    help="The proxies before the app, whose header X-Forwarded-For says at which address a visitor is; on a hosted "
    "Space also those of the host.",
)


def _limit(name: str, default: int, help: str, *, low: int = 1, unit: str = "") -> Variable[int]:
    zero = ", 0 for no limit" if low == 0 else ""
    return Variable(name, f"a whole number{unit}{zero}", whole_number(low, unit), default, help)


# What visitors may take. Each refusal says which limit it is, and when to come back.
TURNS_PER_VISITOR = _limit(
    "TURNS_PER_VISITOR",
    2,
    "How many turns of one visitor (a page, a program or an API key) run at the same time; a comparison is one turn.",
)
WAITING_PER_VISITOR = _limit("WAITING_PER_VISITOR", 4, "How many more turns of one visitor wait for a place.")
TURNS_PER_ADDRESS = _limit(
    "TURNS_PER_ADDRESS",
    200,
    "How many turns of all visitors with one network address run and wait; a school may have one address.",
)
TURNS_PER_MINUTE = _limit("TURNS_PER_MINUTE", 0, "How many turns one visitor may begin within a minute.", low=0)
MAX_TURNS = _limit(
    "MAX_TURNS",
    300,
    "How many turns run at the same time, those on other servers included; a model has a limit of its own too, by its "
    "memory.",
)
MAX_WAITING_TURNS = _limit("MAX_WAITING_TURNS", 1000, "How many turns of all visitors wait for a place.")
MAX_WAIT_SECONDS = _limit(
    "MAX_WAIT_SECONDS", 900, "How long a turn waits for a place before it is refused.", unit=" of seconds"
)
MAX_TURN_SECONDS = _limit(
    "MAX_TURN_SECONDS", 300, "After how long an answer ends, with what there is of it.", unit=" of seconds"
)
MAX_STOP_SECONDS = _limit(
    "MAX_STOP_SECONDS", 2, "How long answers may go on after Ctrl-C or SIGTERM.", unit=" of seconds"
)
MAX_NEW_TOKENS = _limit("MAX_NEW_TOKENS", 4096, "How many tokens an answer may have at most.")
MAX_MESSAGES = _limit("MAX_MESSAGES", 500, "How many messages a conversation may have.")
MAX_REQUEST_BYTES = _limit(
    "MAX_REQUEST_BYTES",
    2_000_000,
    "How large the body of a request may be, with the whole conversation in it.",
    unit=" of bytes",
)
MAX_CACHE_MEGABYTES = _limit(
    "MAX_CACHE_MEGABYTES",
    0,
    "The memory for the keys and values of each local model, at least one context; a quarter of what is free is the "
    "limit anyway.",
    low=0,
    unit=" of megabytes",
)

VARIABLES: dict[str, Variable[Any]] = {
    each.name: each
    for each in (
        *(MODEL_IDS, DRAFT_MODELS, ALLOW_ANY_MODEL, ENGINE, QUANTIZATION),
        *(REMOTE_MODELS, REMOTE_BASE_URL, REMOTE_API_KEY, REMOTE_SETTINGS),
        *(API_KEY, GRADIO_MCP_SERVER, ZEROGPU_SIZE, MAX_GPU_SECONDS),
        *(FORWARDED_ALLOW_IPS, ROOT_PATH, METRICS, LOG_LEVEL),
        *(TURNS_PER_VISITOR, WAITING_PER_VISITOR, TURNS_PER_ADDRESS, TURNS_PER_MINUTE),
        *(MAX_TURNS, MAX_WAITING_TURNS, MAX_WAIT_SECONDS),
        *(MAX_TURN_SECONDS, MAX_STOP_SECONDS, MAX_NEW_TOKENS, MAX_MESSAGES, MAX_REQUEST_BYTES, MAX_CACHE_MEGABYTES),
    )
}


def trusted_proxies(environ: Mapping[str, str] = os.environ) -> str:
    """The proxies whose X-Forwarded-For counts. Without a word from the owner uvicorn would trust this machine's."""
    return FORWARDED_ALLOW_IPS.read(environ) or (HOST_PROXIES if environ.get("SPACE_ID") else "")


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
    _refuse_taken_port(environ)


def _refuse_taken_port(environ: Mapping[str, str]) -> None:
    """Raises `SystemExit` where another program has the port that the owner names. Gradio would take the next one."""
    host, port = environ.get("GRADIO_SERVER_NAME") or "127.0.0.1", environ.get("GRADIO_SERVER_PORT", "")
    if not port.isdecimal():
        return
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")  # else it may mean something else
        try:
            probe.bind((host, int(port)))
        except (OSError, OverflowError) as error:
            reason = f"Port {port} at {host} cannot be used: {error.args[-1]}."
            raise SystemExit(f"{reason} Stop the other program, or set GRADIO_SERVER_PORT to another one.") from None


def _help_table() -> str:
    rows, width = [], 1 + max(map(len, VARIABLES))
    for each in VARIABLES.values():
        text = f"{each.help} Values: {each.values}. Default: {each.default_text}."
        indent = " " * width
        rows.append(textwrap.fill(text, 100, initial_indent=f"{each.name:{width}}", subsequent_indent=indent))
    return "\n\n".join(rows)
