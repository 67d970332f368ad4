"""The variables of the owner: one table, checked at the start and where they are read."""

import ast
import socket
import subprocess
import sys

import pytest

from parley.config import VARIABLES, handle_command_line, trusted_proxies
from parley.errors import BadVariable
from tests.conftest import ROOT

KEY = "sk-secret"
STANDARD = ("temperature", "top_p", "seed")
SECONDS = "The owner of this app has to set it to a whole number of seconds."
ADDRESS = "REMOTE_BASE_URL is no address. Write one such as http://127.0.0.1:8000/v1."
LIMITS = {  # the default and the least
    "TURNS_PER_VISITOR": (2, 1),
    "WAITING_PER_VISITOR": (4, 1),
    "TURNS_PER_ADDRESS": (200, 1),
    "TURNS_PER_MINUTE": (0, 0),
    "MAX_TURNS": (300, 1),
    "MAX_WAITING_TURNS": (1000, 1),
    "MAX_WAIT_SECONDS": (900, 1),
    "MAX_TURN_SECONDS": (300, 1),
    "MAX_STOP_SECONDS": (2, 1),
    "MAX_NEW_TOKENS": (4096, 1),
    "MAX_MESSAGES": (500, 1),
    "MAX_REQUEST_BYTES": (2_000_000, 1),
    "MAX_CACHE_MEGABYTES": (0, 0),
}
UNITS = {"MAX_WAIT_SECONDS": " of seconds", "MAX_TURN_SECONDS": " of seconds", "MAX_REQUEST_BYTES": " of bytes"}
UNITS |= {"MAX_CACHE_MEGABYTES": " of megabytes", "MAX_STOP_SECONDS": " of seconds"}
GOOD = [
    ("MODEL_IDS", "budgie, ./folder,org/name@main,,budgie", ("budgie", "./folder", "org/name@main")),
    ("MODEL_IDS", " , ", ()),
    ("DRAFT_MODELS", "budgie=budgie-draft, org/a = org/b@v1", {"budgie": "budgie-draft", "org/a": "org/b@v1"}),
    ("ALLOW_ANY_MODEL", "1", True),
    ("ALLOW_ANY_MODEL", "0", False),
    ("ENGINE", " openvino ", "openvino"),
    ("ENGINE", "auto", "auto"),
    ("QUANTIZATION", "int4", "int4"),
    ("QUANTIZATION", "none", "none"),
    ("REMOTE_MODELS", "org/a:groq , b,b,", ("org/a:groq", "b")),
    ("REMOTE_BASE_URL", " http://127.0.0.1:8000/v1 ", "http://127.0.0.1:8000/v1"),
    ("REMOTE_BASE_URL", "https://engines.example.org", "https://engines.example.org"),
    ("REMOTE_API_KEY", f" {KEY}\n", KEY),
    ("API_KEY", f" {KEY}\n", KEY),
    ("GRADIO_MCP_SERVER", "True", True),
    ("REMOTE_SETTINGS", "seed, thinking", ("seed", "thinking")),
    ("REMOTE_SETTINGS", "", ()),  # a server that honours none of them
    ("ZEROGPU_SIZE", "xlarge", "xlarge"),
    ("MAX_GPU_SECONDS", " 30 ", 30),
    ("ROOT_PATH", "/a-b/parley/", "/a-b/parley"),
    ("ROOT_PATH", "/", ""),
    ("METRICS", "0", False),
    ("LOG_LEVEL", "debug", "debug"),
    ("FORWARDED_ALLOW_IPS", "127.0.0.1, 10.0.0.0/8,::1", "127.0.0.1,10.0.0.0/8,::1"),
    *((name, " 7 ", 7) for name in LIMITS),
    *((name, "0", 0) for name, (_, low) in LIMITS.items() if not low),
]
DEFAULTS = {
    "MODEL_IDS": (),
    "DRAFT_MODELS": {},
    "ALLOW_ANY_MODEL": False,
    "ENGINE": "auto",
    "QUANTIZATION": "auto",
    "REMOTE_MODELS": (),
    "REMOTE_BASE_URL": "",
    "REMOTE_API_KEY": "",
    "REMOTE_SETTINGS": STANDARD,
    "API_KEY": "",
    "GRADIO_MCP_SERVER": False,
    "ZEROGPU_SIZE": "",
    "MAX_GPU_SECONDS": 120,
    "FORWARDED_ALLOW_IPS": "",
    "ROOT_PATH": "",
    "METRICS": True,
    "LOG_LEVEL": "info",
    **{name: default for name, (default, _) in LIMITS.items()},
}
BAD = [
    ("DRAFT_MODELS", "budgie", "DRAFT_MODELS has the item 'budgie'. Write target=draft, a comma between pairs."),
    ("DRAFT_MODELS", "a=b,=c", "DRAFT_MODELS has the item '=c'. Write target=draft, a comma between pairs."),
    ("ALLOW_ANY_MODEL", "yes", "ALLOW_ANY_MODEL is 'yes'. Set it to 1 or 0."),
    *(
        ("ROOT_PATH", bad, f"ROOT_PATH is {bad!r}. Write a path such as /parley.")
        for bad in ("parley", "http://x/parley", "/a//b", "/a b")
    ),
    ("METRICS", "off", "METRICS is 'off'. Set it to 1 or 0."),
    ("LOG_LEVEL", "chatty", "LOG_LEVEL is 'chatty'. Set it to one of debug, info, warning, error."),
    ("ENGINE", "torch", "ENGINE is 'torch'. Set it to one of auto, openvino, transformers."),
    ("ENGINE", "OpenVINO", "ENGINE is 'OpenVINO'. Set it to one of auto, openvino, transformers."),
    ("QUANTIZATION", "int3", "QUANTIZATION is 'int3'. Set it to one of auto, none, int8, int4."),
    ("REMOTE_BASE_URL", "localhost:8000", ADDRESS),
    ("REMOTE_BASE_URL", "http://", ADDRESS),
    ("REMOTE_BASE_URL", "http://x:99999/v1", ADDRESS),
    ("REMOTE_BASE_URL", "ftp://x/v1", ADDRESS),
    ("REMOTE_API_KEY", f"{KEY}\u00e9", "REMOTE_API_KEY has characters that no key has. Copy it once more."),
    ("REMOTE_API_KEY", f"{KEY} {KEY}", "REMOTE_API_KEY has characters that no key has. Copy it once more."),
    ("API_KEY", f"{KEY} {KEY}", "API_KEY has characters that no key has. Copy it once more."),
    ("GRADIO_MCP_SERVER", "yes", "GRADIO_MCP_SERVER is 'yes'. Set it to 1 or 0."),
    (
        "REMOTE_SETTINGS",
        "seed,num_beams",
        "REMOTE_SETTINGS has 'num_beams'. It may have temperature, top_p, seed, top_k, min_p, repetition_penalty, "
        "presence_penalty, frequency_penalty, dry_multiplier, dry_base, dry_allowed_length, dynatemp_range, "
        "dynatemp_exponent, xtc_probability, xtc_threshold, thinking, reasoning_effort, a comma between them.",
    ),
    ("ZEROGPU_SIZE", "huge", "ZEROGPU_SIZE is 'huge'. Set it to one of large, xlarge, or leave it out."),
    *(("MAX_GPU_SECONDS", bad, f"MAX_GPU_SECONDS is {bad!r}. {SECONDS}") for bad in ("2 min", "0", "-5", "1.5")),
    *(
        (name, bad, f"{name} is {bad!r}. The owner of this app has to set it to a whole number{UNITS.get(name, '')}.")
        for name, (_, low) in LIMITS.items()
        for bad in ("many", "-1", "1.5", "9" * 20, *["0"] * low)
    ),
    *(
        (
            "FORWARDED_ALLOW_IPS",
            bad,
            f"FORWARDED_ALLOW_IPS has {bad!r}. Write addresses or networks such as 10.0.0.0/8.",
        )
        for bad in ("*", "proxy.example.org", "10.0.0.1/8")
    ),
    ("MOST_GPU_SECONDS", "30", "MOST_GPU_SECONDS is now called MAX_GPU_SECONDS. Rename the variable."),
]
# What only the registry of models can tell of a value, so that it is said a little later in the start.
BAD_NAMES = [
    (
        {"MODEL_IDS": "./nowhere"},
        "MODEL_IDS: nowhere is not on the disk any more, or never was. Put it back, or correct its path.",
    ),
    (
        {"MODEL_IDS": "budgie,a/b/c"},
        "'a/b/c' is not the name of a model. Write org/name, org/name@revision or org/name/file.gguf, as on the Hub.",
    ),
    (
        {"MODEL_IDS": "budgie", "DRAFT_MODELS": "org/not-offered=./nowhere"},
        "DRAFT_MODELS: nowhere is not on the disk any more, or never was. Put it back, or correct its path.",
    ),
    (
        {"REMOTE_MODELS": "m", "REMOTE_BASE_URL": "", "HF_TOKEN": ""},
        "REMOTE_MODELS names models, but not where they are. Set REMOTE_BASE_URL to the address of a server, or "
        "HF_TOKEN to a token that may call Inference Providers.",
    ),
]


def start(*arguments, **environ):
    """`python app.py` with these variables, which ends by itself."""
    clean = {"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "app.py", *arguments]
    return subprocess.run(command, cwd=ROOT, env=clean | environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_a_good_value_is_read(name, text, value):
    assert VARIABLES[name].read({name: text}) == value
    handle_command_line([], {name: text})


@pytest.mark.parametrize("name", VARIABLES)
def test_what_is_not_set_or_empty_has_its_default(name):
    assert VARIABLES[name].read({}) == VARIABLES[name].default == DEFAULTS[name]
    if name != "REMOTE_SETTINGS":
        assert VARIABLES[name].read({name: " "}) == DEFAULTS[name]


@pytest.mark.parametrize(("name", "text", "sentence"), BAD)
def test_a_bad_value_is_said_in_one_sentence_at_the_start_and_where_it_is_read(name, text, sentence):
    variable = VARIABLES[name.replace("MOST_", "MAX_")]
    with pytest.raises(BadVariable) as refusal:
        variable.read({name: text})
    assert str(refusal.value) == sentence
    with pytest.raises(SystemExit) as end:
        handle_command_line([], {name: text})
    assert end.value.code == sentence and KEY not in sentence


def test_every_variable_is_tried_and_has_one_sentence_of_help():
    assert {name for name, _, _ in GOOD} == set(VARIABLES) == set(DEFAULTS)
    # Whether a name of a model is good is for the registry to say.
    assert set(VARIABLES) - {name for name, _, _ in BAD} == {"MODEL_IDS", "REMOTE_MODELS"}
    for variable in VARIABLES.values():
        assert variable.values and variable.help.endswith(".") and ". " not in variable.help


def test_a_bad_value_ends_the_program_with_its_sentence_before_anything_slow():
    ended = start(ENGINE="torch")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "ENGINE is 'torch'. Set it to one of auto, openvino, transformers.\n"


@pytest.mark.parametrize(("environ", "sentence"), BAD_NAMES, ids=lambda value: "-".join(value)[:40])
def test_a_name_that_no_model_has_ends_the_start_too(environ, sentence, monkeypatch):
    from parley.serving import preload

    with pytest.raises(SystemExit) as end:
        preload.models_at_startup(environ)
    assert end.value.code == sentence


@pytest.mark.slow
def test_the_program_ends_without_a_traceback_where_no_model_has_a_name():
    environ, sentence = BAD_NAMES[0]
    ended = start(**environ)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == sentence and "Traceback" not in ended.stderr


def test_help_prints_every_variable_and_imports_nothing_slow():
    told = start("--help", PYTHONPROFILEIMPORTTIME="1")
    assert told.returncode == 0
    for name, variable in VARIABLES.items():
        shown = told.stdout[told.stdout.index(f"\n{name} ") :].split("\n\n")[0]
        assert f"{variable.help} Values: {variable.values}." in " ".join(shown.split())
    imported = {line.rpartition("|")[2].strip() for line in told.stderr.splitlines()}
    assert "parley.config" in imported
    assert not imported & {"gradio", "spaces", "torch", "transformers", "huggingface_hub", "pydantic"}


def test_an_unknown_argument_ends_the_program_with_the_usage():
    ended = start("--hepl")
    assert ended.returncode == 2 and "unrecognized arguments: --hepl" in ended.stderr


def test_a_proxy_is_trusted_where_the_owner_or_the_host_says_so():
    assert trusted_proxies({}) == ""
    assert trusted_proxies({"SPACE_ID": "org/space"}).startswith("10.0.0.0/8,")
    assert trusted_proxies({"SPACE_ID": "org/space", "FORWARDED_ALLOW_IPS": "192.0.2.7"}) == "192.0.2.7"


def test_no_other_module_reads_a_variable_of_the_owner():
    """The others may read what the platform and the libraries set."""
    read = set()
    for path in (ROOT / "parley").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            looked_up = node.args[:1] if isinstance(node, ast.Call) else []
            looked_up = [node.slice] if isinstance(node, ast.Subscript) else looked_up
            where = ast.unparse(node.func if isinstance(node, ast.Call) else node.value) if looked_up else ""
            if "environ" in where or "getenv" in where:
                read |= {(path.name, each.value) for each in looked_up if isinstance(each, ast.Constant)}
    others = {"SPACES_ZERO_GPU", "SPACE_ID", "OMP_PROC_BIND", "HF_TOKEN", "HF_HUB_DISABLE_PROGRESS_BARS"}
    others |= {"GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT"}
    assert {name for _, name in read} == others


def test_a_port_that_another_program_has_is_refused_in_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        ended = start(GRADIO_SERVER_PORT=port)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert f"Port {port} at 127.0.0.1 cannot be used: " in ended.stderr
    assert ended.stderr.endswith("set GRADIO_SERVER_PORT to another one.\n")
