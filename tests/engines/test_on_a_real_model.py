"""A real chat model, SmolLM2-135M-Instruct, with every strategy and both engines of a CPU."""

import contextlib
import copy
import functools
import io
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("openvino")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from parley.errors import BadSetting
from parley.generation.prefix_cache import common_prefix
from parley.messages import Message, build_messages
from parley.models.spec import ModelSpec
from parley.settings import Settings
from parley.strategies import STRATEGIES
from tests.conftest import engine
from tests.engines.openvino.asking import answer
from tests.strategies.loops import SAMPLING, WATERMARKS

TIE = 1e-4  # of two logits: as close as this, rounding may choose
ENGINES = ["transformers", "floats"]
CAPITAL = [Message("user", "What is the capital of France? Answer in one word.")]
STORY = [Message("user", "Write a sentence about a lantern and the sea.")]
CHOSEN = {"force_words": "lantern", "exit_layer": 12, "watermark_key": 11}


class Programs:
    """Runs printed programs with stock transformers; loads the weights once."""

    def __init__(self, folder):
        self.folder, self.loaded = str(folder), functools.cache(AutoModelForCausalLM.from_pretrained)

    def load(self, *names, **options):
        """Gives a model of its own, with its own settings, over weights that all share."""
        return copy.copy(self.loaded(*names, **options))

    def run(self, program, monkeypatch):
        printed = io.StringIO()
        monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", self.load)
        with contextlib.redirect_stdout(printed):
            exec(program.replace("'smollm2'", repr(self.folder)), {})
        return printed.getvalue().strip()

    @functools.cached_property
    def stock(self):
        return self.load(self.folder, dtype=torch.float32), AutoTokenizer.from_pretrained(self.folder)

    def gap(self, prompt, text):
        """How far the two best logits lie apart after this text."""
        model, tokenizer = self.stock
        ids = tokenizer(prompt + text, return_tensors="pt", add_special_tokens=False).input_ids
        with torch.inference_mode():
            best, second = model(ids).logits[0, -1].topk(2).values.tolist()
        return best - second

    def agree(self, made, monkeypatch):
        """Whether the program prints the answer, or leaves it where the two best tokens are as good as equal."""
        printed, text = self.run(made.run_record.program, monkeypatch), made.text.strip()
        if printed == text:
            return True
        common = next(i for i, (a, b) in enumerate(zip(printed + "\0", text + "\0", strict=False)) if a != b)
        return self.gap(made.run_record.prompt, text[:common].rstrip()) < TIE


@pytest.fixture(scope="module")
def programs(real_model):
    return Programs(real_model)


@pytest.fixture(scope="module")
def load(real_model):
    """Gives the engine of that name, loaded once."""
    floats = {"QUANTIZATION": "none"}
    options = {"transformers": {"ENGINE": "transformers", **floats}, "floats": floats, "int8": {}}

    def loaded(name):
        return engine(ModelSpec("smollm2", str(real_model), "SmolLM2"), **options[name])

    return functools.cache(loaded)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_in_floats_every_strategy_gives_the_text_of_its_program(strategy, name, load, programs, monkeypatch):
    real = load(name)
    chosen = {key: value for key, value in CHOSEN.items() if key in STRATEGIES[strategy].uses}
    made = answer(real, STORY, strategy=strategy, helper=real, max_new_tokens=12, **chosen)
    assert made.run_record.config["engine"] == f"{'PyTorch' if name == 'transformers' else 'OpenVINO'} float32"
    assert len(made.text.split()) > 3 and programs.agree(made, monkeypatch)


def test_in_floats_every_strategy_of_pytorch_answers_in_company_as_alone(load, programs):
    real = load("transformers")

    def ask(strategy):
        number = list(STRATEGIES).index(strategy)
        question = [Message("user", "Be brief. " * (number % 4) + STORY[0].content + f" Name {number + 2} birds.")]
        chosen = {key: value for key, value in CHOSEN.items() if key in STRATEGIES[strategy].uses}
        return answer(real, question, strategy=strategy, helper=real, max_new_tokens=6, **chosen)

    alone = [ask(strategy) for strategy in STRATEGIES]
    before = real.scheduler.num_shared
    with ThreadPoolExecutor(len(STRATEGIES)) as threads:
        together = list(threads.map(ask, STRATEGIES))
    assert real.scheduler.num_shared > before
    for one, other in zip(alone, together, strict=True):
        if one.text != other.text:
            common = common_prefix(one.text, other.text)
            assert programs.gap(one.run_record.prompt, one.text[:common].rstrip()) < TIE


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_in_int8_every_strategy_answers_in_words(strategy, load):
    real = load("int8")
    chosen = {key: value for key, value in CHOSEN.items() if key in STRATEGIES[strategy].uses}
    made = answer(real, STORY, strategy=strategy, helper=real, max_new_tokens=12, **chosen)
    assert made.run_record.config["engine"] == "OpenVINO int8"
    assert len(set(made.text.split())) > 3 and not made.thought


@pytest.mark.parametrize("name", [*ENGINES, "int8"])
@pytest.mark.parametrize("strategy", SAMPLING)
def test_a_seed_is_a_text(strategy, name, load):
    real = load(name)
    values = {"strategy": strategy, "helper": real, "temperature": 1.2, "max_new_tokens": 16}
    said = [answer(real, STORY, seed=seed, **values).text for seed in (3, 4, 3)]
    assert said[0] == said[2] != said[1]


@pytest.mark.parametrize("name", [*ENGINES, "int8"])
def test_a_stop_string_ends_the_answer_before_it(name, load):
    real = load(name)
    whole = answer(real, STORY, max_new_tokens=40).text
    stop = whole.split()[4]
    made = answer(real, STORY, max_new_tokens=40, stop=stop)
    assert made.finish == "stop string" and made.text.strip() == whole.partition(stop)[0].strip()


@pytest.mark.parametrize("name", [*ENGINES, "int8"])
def test_a_penalty_lets_the_answer_end(name, load):
    made = answer(load(name), CAPITAL, repetition_penalty=1.2, max_new_tokens=150)
    assert made.finish == "end"  # that of transformers penalises the end token of earlier turns, and goes on
    assert "RepetitionPenalty" in made.run_record.config["logits_processor"]


def test_it_answers_without_a_thought_and_has_no_switch_for_one(load):
    made = answer(load("int8"), CAPITAL)
    assert "Paris" in made.text and not made.thought
    with pytest.raises(BadSetting, match="has no thinking switch"):
        answer(load("int8"), CAPITAL, thinking=True)


@pytest.mark.parametrize("name", [*ENGINES, "int8"])
def test_ten_turns_with_the_prefix_cache_are_those_without(name, load):
    real, history, talks = load(name), [], {"kept": [], "": []}
    for turn in range(10):
        question = f"Tell me one more thing about the number {turn + 2}."
        made = {
            each: answer(real, build_messages(history, question), session=each, max_new_tokens=10) for each in talks
        }
        assert made["kept"].text == made[""].text and made[""].usage.cached_tokens == 0
        assert bool(made["kept"].usage.cached_tokens) == bool(turn)
        history += [{"role": "user", "content": question}, {"role": "assistant", "content": made[""].text}]


@pytest.fixture(scope="module")
def talkative(load):
    """The real model as one that never ends an answer, so that each has its 200 tokens."""
    real = load("int8")
    config = real.loaded.model.generation_config
    config.eos_token_id, end = None, config.eos_token_id
    yield type(real)(real.loaded)
    config.eos_token_id = end


@pytest.mark.parametrize("strategy", WATERMARKS)
def test_after_200_tokens_and_after_those_that_its_row_names_nineteen_watermarks_of_twenty_are_found(
    strategy, talkative
):
    def is_found(seed):
        question = [Message("user", f"Write a long story about a traveller, a lamp and {seed + 2} birds.")]
        values = {"strategy": strategy, "seed": seed, "watermark_key": 40 + seed, "max_new_tokens": 200}
        made, tokenizer = answer(talkative, question, **values), talkative.loaded.tokenizer
        assert made.usage.new_tokens == 200
        ids = tokenizer.encode(made.text, add_special_tokens=False)
        texts = made.text, tokenizer.decode(ids[: STRATEGIES[strategy].mark_tokens])
        return [talkative.detect(text, Settings.check(values)).marked for text in texts]

    with ThreadPoolExecutor(20) as turns:
        whole, beginning = map(sum, zip(*turns.map(is_found, range(20)), strict=True))
    assert min(whole, beginning) >= 19
