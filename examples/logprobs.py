"""How sure the model was of each token: python examples/logprobs.py [address] [message]"""

import math
import sys

from gradio_client import Client


def show(address: str, message: str) -> list[dict]:
    """Prints each token of the answer with its probability and the likeliest others, and returns them."""
    client = Client(address, verbose=False)
    result = client.predict(message, model="budgie", max_new_tokens=24, seed=7, logprobs=3, api_name="/generate")
    for token in result["logprobs"]:
        others = [f"{each['token']!r} {math.exp(each['logprob']):.0%}" for each in token["top_logprobs"]]
        print(f"{token['token']!r:16} {math.exp(token['logprob']):6.1%}   {'  '.join(others)}")
    return result["logprobs"]


if __name__ == "__main__":
    show(*(sys.argv[1:] + ["http://127.0.0.1:7860", "Hello, who are you?"][len(sys.argv) - 1 :])[:2])
