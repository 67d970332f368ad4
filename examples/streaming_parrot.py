"""Step 2 of the tutorial: the same parrot, streamed. Run it: python examples/streaming_parrot.py

In Gradio a function streams if it is a generator that yields the whole text so far. (The Space itself uses the same
interface; its Parrot is an engine like any other, in parley/engines/parrot.py.)
"""

import time
from collections.abc import Iterator

import gradio as gr


def parrot(message: str, history: list[dict]) -> Iterator[str]:
    """Repeat the message, a few characters at a time."""
    for end in range(3, len(message) + 3, 3):
        time.sleep(0.02)  # a model would be computing its next token now
        yield message[:end]


demo = gr.ChatInterface(parrot, title="Streaming parrot", examples=["Polly wants a cracker"])

if __name__ == "__main__":
    demo.launch()
