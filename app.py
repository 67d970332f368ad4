"""Parley, the Space, on one screen: talk with any open language model, and see and choose how it decodes."""

import os
from collections.abc import Iterator, Sequence

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")  # with both, memory stays flat over many requests

import spaces  # isort: skip  (before anything touches CUDA)
import gradio as gr

from parley.api import endpoints
from parley.engines.base import Delta
from parley.errors import ChatError
from parley.messages import Message
from parley.models import registry
from parley.serving import preload, turn
from parley.settings import Settings
from parley.ui import controls, page
from parley.ui.chat_interface import Chat
from parley.ui.views import watermark_detector

ZERO_GPU = spaces.config.Config.zero_gpu

turn.POOL.place(preload.at_start())  # ZeroGPU keeps for its workers what is on cuda now


@spaces.GPU(duration=lambda *given: given[-1], size=preload.slice_size())
def reply_on_gpu(
    run_id: str, messages: Sequence[Message], settings: Settings, session: str, seconds: int
) -> Iterator[Delta | ChatError]:
    """One turn on ZeroGPU, for so many seconds. It runs in another process: plain data in, plain data out."""
    yield from turn.reply_in_worker(run_id, messages, settings, session, seconds)


def reply(run_id: str, messages: Sequence[Message], settings: Settings, session: str) -> Iterator[Delta]:
    """One turn, where its engine belongs: only a local model asks ZeroGPU for a GPU."""
    if ZERO_GPU and registry.find(settings.model).engine == "local":
        return turn.reply_by(reply_on_gpu, run_id, messages, settings, session)
    return turn.reply(run_id, messages, settings, session)


with endpoints.Page(title=page.TITLE, fill_height=True) as demo:
    gr.Markdown(page.HEADER, elem_id="title")
    with gr.Row(equal_height=False, elem_id="desk"):
        talk = gr.Column(elem_id="talk")
        with gr.Column(elem_id="settings"):
            inputs = controls.controls()
            watermark_detector.add(inputs)
            whole = gr.JSON(visible=False, label="The whole conversation; leave out to have it kept")
    with talk:
        chat = Chat(
            reply,
            additional_inputs=[*inputs.values(), whole],
            slots=None if ZERO_GPU else 1,
            chatbot=page.chatbot(),
            textbox=page.textbox(),
            editable=True,
            examples=[[example] for example in page.EXAMPLES],
            api_name="chat",
        )
    controls.connect(inputs)
    endpoints.add_endpoints()
demo.queue(max_size=None, api_open=False)  # visitors wait in a line of our own, which tells them their place

if __name__ == "__main__":
    demo.launch(**page.LAUNCH)
