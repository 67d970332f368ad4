"""Stop an answer, and keep what there is: python examples/cancel.py [address] [words]"""

import sys

from gradio_client import Client


def first_words(address: str, words: int) -> dict:
    """Stops the answer once it has so many words, and returns the result by then."""
    client = Client(address, verbose=False)
    job = client.submit("Tell me a story about an owl.", model="budgie", max_new_tokens=400, api_name="/generate")
    for so_far in job:
        if len(so_far["text"].split()) >= words:
            job.cancel()
            break
    return job.result()


if __name__ == "__main__":
    address, words = (sys.argv[1:] + ["http://127.0.0.1:7860", "5"][len(sys.argv) - 1 :])[:2]
    result = first_words(address, int(words))
    print(result["text"], f"[{result['finish_reason']}]")
