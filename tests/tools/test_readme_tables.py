"""The README says what is so: its front matter, its commands, its tables, its conversation, its programs."""

import re
import subprocess
import sys

import pytest
from huggingface_hub import SpaceCard

from parley.config import VARIABLES
from parley.models import registry
from tests.conftest import ROOT
from tools import readme_tables

PARTS = readme_tables.PARTS
TEXT = readme_tables.README.read_text("utf-8")


@pytest.fixture(scope="module")
def front_matter():
    return SpaceCard.load(readme_tables.README).data


def pinned(package):
    return re.search(rf"(?m)^{package}==(\S+)$", (ROOT / "requirements.txt").read_text())[1]


def block(language, mark):
    """The code block of the README that holds `mark`."""
    return next(code for code in re.findall(rf"(?s)```{language}\n(.*?)```", TEXT) if mark in code)


def test_the_front_matter_makes_a_space_of_this_version_of_gradio(front_matter):
    assert front_matter.sdk == "gradio"
    assert front_matter.sdk_version == pinned("gradio")
    assert front_matter.python_version == "3.12"
    assert (ROOT / front_matter.app_file).is_file()


def test_the_front_matter_says_what_the_hub_shows(front_matter):
    assert front_matter.title == "Parley"
    assert 20 < len(front_matter.short_description) <= 60
    assert front_matter.license == "apache-2.0" and "Apache License" in (ROOT / "LICENSE").read_text()
    assert front_matter.suggested_hardware == "zero-a10g"
    assert "chatbot" in front_matter.tags


def test_the_models_of_the_front_matter_are_those_that_zerogpu_offers(front_matter):
    offered = registry.models({"SPACES_ZERO_GPU": "true"})
    hosted = [row.id for row in offered.values() if row.id and not row.folder]
    assert front_matter.models == front_matter.preload_from_hub == hosted
    assert readme_tables.front_matter(TEXT) == TEXT
    assert readme_tables.front_matter(TEXT.replace(f"  - {hosted[0]}\n", "  - some/other\n")) == TEXT


def test_the_two_commands_and_the_picture_stand_at_the_top():
    top = TEXT.split("## ")[0]
    assert "pip install -r requirements.txt && python app.py\n" in top
    assert "pip install -r tests/requirements.txt && python -m pytest\n" in top
    pictures = re.findall(r"!\[.+\]\((.+)\)", top)
    assert pictures and all((ROOT / picture).stat().st_size > 10_000 for picture in pictures)


def test_every_link_to_a_file_leads_to_one():
    pages = [readme_tables.README, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *readme_tables.DOCS.glob("*.md")]
    links = [
        (page, link.split("#")[0])
        for page in pages
        for link in re.findall(r"\]\((?!http|#)([^)]+)\)", page.read_text("utf-8"))
    ]
    assert len(links) > 30
    assert [str(page / link) for page, link in links if not (page.parent / link).exists()] == []


def test_every_test_that_the_documents_name_is_there():
    text = (readme_tables.DOCS / "ARCHITECTURE.md").read_text("utf-8")
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", text))
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_the_readme_is_what_a_newcomer_needs():
    assert len(TEXT.splitlines()) <= 200


NEEDS_APP = "view_api"  # see tests/api/test_endpoints.py


@pytest.mark.parametrize(
    ("path", "name"), [(path, name) for path, parts in PARTS.items() for name in parts if name != NEEDS_APP]
)
def test_what_is_made_from_the_code_is_up_to_date(path, name):
    begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    part = path.read_text("utf-8").split(begin)[1].split(end)[0]
    assert part == PARTS[path][name](), "run python -m tools.readme_tables"


def test_a_missing_marker_is_not_passed_over():
    with pytest.raises(ValueError):
        readme_tables.written(readme_tables.README, TEXT.replace("<!-- end of transcript -->", ""))


def test_the_readme_leads_to_the_settings_and_the_variables():
    text = (readme_tables.DOCS / "settings.md").read_text("utf-8")
    assert "(docs/settings.md)" in TEXT
    assert [name for name in {*VARIABLES, "HF_TOKEN"} if f"`{name}`" not in text] == []


def test_the_python_program_streams_an_answer(space):
    program = block("python", "Client(").replace("your-name/parley", space.url)
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=240, cwd=ROOT, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "owl" in ran.stdout
