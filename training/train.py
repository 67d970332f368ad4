"""Trains Budgie, or with --draft its draft, from scratch on the generated corpus, for a given time.

`python -m training.train --minutes 75 --work work` writes progress and checkpoints into `work`, and at the
end the model folder. `--resume` goes on from the last checkpoint, `--start` from the weights of a model folder, whose
tokenizer gets the letters that it lacks. The learning rate follows the time spent.
Needs PyTorch 2.9 or later, for its Muon.
"""

import argparse
import json
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from parley.budgie import DRAFT, WEIGHTS
from training.batches import Batch, batches
from training.tokenizer import CONTEXT, train_tokenizer, with_letters, wrapped

SHAPES = {
    "budgie": {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 6},
    "draft": {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4},
}
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.95, "top_k": 0}
MATRIX_RATE, REST_RATE, WARM_UP = 0.02, 3e-3, 100  # learning rates of Muon and AdamW, warm-up steps
MATRIX_DECAY = 0.02
CHECKPOINT_MINUTES, LOG_SECONDS = 5, 20
TRIED, KEPT = 3, 40  # steps with each number of threads that is tried, and with the best of them
EAGER_UP_TO = 300  # tokens: on a processor the fused attention's backward pass only pays for longer rows


@dataclass
class Progress:
    """What a run has spent and seen; `loss` is a running mean over answer tokens, in nats."""

    seconds: float = 0.0
    step: int = 0
    tokens: int = 0
    loss: float = 0.0


def new_model(shape: str, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """An untrained model of that shape: a stock Llama with tied embeddings."""
    return LlamaForCausalLM(
        LlamaConfig(
            **SHAPES[shape],
            num_key_value_heads=SHAPES[shape]["num_attention_heads"] // 2,
            vocab_size=len(tokenizer),
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def answer_logits(model: LlamaForCausalLM, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (answer tokens, vocabulary) in float32 and the tokens they should have predicted."""
    wanted = batch.answers[:, 1:]
    model.set_attn_implementation("eager" if batch.ids.shape[1] <= EAGER_UP_TO else "sdpa")
    hidden = model.model(input_ids=batch.ids[:, :-1].contiguous(), use_cache=False).last_hidden_state
    return model.lm_head(hidden[wanted]).float(), batch.ids[:, 1:][wanted]


def loss_of(model: LlamaForCausalLM, batch: Batch, teacher: LlamaForCausalLM | None) -> torch.Tensor:
    """Cross-entropy on the answers; with a teacher, half of it against the teacher's probabilities."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, targets = answer_logits(model, batch)
    hard = F.cross_entropy(logits, targets)
    if teacher is None:
        return hard
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        probabilities = answer_logits(teacher, batch)[0].softmax(-1)
    return (hard + F.cross_entropy(logits, probabilities)) / 2


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the embedding and the norms."""
    matrices = [each for name, each in model.named_parameters() if each.ndim == 2 and "embed" not in name]
    rest = [each for name, each in model.named_parameters() if each.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=MATRIX_DECAY),
        torch.optim.AdamW(rest, lr=REST_RATE, betas=(0.9, 0.98), weight_decay=0),
    ]


def schedule(step: int, share: float) -> float:
    """The factor on the learning rates: a short warm-up, then a cosine over the share of the time that is spent."""
    return min(1.0, (step + 1) / WARM_UP) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


class Run:
    """A model in training with its optimizers and what it has spent and seen: saved and resumed as one."""

    def __init__(self, model: LlamaForCausalLM, seconds: float, teacher: LlamaForCausalLM | None = None) -> None:
        self.model, self.seconds, self.teacher = model, seconds, teacher
        self.optimizers, self.progress = optimizers(model), Progress()
        self.rates = [optimizer.param_groups[0]["lr"] for optimizer in self.optimizers]

    def step(self, batch: Batch) -> None:
        """Learns from `batch`; the learning rate follows the share of the time that is spent."""
        progress = self.progress
        factor = schedule(progress.step, progress.seconds / self.seconds)
        loss = loss_of(self.model, batch, self.teacher)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad()
        progress.loss += (loss.item() - progress.loss) / min(progress.step + 1, 50)
        progress.step, progress.tokens = progress.step + 1, progress.tokens + batch.ids.numel()

    def save(self, file: Path) -> None:
        """Writes what `resume` needs."""
        states = [optimizer.state_dict() for optimizer in self.optimizers]
        torch.save({"model": self.model.state_dict(), "optimizers": states, "progress": asdict(self.progress)}, file)

    def resume(self, file: Path) -> None:
        """Goes on from what `save` wrote; with more `seconds` than before, the learning rate rises again."""
        saved = torch.load(file)
        self.model.load_state_dict(saved["model"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.progress = Progress(**saved["progress"])


def started(folder: Path, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """The weights of that folder for `tokenizer`: a token that its own lacks begins as the mean of its parts."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    old = AutoTokenizer.from_pretrained(folder)
    known, table = old.get_vocab(), model.get_input_embeddings().weight.data
    before = table.clone()
    for token, place in tokenizer.get_vocab().items():
        parts = [known[token]] if token in known else [known[symbol] for symbol in token]
        table[place] = before[parts].mean(0)
    return model


def export(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes a complete model folder in bfloat16; a README.md that is already there stays."""
    model.set_attn_implementation("sdpa")
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    copy.generation_config = GenerationConfig(**ends, **SAMPLING)
    copy.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def log(progress: Progress, file: Path) -> None:
    """Appends a line of JSON."""
    with file.open("a") as lines:
        lines.write(json.dumps(asdict(progress) | {"tokens_per_second": progress.tokens / progress.seconds}) + "\n")


class Threads:
    """Takes as many threads as compute most tokens a second: on a busy machine two may wait for each other."""

    def __init__(self, most: int) -> None:
        self.most, self.best, self.steps = most, 1, 0
        self.speeds: dict[int, float] = {}

    def next(self) -> int:
        """The number for the next step: each is tried for `TRIED` steps, then the best is kept for `KEPT`."""
        place = self.steps % (TRIED * self.most + KEPT)
        if place == TRIED * self.most:
            self.best = max(self.speeds, key=self.speeds.__getitem__)
            self.speeds = {}
        return place // TRIED + 1 if place < TRIED * self.most else self.best

    def ran(self, number: int, tokens: int, seconds: float) -> None:
        """A step with that number of threads took so long."""
        self.speeds[number] = self.speeds.get(number, 0.0) + tokens / seconds
        self.steps += 1


def train(
    run: Run, stream: Iterator[Batch], tokenizer: PreTrainedTokenizerBase, work: Path, most_threads: int = 1
) -> None:
    """Trains until the time is spent; `work` gets the progress, checkpoints and at the end the folder "last"."""
    progress, threads = run.progress, Threads(most_threads)
    began = time.monotonic() - progress.seconds
    logged, saved = float("-inf"), progress.seconds
    for batch in stream:
        progress.seconds = time.monotonic() - began
        if progress.seconds >= run.seconds:
            break
        number, before = threads.next(), time.monotonic()
        torch.set_num_threads(number)
        run.step(batch)
        threads.ran(number, batch.ids.numel(), time.monotonic() - before)
        if progress.seconds - logged >= LOG_SECONDS:
            logged = progress.seconds
            log(progress, work / "progress.jsonl")
        if progress.seconds - saved >= CHECKPOINT_MINUTES * 60:
            saved = progress.seconds
            run.save(work / "state.pt")
            export(run.model, tokenizer, work / f"minute-{progress.seconds / 60:.0f}")
    log(progress, work / "progress.jsonl")
    run.save(work / "state.pt")
    export(run.model, tokenizer, work / "last")


def command_line() -> argparse.Namespace:
    """What the caller asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    work = "folder for tokenizer, progress and checkpoints"
    parser.add_argument("--work", type=Path, default=Path("budgie-work"), help=work)
    parser.add_argument("--minutes", type=float, default=75, help="in all, with those of a run that is resumed")
    parser.add_argument("--threads", type=int, default=2, help="at most; as many are used as are fastest")
    parser.add_argument("--batch", type=int, default=4096, help="tokens in a batch")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the folder")
    parser.add_argument("--start", type=Path, help="a model folder whose weights to begin with")
    parser.add_argument("--draft", action="store_true", help="train the draft, also on the teacher's probabilities")
    parser.add_argument("--teacher", type=Path, default=WEIGHTS, help="the model folder that the draft learns from")
    parser.add_argument("--install", action="store_true", help="copy the result into the package")
    return parser.parse_args()


def first_tokenizer(arguments: argparse.Namespace) -> PreTrainedTokenizerBase:
    """The tokenizer of a new run: the teacher's for a draft, else the start's with all letters, or a new one."""
    if arguments.draft:
        return AutoTokenizer.from_pretrained(arguments.teacher)
    if arguments.start:
        return wrapped(with_letters(Tokenizer.from_file(str(arguments.start / "tokenizer.json"))))
    return train_tokenizer()


def main() -> None:
    """The command line."""
    arguments = command_line()
    work, draft = arguments.work, arguments.draft
    if not (work / "tokenizer").exists():
        first_tokenizer(arguments).save_pretrained(work / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer")
    torch.manual_seed(arguments.seed)
    teacher = LlamaForCausalLM.from_pretrained(arguments.teacher, dtype=torch.float32).eval() if draft else None
    start = arguments.start
    model = started(start, tokenizer) if start else new_model("draft" if draft else "budgie", tokenizer)
    run = Run(model, arguments.minutes * 60, teacher)
    if arguments.resume:
        run.resume(work / "state.pt")
    stream = batches(tokenizer, arguments.seed + run.progress.step, arguments.batch)
    train(run, stream, tokenizer, work, arguments.threads)
    if arguments.install:
        shutil.copytree(work / "last", DRAFT if draft else WEIGHTS, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
