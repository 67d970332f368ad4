"""What is shipped: two small stock Llamas with one tokenizer, and cards that say what the exam said."""

import re
from collections import Counter

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from parley.budgie import DRAFT, WEIGHTS
from training.exam import agreement, candidate, questions

MOST_PARAMETERS = {WEIGHTS: 4_600_000, DRAFT: 600_000}
folders = pytest.mark.parametrize("folder", MOST_PARAMETERS, ids=lambda folder: folder.name)


@folders
def test_it_is_a_small_stock_llama(folder):
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert model.num_parameters() <= MOST_PARAMETERS[folder]


@folders
def test_the_file_is_bfloat16_and_light(folder):
    assert (folder / "model.safetensors").stat().st_size < 9_500_000
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118  (no mapping)


@folders
def test_it_recommends_its_sampling_and_knows_its_end(folder):
    recommended = GenerationConfig.from_pretrained(folder)
    assert recommended.do_sample
    assert 0 < recommended.temperature <= 1
    assert 0 < recommended.top_p <= 1
    assert recommended.eos_token_id == AutoConfig.from_pretrained(folder).eos_token_id is not None


def test_the_draft_has_the_same_tokenizer():
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (DRAFT / name).read_bytes() == (WEIGHTS / name).read_bytes()


@pytest.mark.slow
def test_the_draft_predicts_most_of_budgies_tokens():
    share = agreement(candidate(WEIGHTS), candidate(DRAFT), questions()[::20])
    stated = re.search(r"agrees with ([\d.]+) % of the tokens", (DRAFT / "README.md").read_text(encoding="utf-8"))
    assert share > 0.6
    assert abs(share - float(stated[1]) / 100) < 0.2  # a sample of the questions that the card speaks of


@folders
def test_the_card_names_the_true_number_of_parameters(folder):
    count = AutoModelForCausalLM.from_pretrained(folder).num_parameters()
    assert f"{count:,} parameters" in (folder / "README.md").read_text(encoding="utf-8")


@folders
def test_the_card_has_the_front_matter_of_the_hub(folder):
    front = (folder / "README.md").read_text(encoding="utf-8").split("---\n")[1]
    for line in ("license: apache-2.0", "language: en", "library_name: transformers", "pipeline_tag: text-generation"):
        assert line in front.splitlines()


def test_the_table_of_the_card_is_that_of_this_exam():
    card = (WEIGHTS / "README.md").read_text(encoding="utf-8")
    table = re.search(r"<!-- exam -->\n(.*?)\n<!-- end of exam -->", card, re.DOTALL)[1]
    rows = {
        skill: (int(right), int(of)) for skill, right, of in re.findall(r"\| ([a-z ]+) \| (\d+) \| (\d+) \|", table)
    }
    asked = Counter(question.skill.replace("_", " ") for question in questions())
    assert {skill: of for skill, (_, of) in rows.items()} == asked
    right, of, share = re.search(r"\*\*(\d+)\*\* \| \*\*(\d+)\*\* \((.*)%\)", table).groups()
    assert int(right) == sum(right for right, _ in rows.values())
    assert int(of) == len(questions())
    assert float(share) == round(100 * int(right) / int(of), 1)
