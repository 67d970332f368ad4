"""Call the Space from Python: python examples/call.py [address] [message]

The address is a Space ("you/parley") or a server ("http://127.0.0.1:7860", the default).
"""

import sys

from gradio_client import Client


def stream(address: str, message: str) -> str:
    """Prints the answer while it arrives, and returns it."""
    job = Client(address, verbose=False).submit(message, model="budgie", strategy="greedy", api_name="/chat")
    text = ""
    for so_far in job:
        print(so_far[len(text) :], end="", flush=True)
        text = so_far
    print()
    return text


if __name__ == "__main__":
    stream(*(sys.argv[1:] + ["http://127.0.0.1:7860", "Hello, who are you?"][len(sys.argv) - 1 :])[:2])
