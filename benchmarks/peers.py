"""llama.cpp on the same weights, ready built for this processor: Node.js runs it, npm fetches it, once.

It takes 750 MB of the user's cache. `PARLEY_LLAMACPP` names a folder whose node_modules holds it already.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks import cache
from benchmarks.share_gpt import Workload
from benchmarks.visitors import SAMPLING, Played, Waited
from parley.events import Usage

PACKAGE, VERSION = "node-llama-cpp", "3.21.1"
VARIABLE = "PARLEY_LLAMACPP"
INSTALLATION = 900  # seconds
SCRIPT, SCRIPT_MANY = (Path(__file__).with_name(f"{name}.mjs") for name in ("llama_cpp", "llama_many"))
_SAMPLING = {"temperature": SAMPLING["temperature"], "topK": SAMPLING["top_k"], "topP": SAMPLING["top_p"]}
FORMATS = {"q8": "Q8_0", "q4": "Q4_0"}
ARCHITECTURES = ("llama", "qwen3")  # those that `write` knows


def home() -> Path:
    """The folder whose node_modules holds llama.cpp, there or not."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else cache.preload(f"{PACKAGE}-{VERSION}")


def installed() -> bool:
    """Whether llama.cpp can run without anything being fetched."""
    return bool(shutil.which("node")) and (home() / "node_modules" / PACKAGE / "package.json").is_file()


def missing() -> str:
    """Why llama.cpp is left out, a sentence; empty where it can run. Fetches it where npm can."""
    if installed():
        return ""
    if not (shutil.which("node") and shutil.which("npm")):
        return "llama.cpp is left out: it needs Node.js 20 or later, with npm."
    if os.environ.get(VARIABLE):
        return f"llama.cpp is left out: {VARIABLE} names {home()}, which has no node_modules/{PACKAGE}."
    try:
        cache.once(home(), _install)
    except subprocess.SubprocessError:
        return f"llama.cpp is left out: npm could not install {PACKAGE} {VERSION}; what it said stands above."
    return ""


def _install(folder: Path) -> None:
    folder.mkdir()
    quiet = ["--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
    run = ["npm", "install", "-E", *quiet, "--prefix", str(folder), f"{PACKAGE}@{VERSION}"]
    never_built = os.environ | {"NODE_LLAMA_CPP_SKIP_DOWNLOAD": "true"}  # its sources, where no built one fits
    subprocess.run(run, env=never_built, timeout=INSTALLATION, check=True)


class _Process:
    """A script of ours over llama.cpp, which answers line by line and idles between them."""

    def __init__(self, script: Path, file: Path, context: int) -> None:
        """`context`: tokens of a prompt and its answer together. Needs `missing()` to be empty."""
        given = [str(home()), str(file), str(torch.get_num_threads()), str(context)]
        self._process = subprocess.Popen(
            ["node", str(script), *given], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            self._reply()
        except RuntimeError:
            self.close()
            raise

    def close(self) -> None:
        """Ends its process; safe to call twice."""
        with self._process as process:  # closes the pipes and waits
            process.kill()

    def _ask(self, **asked: object) -> dict[str, Any]:
        assert self._process.stdin
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        reply = json.loads(line) if line else {"error": "its process ended"}
        if "error" in reply:
            raise RuntimeError(f"llama.cpp: {reply['error']}")
        return reply


class LlamaCpp(_Process):
    """A model in one of llama.cpp's formats, which answers one after the other."""

    def __init__(self, file: Path, context: int = 2048) -> None:
        super().__init__(SCRIPT, file, context)

    def answer(self, ids: Sequence[int], new: int) -> Usage:
        """What greedy search from an empty cache costs, to so many new tokens; their end is not heeded.

        Raises `RuntimeError` where they do not fit in the context.
        """
        reply = self._ask(ids=list(ids), new=new)
        return Usage(len(ids), reply["tokens"], reply["first"], reply["seconds"])

    def continuation(self, ids: Sequence[int], new: int) -> list[int]:
        """The tokens of such an answer."""
        return self._ask(ids=list(ids), new=new)["ids"]


class LlamaCppMany(_Process):
    """The same for many chats at once, each a sequence of one context of llama.cpp."""

    def __init__(self, file: Path, context: int = 2048) -> None:
        """`context`: tokens of each chat."""
        super().__init__(SCRIPT_MANY, file, context)

    def play(self, workload: Workload, chats: int, sampling: bool) -> Played:
        """Plays all conversations by so many chats at once."""
        asked = [
            [{"ids": ids, "new": question.new} for ids, question in zip(read, conversation, strict=True)]
            for read, conversation in zip(workload.read, workload.conversations, strict=True)
        ]
        reply = self._ask(conversations=asked, chats=chats, sampling=_SAMPLING if sampling else {"temperature": 0})
        return Played(reply["seconds"], workload.new_tokens, [Waited(**each) for each in reply["waited"]])


def write(model: PreTrainedModel | Path, folder: Path) -> dict[str, Path]:
    """The model, or that of a folder for transformers, as one file in `folder` for each of `FORMATS`.

    Matrices are quantised, the embedding and the head like all others; vectors are 32-bit floats. Tokens are numbers:
    the vocabulary is not the model's. `ValueError` for a model that is not of the `ARCHITECTURES`.
    """
    if isinstance(model, Path):
        model = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    if model.config.model_type not in ARCHITECTURES or model.config.rope_parameters["rope_type"] != "default":
        raise ValueError(f"only models of {' and '.join(ARCHITECTURES)} with plain rotary positions can be written")
    files = {name: folder / f"{name}.gguf" for name in FORMATS}
    for name, file in files.items():
        _write_gguf(model, file, FORMATS[name])
    return files


def _write_gguf(model: PreTrainedModel, file: Path, kind: str) -> None:
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(file, config.model_type)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind}"])
    writer.add_tokenizer_model("gpt2")  # node-llama-cpp does not load a file that has no vocabulary
    writer.add_tokenizer_pre("default")
    writer.add_token_list([str(number) for number in range(config.vocab_size)])
    writer.add_token_types([gguf.TokenType.NORMAL] * config.vocab_size)
    writer.add_token_merges(["1 0"])  # one at least
    quantised = gguf.GGMLQuantizationType[kind]
    for name, weight in _named(model):
        if weight.ndim == 2:
            writer.add_tensor(name, gguf.quants.quantize(weight.numpy(), quantised), raw_dtype=quantised)
        else:
            writer.add_tensor(name, weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _named(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Each weight once, by llama.cpp's name, in 32-bit floats."""
    import gguf

    config = model.config
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, config.model_type.upper()), config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:  # llama.cpp takes the embedding by itself
            continue
        layer = name.split(".")[-2]
        if config.model_type == "llama" and layer in heads:  # it turns pairs of neighbours, not of halves
            halves = weight.view(heads[layer], 2, config.head_dim // 2, -1)
            weight = halves.transpose(1, 2).reshape(weight.shape)  # noqa: PLW2901
        named = names.get_name(name, (".weight",))
        if named is None:
            raise ValueError(f"llama.cpp has no place for {name}")
        yield named, weight.float()
