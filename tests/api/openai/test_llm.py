"""A second client that nobody here wrote: `llm` of Simon Willison, as people run it in a terminal."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.fixture
def llm(inside, tmp_path):
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: bird\n  model_name: budgie\n  api_base: {inside.url}/v1\n"
        f"- model_id: text\n  model_name: budgie\n  api_base: {inside.url}/v1\n  completion: true\n"
    )

    def run(*arguments):
        environment = os.environ | {"LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"}
        program = [sys.executable, "-m", "llm", *arguments]
        options = {"capture_output": True, "text": True, "timeout": 120, "cwd": ROOT}
        ran = subprocess.run(program, check=False, env=environment, **options)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    return run


@pytest.mark.slow
def test_it_asks_streams_and_goes_on_with_a_conversation(llm, openai_client):
    question = [{"role": "user", "content": "Hello, who are you?"}]
    expected = openai_client.chat.completions.create(model="budgie", messages=question, temperature=0)
    asked = ("-m", "bird", "-o", "temperature", "0", question[0]["content"])
    assert llm(*asked).strip() == llm(*asked, "--no-stream").strip() == expected.choices[0].message.content.strip()
    assert "budgie" in llm("-c", "-o", "temperature", "0", "What is your name?").lower()
    assert llm("-m", "text", "-o", "max_tokens", "4", "Once upon a time").strip()
