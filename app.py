"""The app of the Parley Space: talk with any open language model, and see and choose how it decodes.

The path of a message: `ResilientChatInterface` (a `gr.ChatInterface`) passes it to `ChatFunction`, which calls `reply`
below. The engine formats the history with the model's chat template (parley/generation/prompt.py), runs `generate` in
a thread, and yields partial text from a `TextIteratorStreamer` (parley/generation/streaming.py).
"""

import os
from collections.abc import Iterator, Sequence

from parley import config
from parley.serving.operations import ending, turn_log

if __name__ == "__main__":  # before the slow imports, which may be interrupted
    config.handle_command_line()
    turn_log.configure()
    ending.handle_signals()
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")  # with both, memory stays flat over many requests
os.environ["FORWARDED_ALLOW_IPS"] = config.trusted_proxies()  # uvicorn reads it
import spaces  # isort: skip  (before anything touches CUDA)
import gradio as gr

from parley.api import endpoints
from parley.errors import ChatError
from parley.events import ColumnEvent, Delta
from parley.messages import Message
from parley.models import registry
from parley.serving import comparison, gpu_budget, gpu_choices, preload, turn
from parley.serving.column_batch import Column
from parley.serving.gpu_choices import Found, Question
from parley.settings import Settings
from parley.ui import controls, page
from parley.ui.chat_interface import ResilientChatInterface

preload.load_models(turn.POOL)  # ZeroGPU's workers get the models that are on the GPU now


@spaces.GPU(duration=gpu_budget.duration, size=preload.gpu_size())
def reply_on_gpu(
    run_id: str, messages: Sequence[Message], settings: Settings, session: str, seconds: int
) -> Iterator[Delta | ChatError]:
    """Runs one turn in a process that has a GPU for so many seconds."""
    yield from turn.reply_in_worker(run_id, messages, settings, session, seconds)


@spaces.GPU(duration=gpu_budget.duration, size=preload.gpu_size())
def compare_on_gpu(
    run_id: str, columns: Sequence[Column], session: str, generated: Sequence[int], seconds: int
) -> Iterator[ColumnEvent | ChatError]:
    """Runs all columns of a comparison that need one in a process that has a GPU for so many seconds."""
    yield from comparison.compare_in_worker(run_id, columns, session, generated, seconds)


@gpu_choices.run_on_gpu_by
@spaces.GPU(duration=gpu_budget.duration, size=preload.gpu_size())
def choices_on_gpu(
    asked: Question, messages: Sequence[Message], settings: Settings, session: str, seconds: int
) -> Found | ChatError:
    """Shows why tokens were chosen, or what may follow, in a process that has a GPU for so many seconds."""
    return gpu_choices.choices_in_worker(asked, messages, settings, seconds)


def reply(
    run_id: str,
    messages: Sequence[Message],
    settings: Settings,
    session: str,
    generated: Sequence[int],
    *,
    given: Sequence[int] = (),
) -> Iterator[Delta]:
    """Runs one turn: on ZeroGPU in a GPU process if the model needs one, else in this process."""
    if turn.needs_zerogpu(registry.find(settings.model)):
        return turn.reply_on_zerogpu(reply_on_gpu, run_id, messages, settings, session)
    return turn.reply(run_id, messages, settings, session, generated, given=given)


with endpoints.Page(title=page.TITLE, fill_height=True) as demo:
    page.header()
    with gr.Row(equal_height=False, elem_id="desk"):
        conversation = gr.Column(elem_id="conversation")
        with gr.Column(elem_id="settings") as settings:
            inputs = controls.controls()  # the controls by the names of the settings
    model, strategy, temperature, top_p, *others = inputs.values()
    with conversation:
        chat = ResilientChatInterface(
            reply,
            additional_inputs=[model, strategy, temperature, top_p, *others, controls.messages()],
            **page.chat_components(),
            api_name="chat",
        )
        page.add_views(demo, chat, inputs, settings, compare_on_gpu)
    controls.connect(inputs)
    endpoints.add()
demo.queue(max_size=None, api_open=False)  # visitors wait in `WaitingLine`, which shows their place
if __name__ == "__main__":
    demo.launch(**page.LAUNCH)
