"""The faults: how each is brought about, the one sentence that a caller reads, and whether there is text to keep."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.faults import files, gpu, machine, pages, servers, turns
from tests.faults.world import Told, World

GOES_ON = ""  # no sentence: the answer is whole


@dataclass(frozen=True)
class Fault:
    """A row. In `sentence` a … stands for what depends on the machine."""

    how: str
    happens: Callable[[World], AbstractContextManager[tuple[Callable[[], Told], Callable[[], Told]]]]
    sentence: str = GOES_ON
    keeps: bool = False  # whether text had come before it, which stays


OTHER = "Choose another model."
BROKEN = "Something went wrong inside Parley, and it has been logged. Press Retry, or try another model."
FULL = "The memory of this machine is used up. Ask for a shorter answer, or shorten the conversation."
NOT_FINITE = "{} computes numbers that are not finite: its weights are damaged. " + OTHER

FAULTS = {
    # Files of a model
    "download cut": Fault(
        "The Hub's stand-in breaks off every download of the weights in the middle.",
        files.on_the_hub(cut=99),
        "The download of org/… broke off. Try again: files that are complete are kept.",
    ),
    "download cut once": Fault("It breaks off one download.", files.on_the_hub(cut=1), keeps=True),
    "download damaged once": Fault(
        "The weights arrive with other bytes, once.", files.on_the_hub(damage=files.reverse, damaged=1), keeps=True
    ),
    "download damaged twice": Fault(
        "The weights arrive with other bytes, every time.",
        files.on_the_hub(damage=files.reverse, damaged=99),
        "model.safetensors of org/… was damaged after two downloads. Try again later, or choose another model.",
    ),
    "gated model": Fault(
        "The stand-in gives the files to nobody.",
        files.on_the_hub(gated=True),
        "org/… is gated: accept its terms at https://huggingface.co/org/… and set the secret HF_TOKEN, "
        "or choose another model.",
    ),
    "Hub down": Fault(
        "The stand-in answers 503.",
        files.on_the_hub(status=503),
        "The Hub fails with error 503. Try again in a few minutes, or choose Budgie.",
    ),
    "Hub overrun": Fault(
        "The stand-in answers 429.",
        files.on_the_hub(status=429),
        "The Hub asks for a pause before org/… can be downloaded. Try again in a few minutes.",
    ),
    "disk too small": Fault(
        "The cache is on a disk of 200 kB.",
        machine.small_disk,
        "org/… is a download of …, and … of disk are free. Choose a smaller model, or make room on the disk.",
    ),
    "disk full": Fault(
        "The disk of the cache is filled while the weights come.",
        machine.disk_that_fills,
        "The disk became full while org/… was downloaded. Make room on it, or choose a smaller model.",
    ),
    "weights cut": Fault(
        "The last 100 bytes of the weights are cut off.",
        files.spoilt(files.cut_weights),
        "… has weights that cannot be loaded (SafetensorError). " + OTHER,
    ),
    "tensor missing": Fault(
        "One tensor is taken out of the weights.",
        files.spoilt(files.without_tensor),
        "… is incomplete: 1 of its tensors are missing, for example model.layers.1.mlp.up_proj.weight. " + OTHER,
    ),
    "tensor misshapen": Fault(
        "One tensor has one number too few.",
        files.spoilt(files.misshapen),
        "… has weights that cannot be loaded (WeightsMismatch). " + OTHER,
    ),
    "weights not finite": Fault("One tensor is NaN.", files.spoilt(files.not_a_number), NOT_FINITE.format("…")),
    "weights missing": Fault(
        "The weights are deleted.",
        files.spoilt(files.without_weights),
        "… has no weights in the safetensors format or in GGUF, the formats that Parley loads. "
        "Choose another model, or convert it on the Hub.",
    ),
    "configuration damaged": Fault(
        "config.json is cut after its first byte.",
        files.spoilt(files.cut_config),
        "… has no readable config.json. " + OTHER,
    ),
    "tokenizer damaged": Fault(
        "The bytes of tokenizer.json are in the wrong order.",
        files.spoilt(files.reversed_tokenizer),
        "… has a tokenizer that cannot be loaded (…). " + OTHER,
    ),
    "code in the repository": Fault(
        "The configuration names a class in a file of the repository.",
        files.spoilt(files.with_code),
        "… needs Python code from its own repository, which is never run here. " + OTHER,
    ),
    "template with an error": Fault(
        "The chat template is `{% if %}`.",
        files.with_template("{% if %}"),
        "… has a chat template that cannot be rendered (TemplateSyntaxError: …). " + OTHER,
    ),
    "template that never ends": Fault(
        "The chat template has three loops in each other.",
        files.with_template(files.LOOPS),
        "… has a chat template that takes more than 5 s for a short conversation. " + OTHER,
    ),
    "template that takes all memory": Fault(
        "The chat template makes a text of 10 GB.",
        files.with_template("{{ 'x' * 10**10 }}"),
        "… has a chat template that takes more than 256 MB of memory for a short conversation. " + OTHER,
    ),
    "template that writes without end": Fault(
        "The chat template writes 2 MB.",
        files.with_template("{{ 'x' * 2000000 }}"),
        "… has a chat template that takes more than 1,000,000 characters for a short conversation. " + OTHER,
    ),
    "template that fails later": Fault(
        "The chat template fails from the second question on.",
        files.template_that_fails_later,
        "The chat template of … fails with this conversation: TypeError: …. Clear the chat, or choose another model.",
    ),
    # The machine
    "no memory for the model": Fault(
        "5 kB of memory are free.",
        machine.no_room,
        "… needs about … MB of memory, and 5 kB are free. Choose a smaller model….",
    ),
    "memory used up at load": Fault(
        "The library cannot allocate the weights.",
        machine.no_memory_at_load,
        "… does not fit the memory. Choose a smaller model.",
    ),
    "memory used up in an answer": Fault(
        "The library cannot allocate what a pass needs.", turns.at_pass(machine.out_of_memory), FULL, keeps=True
    ),
    "no block left in an answer": Fault(
        "All blocks of keys and values but seven are held by something else.",
        turns.without_blocks,
        "The memory for this model's keys and values is used up…. "
        "Ask for fewer beams or a shorter answer, or shorten the conversation.",
        keeps=True,
    ),
    "clock put forward": Fault("The clock jumps a day forward in an answer.", machine.clock(86_400), keeps=True),
    "clock put back": Fault("The clock jumps a day back in an answer.", machine.clock(-86_400), keeps=True),
    "process stopped and continued": Fault("The app gets SIGSTOP, and then SIGCONT.", machine.sleep, keeps=True),
    "app ended": Fault(
        "The app gets SIGTERM in an answer that takes longer than it may.",
        machine.ended,
        "The app is being restarted. Press Retry in 10 s.",
        keeps=True,
    ),
    "worker killed": Fault(
        "The process that has a GPU of ZeroGPU gets SIGKILL in the middle of an answer.",
        gpu.worker_killed,
        "The GPU was taken away before the answer had ended: its time was over, or the process failed. "
        "Press Retry, or Continue where an answer has begun.",
        keeps=True,
    ),
    "server killed": Fault(
        "The app gets SIGKILL in the middle of an answer, and is started again. The page waits for it.",
        pages.server_killed,
        keeps=True,
    ),
    # A turn
    "exception in a pass": Fault(
        "The library raises in the fourth pass.", turns.at_pass(turns.fail), BROKEN, keeps=True
    ),
    "exception in the prompt": Fault("The library raises in the first pass.", turns.at_pass(turns.fail, 1), BROKEN),
    "exception in PyTorch": Fault(
        "A model that PyTorch runs raises in its fourth pass.",
        turns.in_pytorch(turns.fail),
        BROKEN,
        keeps=True,
    ),
    "exception in the thread": Fault(
        "What reads the tokens raises in the thread of the turn.", turns.in_thread_of_turn, BROKEN
    ),
    "logits not finite": Fault(
        "The logits of a pass are NaN.", turns.not_finite(), NOT_FINITE.format("Budgie (bundled)"), keeps=True
    ),
    "logits not finite, sampled": Fault(
        "The same while tokens are drawn.",
        turns.not_finite(strategy="sampling", temperature=1.0, seed=3),
        NOT_FINITE.format("Budgie (bundled)"),
        keeps=True,
    ),
    "logits not finite in PyTorch": Fault(
        "The logits of a pass in a model that PyTorch runs are NaN.",
        turns.in_pytorch(lambda output: output.logits.fill_(math.nan)),
        NOT_FINITE.format("…"),
        keeps=True,
    ),
    "fault of another visitor": Fault(
        "The pass of another visitor fails at the same time.", turns.beside_a_fault, keeps=True
    ),
    "two tabs": Fault("Two turns of one session run at once.", turns.two_tabs, keeps=True),
    "slow reader": Fault("Nothing is read until the answer is over.", turns.slow_reader, keeps=True),
    "reader gone": Fault("The connection is cut after the first text.", turns.reader_gone, keeps=True),
    # Another server
    **{
        f"server: {name}": Fault(how, servers.fault(model), sentence, keeps)
        for name, model, how, sentence, keeps in servers.ROWS
    },
}
