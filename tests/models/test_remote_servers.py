"""What the variables may say of models on other servers."""

import pytest

from parley.errors import ModelUnavailable
from parley.models import registry, remote_servers
from tests.engines.remote.test_engine import environ
from tests.standins.faulty_server import KEY


def test_a_token_alone_switches_nothing_on():
    named = {"HF_TOKEN": "hf_" + "x" * 34, "REMOTE_BASE_URL": "http://x/v1", "REMOTE_API_KEY": "k"}
    assert not remote_servers.models(named)
    assert registry.models(named) == registry.models({})


def test_remote_models_come_first_unless_the_owner_names_others():
    known = environ("http://127.0.0.1:1/v1", " org/a:groq , b,b,")
    assert list(registry.models(known))[:2] == ["org/a:groq", "b"]
    chosen = registry.models(known | {"MODEL_IDS": "parrot,b"})
    assert [(name, row.engine) for name, row in chosen.items()] == [
        ("parrot", "parrot"),
        ("b", "remote"),
        ("org/a:groq", "remote"),
    ]
    same = registry.models(known | {"REMOTE_MODELS": "budgie"})
    assert same["budgie"].engine == "remote" and len(same) == len(registry.models({}))


@pytest.mark.parametrize(
    ("known", "sentence"),
    [
        ({}, "Set REMOTE_BASE_URL to the address of a server, or HF_TOKEN to a token"),
        ({"HF_TOKEN": "sk-other"}, "Set REMOTE_BASE_URL"),
        ({"REMOTE_BASE_URL": "localhost:8000"}, "Write one such as http://127.0.0.1:8000/v1"),
        ({"REMOTE_BASE_URL": "http://"}, "is no address"),
        ({"REMOTE_BASE_URL": "http://x:99999/v1"}, "is no address"),
        ({"REMOTE_BASE_URL": "http://x", "REMOTE_API_KEY": f"{KEY}\u00e9"}, "REMOTE_API_KEY has characters"),
        ({"REMOTE_BASE_URL": "http://x", "REMOTE_API_KEY": f"{KEY}\n{KEY}"}, "Copy it once more"),
        ({"REMOTE_BASE_URL": "http://x", "REMOTE_SETTINGS": "seed,num_beams"}, "REMOTE_SETTINGS has 'num_beams'."),
    ],
)
def test_what_the_variables_cannot_say_is_refused_with_what_they_can(known, sentence):
    with pytest.raises(ModelUnavailable) as refusal:
        registry.models({"REMOTE_MODELS": "m", **known})
    assert sentence in str(refusal.value) and KEY not in str(refusal.value)
