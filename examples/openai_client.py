"""Drive any strategy with the OpenAI client: python examples/openai_client.py [address] [strategy]

The address is that of a running Parley, "http://127.0.0.1:7860" by default.
"""

import sys

from openai import OpenAI


def ask(address: str, strategy: str) -> str:
    """Prints the answer while it arrives, why it ended and what it took, and returns it."""
    client = OpenAI(base_url=f"{address.rstrip('/')}/v1", api_key="none")
    stream = client.chat.completions.create(
        model="budgie",
        messages=[{"role": "user", "content": "Tell me a story about an owl."}],
        max_tokens=60,
        seed=7,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"strategy": strategy},
    )
    text, reason = "", None
    for chunk in stream:
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
            text, reason = text + (choice.delta.content or ""), choice.finish_reason or reason
        if chunk.usage:
            print(f"\n{reason}, {chunk.usage.completion_tokens} tokens")
    return text


if __name__ == "__main__":
    ask(*(sys.argv[1:] + ["http://127.0.0.1:7860", "sampling"][len(sys.argv) - 1 :])[:2])
