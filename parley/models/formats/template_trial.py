"""Tries a stranger's chat template in a child process that has little time and memory, before this process renders it.

This file is also the program of the child. A template may loop for ever or write gigabytes; then only the child ends.
"""

import functools
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_SECONDS = 5  # of computing; a template takes milliseconds
MAX_MEGABYTES = 256
MAX_CHARACTERS = 1_000_000  # of a rendered conversation
MAX_WAIT_SECONDS = 120.0  # on a machine that is busy with other things
_TIME, _MEMORY, _LENGTH = f"{MAX_SECONDS} s", f"{MAX_MEGABYTES} MB of memory", f"{MAX_CHARACTERS:,} characters"
_OUTCOMES = {0: "", 3: _MEMORY, 4: _LENGTH}  # by the status with which the child ends

_ASK = {"role": "user", "content": "Hello"}
_SAID = {"role": "assistant", "content": "Hello! How are you?"}
_AS_PARTS = {"role": "user", "content": [{"type": "text", "text": "Hello"}]}
_TOOL = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}
CONVERSATIONS: tuple[list[dict[str, Any]], ...] = (
    [_ASK],
    [_AS_PARTS],
    [{"role": "system", "content": "Be brief."}, _ASK],
    [_ASK, _SAID, _ASK],
    [_ASK, _SAID] * 8 + [_ASK],
)
VARIABLES: tuple[dict[str, Any], ...] = ({}, {"enable_thinking": True}, {"enable_thinking": False}, {"tools": [_TOOL]})


@functools.lru_cache(maxsize=64)
def excess(template: str, special_tokens: str) -> str:
    """What rendering this template takes too much of, such as "5 s"; empty where it takes little of everything.

    `special_tokens` is a JSON object. A template that raises is no excess: who renders it hears of that.
    """
    asked = json.dumps({"template": template, "special_tokens": json.loads(special_tokens)})
    child = [sys.executable, "-P", str(Path(__file__).resolve())]
    try:
        status = subprocess.run(
            child, input=asked, text=True, capture_output=True, timeout=MAX_WAIT_SECONDS, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return _TIME
    return _OUTCOMES.get(status, _TIME if status == _ended_by_limit() else _MEMORY)


def _ended_by_limit() -> int | None:
    """The status of a child that has used up its time."""
    import signal

    return -signal.SIGXCPU if hasattr(signal, "SIGXCPU") else None


def _limit() -> None:
    """Limits the time and the memory of this process from now on, where the system knows such limits."""
    try:
        import resource
    except ImportError:  # Windows: the parent's patience is the limit
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + MAX_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    if Path("/proc/self/statm").exists():
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = taken + MAX_MEGABYTES * 10**6
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _rendered(template: str, special_tokens: Mapping[str, Any]) -> int:
    """The status for the parent, after all conversations were rendered."""
    from transformers.utils.chat_template_utils import render_jinja_template

    _limit()
    for messages in CONVERSATIONS:
        for variables in VARIABLES:
            options = {**special_tokens, **variables}
            for begins_answer in (True, False):
                try:
                    [text], _ = render_jinja_template(
                        [messages], chat_template=template, add_generation_prompt=begins_answer, **options
                    )
                except MemoryError:
                    return 3
                except Exception:  # a stranger's template can raise anything
                    continue
                if len(text) > MAX_CHARACTERS:
                    return 4
    return 0


if __name__ == "__main__":
    told = json.load(sys.stdin)
    sys.exit(_rendered(told["template"], told["special_tokens"]))
