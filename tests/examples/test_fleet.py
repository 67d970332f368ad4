"""Past one machine: two real `transformers serve` behind a real balancer, asked by the engine, by programs and by a
visitor of `python app.py`; one is killed in the middle of an answer.
"""

import contextlib
import io
import itertools
import json
import re
import subprocess
import sys
import threading

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from playwright.sync_api import expect

from examples.fleet import sizing
from examples.fleet.pair import Pair
from parley.engines.base import TurnRequest
from parley.engines.remote.engine import RemoteEngine
from parley.events import Answer
from parley.messages import build_messages
from parley.models import load_plan, registry
from parley.models.remote_servers import find
from parley.settings import Settings
from parley.ui.client_snippets import client_program
from tests.browser import Visitor
from tests.conftest import ROOT, Space, lacking, save_endless, until
from tests.standins.faulty_server import KEY

pytest_plugins = ["tests.browser"]
servers = pytest.mark.slow  # two servers, a balancer and the app, each a process

BUDGIE = "parley/budgie/weights"
QWEN = ROOT / "examples" / "fleet" / "qwen3-8b.json"
WORDS = re.compile(r"\w{2,} \w{2,}")


@pytest.fixture(scope="module")
def pair():
    try:
        running = Pair()
    except SystemExit as missing:
        lacking(str(missing))
    yield running
    running.close()


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    return str(save_endless(tmp_path_factory.mktemp("served") / "endless"))


@pytest.fixture(scope="module")
def known(pair, endless):
    names = {"REMOTE_MODELS": f"{BUDGIE},{endless}", "REMOTE_BASE_URL": pair.url, "REMOTE_API_KEY": KEY}
    return names | {"REMOTE_SETTINGS": "temperature,top_p,seed,thinking"}


@pytest.fixture(scope="module")
def fleet(known):
    """`python app.py` with both models on the other side of the balancer."""
    running = Space(MODEL_IDS="parrot", **known)
    yield running
    running.close()


def ask(known, text, model=BUDGIE, cancel=None, **values):
    settings = Settings.check({"model": model, "top_k": 0, "max_new_tokens": 80} | values)
    engine = RemoteEngine(registry.find(model, known), find(known))
    return engine.stream(TurnRequest.of(build_messages([], text), settings, cancel or threading.Event()))


def answer(known, text, **values):
    return sum(ask(known, text, **values), Answer())


def local(budgie, text, **values):
    settings = Settings.check({"max_new_tokens": 80} | values)
    return sum(budgie.stream(TurnRequest.of(build_messages([], text), settings, threading.Event())), Answer())


@servers
@pytest.mark.parametrize(
    ("text", "values"),
    [("Hello, who are you?", {}), ("What is 3 plus 4?", {"thinking": True}), ("Tell me a story.", {"stop": "and"})],
)
def test_a_server_gives_the_text_and_the_thought_that_the_same_weights_give_here(known, budgie, text, values):
    there = answer(known, text, strategy="greedy", **values)
    here = local(budgie, text, strategy="greedy", **values)
    assert (there.text.rstrip(), there.thought, there.finish) == (here.text.rstrip(), here.thought, here.finish)
    assert there.text
    if there.finish == "end":
        assert (there.usage.prompt_tokens, there.usage.new_tokens) == (here.usage.prompt_tokens, here.usage.new_tokens)


@servers
def test_a_seed_gives_the_same_text_again(known):
    first, second, other = (answer(known, "Tell me a story.", seed=seed).text for seed in (5, 5, 6))
    assert first == second != other


@servers
def test_stop_reaches_the_server(known, endless, pair):
    cancel, made = threading.Event(), Answer()
    for delta in ask(known, "Hello", endless, cancel, max_new_tokens=4000):
        made += delta
        if WORDS.search(made.text):
            cancel.set()
    assert made.finish == "stopped" and made.usage.new_tokens < 4000
    until(lambda: not pair.busy())


@servers
def test_the_programs_under_an_answer_print_its_text(known, fleet, monkeypatch):
    made = answer(known, "What is 3 plus 4?", strategy="greedy", thinking=True)
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    for program in (made.run_record.program, client_program(fleet.url, made.run_record)):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(program, {})
        assert printed.getvalue().strip() == made.text.strip() != ""


@servers
def test_the_api_streams_a_remote_answer(fleet):
    job = Client(fleet.url, verbose=False).submit("Tell me a story about an owl.", model=BUDGIE, api_name="/chat")
    pieces = [piece for piece in job if piece]
    assert len(pieces) > 2
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(pieces))


@pytest.fixture
def tab(chromium, fleet):
    visitor = Visitor(chromium, fleet.url)
    yield visitor
    visitor.close()
    assert visitor.faults == []


@servers
def test_a_visitor_chooses_a_remote_model_sees_it_stream_and_stops_it(tab, endless, pair):
    tab.choose("model", endless)
    expect(tab.setting("model")).to_contain_text("Runs on another server, which reads what you type.")
    expect(tab.setting("strategy")).to_contain_text("Not with this model: Top-k, Min-p")
    expect(tab.setting("temperature")).to_be_visible()
    expect(tab.setting("top_k")).to_be_hidden()
    tab.limit(4000)
    tab.send("Hello")
    expect(tab.answer).to_have_text(WORDS)
    tab.stop_button.click()
    tab.until_free()
    expect(tab.quiet).to_have_text(re.compile(r"\d+ chunks · .* · stopped"))
    until(lambda: not pair.busy())
    tab.choose("model", BUDGIE)
    tab.ask("Hello, who are you?")
    expect(tab.quiet).to_have_text(re.compile(r"· \d+ tokens · "))
    tab.quiet.click()
    for part, holds in (("Request", '"max_tokens": 4000'), ("huggingface_hub", "from huggingface_hub import")):
        tab.folded.last.get_by_role("link", name=part, exact=True).click()
        expect(tab.folded.last).to_contain_text(holds)
    expect(tab.folded.last).not_to_contain_text(KEY)


@servers
def test_when_an_engine_is_killed_the_reader_keeps_the_text_and_the_other_goes_on(tab, endless, pair, fleet, known):
    tab.choose("model", endless)
    tab.limit(4000)
    tab.send("Tell me a story.")
    expect(tab.answer).to_have_text(WORDS)
    (busy,) = pair.busy()
    pair.kill(busy)
    expect(tab.error).to_have_count(1)
    expect(tab.folded.last).to_contain_text("broke off in the middle of the answer. Press Retry.")
    assert WORDS.search(tab.answer.inner_text())
    tab.press("Retry")
    expect(tab.error).to_have_count(0)
    expect(tab.answer).to_have_text(WORDS)
    assert pair.busy() and busy not in pair.busy()
    tab.stop_button.click()
    tab.until_free()
    assert answer(known, "Hello", strategy="greedy").finish == "end"
    until(lambda: busy not in pair.alive())


@servers
def test_when_no_engine_is_left_a_sentence_says_so_and_neither_log_nor_page_holds_the_key(pair, fleet, known):
    for name in pair.alive():
        pair.kill(name)
    client = Client(fleet.url, verbose=False)
    with pytest.raises(AppError, match=r"The server of parley/budgie/weights is starting or overloaded\. Press Retry"):
        client.predict("Hello", model=BUDGIE, api_name="/chat")
    assert client.predict("still here", model="parrot", messages=[], api_name="/chat") == "still here"
    log = fleet.output()
    assert f"{BUDGIE}: HfHubHTTPError" in log and "Traceback" not in log
    assert KEY not in log + json.dumps(client.config) + str(client.predict(api_name="/models"))


# The arithmetic


def read(path):
    return json.loads(path.read_text())


def test_the_arithmetic_knows_real_models(torch_budgie):
    ours = sizing.read_model(read(ROOT / BUDGIE / "config.json"))
    assert ours.parameters == pytest.approx(torch_budgie.loaded.model.num_parameters(), rel=0.002)
    theirs, listed = sizing.read_model(read(QWEN)), registry.find("Qwen/Qwen3-8B", {"MODEL_IDS": "Qwen/Qwen3-8B"})
    assert theirs.parameters == pytest.approx(listed.parameters, rel=0.001)
    for path in (QWEN, ROOT / BUDGIE / "config.json"):
        assert 1000 * sizing.read_model(read(path), width=4).kv_bytes == load_plan.kv_bytes(read(path), 4)


def sized(*arguments):
    program = [sys.executable, "examples/fleet/sizing.py", *map(str, arguments)]
    return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


def test_the_readme_of_the_fleet_shows_what_its_command_prints():
    text = (ROOT / "examples" / "fleet" / "README.md").read_text()
    shown = r"```bash\npython (examples/fleet/sizing\.py .*)\n```\n\n```text\n(.*?)```"
    command, printed = re.search(shown, text, re.DOTALL).groups()
    assert sized(*command.split()[1:]).stdout == printed


def test_more_cards_hold_more_and_what_does_not_fit_is_said():
    model, card, load = sizing.read_model(read(QWEN)), sizing.Card(24e9, 1000e9, 165e12), sizing.Load(4000, 20, 0.1)
    reports = [sizing.report(model, card, load, *cards) for cards in ((1, 1), (2, 1), (1, 2), (2, 2))]
    people = [int(re.search(r"= ([\d,]+), of whom", each)[1].replace(",", "")) for each in reports]
    assert people[0] < people[2] < people[1] < people[3]
    assert sized(QWEN, "--memory", 16).stderr == (
        "A card of 16 GB cannot hold its 16.4 GB of the weights. Raise --tensor.\n"
    )


def test_a_mixture_of_experts_is_not_reckoned_with_the_wrong_arithmetic(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(read(QWEN) | {"num_experts": 128}))
    assert "mixture of experts" in sized(file).stderr
    file.write_text("{}")
    assert "has no 'hidden_size'" in sized(file).stderr
