"""Loading from a stand-in for the Hub: what is downloaded, what is said of each fault, and what is mended."""

import re
import shutil
import subprocess

import pytest
import torch

from parley.models.load_plan import OPENVINO_MARGIN, openvino_bytes
from tests.standins import gguf_files
from tests.standins.hub import TOKEN, WEIGHTS, HubStandIn, Loader, change_weights, edit, save_tiny_model

pytestmark = pytest.mark.slow  # each load is one of a process of its own


@pytest.fixture(scope="module")
def hub():
    standin = HubStandIn()
    yield standin
    standin.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def loader(hub, home):
    process = Loader(home, hub.url)
    yield process
    process.close()


@pytest.fixture(scope="module", autouse=True)  # it imports torch while the others are tested
def offline(hub, home):
    process = Loader(home, hub.url, HF_HUB_OFFLINE="1", LOADER_IMPORTS="parley.engines.local_engine")
    yield process
    process.close()


def test_a_model_of_the_hub_is_downloaded_once_and_only_the_files_it_needs(hub, loader, folder):
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "onnx").mkdir()
    for extra in (
        "README.md",
        "evil.py",
        "onnx/model.safetensors",
        "model.fp16.safetensors",
        "consolidated.safetensors",
    ):
        (folder / extra).write_bytes(b"x" * 10)
    repo = hub.add("org/once", folder)
    first, second = loader.load("org/once"), loader.load("org/once")
    assert first["loaded"]["weights"] > 400_000
    assert second == first
    fetched = sorted(name for method, name, _ in repo.requests if method == "GET")
    assert fetched == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        WEIGHTS,
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_the_token_goes_to_the_hub_alone_and_into_no_sentence(hub, loader, tiny):
    repo = hub.add("org/private", tiny, private=True)
    assert "loaded" in loader.load("org/private")
    assert "Authorization" not in repo.downloads()[0]  # the weights come from another host
    hub.add("org/forbidden", tiny, status=403)
    hub.add("org/bad-token", tiny, status=401)
    for id in ("org/forbidden", "org/bad-token", "org/nothing"):
        assert TOKEN not in loader.load(id)["text"]


def test_a_pinned_revision_is_the_one_that_is_loaded(hub, loader, tiny, tmp_path):
    repo = hub.add("org/pinned", tiny)
    repo.revisions["v2"] = save_tiny_model(tmp_path / "v2", max_position_embeddings=300)
    by_commit = loader.load("org/pinned", revision=repo.commit("v2"))
    assert loader.load("org/pinned", revision="v2")["loaded"]["context"] == by_commit["loaded"]["context"] == 300
    assert loader.load("org/pinned")["loaded"]["context"] == 512


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (
            {"gated": True},
            "is gated: accept its terms at https://huggingface.co/org/faulty and set the secret HF_TOKEN",
        ),
        ({"status": 403}, "Check that HF_TOKEN is valid"),
        ({"status": 429}, "Try again in a few minutes"),
        ({"status": 503}, "The Hub fails with error 503. Try again in a few minutes"),
    ],
    ids=["gated", "forbidden", "rate limit", "hub down"],
)
def test_what_the_hub_refuses_is_said_in_one_sentence(hub, loader, tiny, fault, sentence):
    hub.add("org/faulty", tiny, **fault)
    told = loader.load("org/faulty")
    assert told["error"] == "ModelUnavailable"
    assert sentence in told["text"]


def test_a_model_or_revision_that_does_not_exist_is_named(hub, loader, tiny):
    hub.add("org/there", tiny)
    assert "There is no model org/not-there on the Hub" in loader.load("org/not-there")["text"]
    assert "org/there has no revision 'v9'" in loader.load("org/there", revision="v9")["text"]


def test_a_model_too_large_is_refused_before_its_weights_are_downloaded(hub, loader, tiny):
    repo = hub.add("org/large", tiny)
    no_disk, no_memory = loader.load("org/large", disk=9_000), loader.load("org/large", memory=5_000)
    small = sum(path.stat().st_size for path in tiny.iterdir() if path.name != WEIGHTS)
    assert f"is a download of {small / 1e3:.0f} kB" in no_disk["text"]
    assert "9 kB of disk are free" in no_disk["text"]
    assert re.search(r"needs about \d\d MB of memory, and 5 kB are free", no_memory["text"])
    weights = (tiny / WEIGHTS).stat().st_size
    told = loader.load("org/large", disk=weights - 1)["text"]
    assert f"is a download of {weights / 1e3:.0f} kB" in told
    assert repo.downloads() == []


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        (WEIGHTS, lambda data: data[::-1]),
        (WEIGHTS, lambda data: data[:-9000] + b"\xff" * 9000),  # opens well, and holds NaN
        ("config.json", lambda data: b" " * len(data)),
        ("tokenizer.json", lambda data: data[::-1]),
    ],
    ids=["weights", "numbers", "configuration", "tokenizer"],
)
def test_a_file_that_arrived_damaged_is_thrown_away_and_fetched_once_more(hub, loader, tiny, file, damage):
    id = f"org/damaged-{hash((file, damage(b'01'))) % 10**8}"
    repo = hub.add(id, tiny, faulty=file, damage=damage, damaged=1)
    assert "loaded" in loader.load(id)
    assert len(repo.downloads(file)) == 2
    assert len(repo.downloads("generation_config.json")) == 1  # the sound ones are kept


def test_a_file_that_arrives_damaged_twice_is_given_up(hub, loader, tiny):
    repo = hub.add("org/spoilt", tiny, damage=lambda data: data[::-1], damaged=9)
    assert "model.safetensors of org/spoilt was damaged after two downloads" in loader.load("org/spoilt")["text"]
    assert len(repo.downloads()) == 2
    repo.damaged = 0
    assert "loaded" in loader.load("org/spoilt")  # nothing damaged was left in the cache


def test_what_the_hub_refuses_while_a_damaged_file_is_looked_for_is_said_in_one_sentence(hub, loader, tiny):
    repo = hub.add("org/closed", tiny, damaged=1)
    repo.damage = lambda data: setattr(repo, "status", 403) or data[::-1]
    assert "The Hub does not let this app read org/closed." in loader.load("org/closed")["text"]


def test_a_model_that_is_spoilt_on_the_hub_itself_is_not_downloaded_twice(hub, loader, folder):
    change_weights(folder, lambda t: t["model.norm.weight"].fill_(float("nan")))
    repo = hub.add("org/nan", folder)
    assert "not finite" in loader.load("org/nan")["text"]
    assert len(repo.downloads()) == 1


def test_progress_is_reported_and_a_stop_ends_a_download_that_hangs(hub, loader, tmp_path):
    big = save_tiny_model(tmp_path / "big", hidden_size=256, intermediate_size=4096)
    size = (big / WEIGHTS).stat().st_size
    repo = hub.add("org/big", big, hold_after=12_000_000)
    loader.start("org/big")
    reports = []
    while not reports or not reports[-1].startswith("Downloading org/big: 3"):  # 10 MB, the first piece
        reports.append(loader.next()["report"])
    assert reports[-1].endswith(f" % of {size / 1e6:.0f} MB")
    loader.say({"cancel": True})  # the server is silent still
    while "report" in (told := loader.next()):
        pass
    assert told == {"error": "LoadingStopped", "text": "Loading org/big was stopped. Send the message again to go on."}
    repo.hold_after = None
    repo.released.set()
    assert "loaded" in loader.load("org/big")


def test_a_broken_connection_is_taken_up_again(hub, loader, tiny):
    repo = hub.add("org/cut", tiny, cut=1)
    assert "loaded" in loader.load("org/cut")
    assert len(repo.downloads()) == 2


def test_a_connection_that_always_breaks_is_refused_with_a_sentence(hub, loader, tiny):
    hub.add("org/always-cut", tiny, cut=99)
    assert "The download of org/always-cut broke off. Try again" in loader.load("org/always-cut")["text"]


def test_traits_are_read_from_the_hub_without_loading(hub, loader, folder):
    edit(folder / "generation_config.json", do_sample=False, top_p=0.5)
    repo = hub.add("org/traits", folder)
    told = loader.load("org/traits", op="traits")["loaded"]
    assert told == {"recommended": {"strategy": "greedy", "top_p": 0.5}, "thinking": True, "context": 512}
    assert repo.downloads() == []
    assert loader.load("org/nowhere", op="traits")["loaded"] == {"recommended": {}, "thinking": False, "context": None}


def test_whether_a_model_fits_is_known_before_anything_of_it_is_downloaded(hub, loader, tiny):
    repo = hub.add("org/large", tiny)
    plenty, scarce = (loader.load("org/large", op="outlook", memory=free)["loaded"] for free in (10**9, 1000))
    assert plenty["fits"] and not scarce["fits"]
    size = (tiny / WEIGHTS).stat().st_size
    keys_and_values = plenty["per_1000_tokens"] * 512 / 1000  # of the least pool, for one context window
    assert plenty["needed"] == pytest.approx(OPENVINO_MARGIN * openvino_bytes(size, 2) + keys_and_values, rel=0.05)
    assert repo.downloads() == []
    assert loader.load("org/nowhere", op="outlook", memory=1)["loaded"] is None


def test_when_the_hub_is_down_what_is_in_the_cache_still_answers(hub, loader, tiny):
    repo = hub.add("org/kept", tiny)
    first = loader.load("org/kept")
    repo.status = 503
    assert loader.load("org/kept") == first


def test_offline_what_is_in_the_cache_answers_and_the_rest_is_said_to_be_out_of_reach(hub, loader, offline, tiny):
    hub.add("org/cached", tiny)
    hub.add("org/half", tiny)
    online = loader.load("org/cached")
    loader.load("org/half", memory=1)  # its small files only
    assert offline.load("org/cached") == online
    assert offline.load("org/cached", op="traits")["loaded"]["context"] == 512
    for id in ("org/half", "org/never"):
        assert f"The Hub cannot be reached, and {id} is not whole on this machine" in offline.load(id)["text"]


def test_an_address_where_nobody_answers_is_offline(tmp_path):
    unreachable = Loader(tmp_path, "http://127.0.0.1:9")
    assert "The Hub cannot be reached" in unreachable.load("org/any", op="fetch")["text"]
    assert unreachable.load("org/any", op="traits")["loaded"]["context"] is None
    unreachable.close()


def test_a_disk_that_fills_up_is_refused_with_a_sentence_and_nothing_broken_stays(hub, tiny, tmp_path):
    mounted = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=200k tiny "$HF_HOME" && exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("only root, or who may make user namespaces, can make a small disk")
    hub.add("org/fills", tiny)
    small_disk = Loader(tmp_path, hub.url, prefix=mounted)
    honest = small_disk.load("org/fills", op="fetch")
    assert "of disk are free. Choose a smaller model, or make room" in honest["text"]
    full = small_disk.load("org/fills", op="fetch", disk=10**12)
    assert "The disk became full while org/fills was downloaded" in full["text"]
    small_disk.close()


def test_a_gguf_file_of_the_hub_is_downloaded_alone_and_answers(hub, loader, tiny, tmp_path):
    gguf_files.write(tiny, tmp_path / "tiny-Q8_0.gguf", "Q8_0")
    (tmp_path / "tiny-Q4_0.gguf").write_bytes(b"another")
    repo = hub.add("org/ggufs", tmp_path)
    first, second = (loader.load("org/ggufs", gguf="tiny-Q8_0.gguf") for _ in range(2))
    assert first["loaded"]["context"] == 512
    assert second == first
    assert {name for method, name, _ in repo.requests if method == "GET"} == {"tiny-Q8_0.gguf"}
    assert "org/ggufs has no file none.gguf" in loader.load("org/ggufs", gguf="none.gguf")["text"]
