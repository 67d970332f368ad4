"""A conversation that the server keeps for this client: python examples/conversation.py [address]"""

import sys

from gradio_client import Client

client = Client((sys.argv[1:] or ["http://127.0.0.1:7860"])[0], verbose=False)
for message in ("My name is Mia.", "What is my name?"):
    print(f"> {message}")
    print(client.predict(message, model="budgie", strategy="greedy", api_name="/chat"))
