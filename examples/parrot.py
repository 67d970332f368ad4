"""Step 1 of the tutorial: a parrot that repeats what you say. Run it: python examples/parrot.py"""

import gradio as gr


def parrot(message: str, history: list[dict]) -> str:
    """Repeat the message."""
    return message


demo = gr.ChatInterface(parrot, title="Parrot", examples=["Polly wants a cracker"])

if __name__ == "__main__":
    demo.launch()
