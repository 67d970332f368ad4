"""Ask several questions at the same time, without threads: python examples/several_at_once.py [address]"""

import asyncio
import sys
from collections.abc import Sequence

from openai import AsyncOpenAI

QUESTIONS = ("Hello, who are you?", "What is 3 plus 4?", "What is top-p sampling?")


async def ask(address: str, questions: Sequence[str]) -> list[str]:
    """The answers, in the order of the questions."""
    async with AsyncOpenAI(base_url=f"{address.rstrip('/')}/v1", api_key="none") as client:

        async def answer(question: str) -> str:
            made = await client.chat.completions.create(
                model="budgie", messages=[{"role": "user", "content": question}], temperature=0
            )
            return made.choices[0].message.content or ""

        return await asyncio.gather(*map(answer, questions))


if __name__ == "__main__":
    for text in asyncio.run(ask((sys.argv[1:] or ["http://127.0.0.1:7860"])[0], QUESTIONS)):
        print(text)
