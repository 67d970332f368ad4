"""Answer many prompts with a progress bar: python examples/batch.py [address] < prompts.txt

One prompt stands on each line. Two are asked at a time, which is what a caller may have running by default.
"""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from gradio_client import Client
from tqdm import tqdm

AT_A_TIME = 2


def answer_all(address: str, prompts: Sequence[str], **settings: object) -> list[dict]:
    """The results, in the order of the prompts."""
    client = Client(address, verbose=False)

    def answer(prompt: str) -> dict:
        return client.predict(prompt, **settings, api_name="/generate")

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(tqdm(pool.map(answer, prompts), total=len(prompts), unit="prompt"))


if __name__ == "__main__":
    lines = [line.strip() for line in sys.stdin if line.strip()]
    for result in answer_all((sys.argv[1:] or ["http://127.0.0.1:7860"])[0], lines, model="budgie", max_new_tokens=60):
        print(f"{result['text'].strip()}  [{result['finish_reason']}, {result['usage']['completion_tokens']} tokens]")
