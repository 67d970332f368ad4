"""llama.cpp on the same random weights, through llama-cpp-python, where that is installed.

It is built for this processor with `CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-binary llama-cpp-python
llama-cpp-python==0.3.36 gguf==0.19.0`, which takes half an hour on two cores.
"""

import importlib.util
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from parley.engines.base import Usage

MISSING = (
    ""
    if importlib.util.find_spec("llama_cpp") and importlib.util.find_spec("gguf")
    else ("llama.cpp is left out: the beginning of benchmarks/peers.py says how to install it.")
)
FORMATS = {"q8": "Q8_0", "q4": "Q4_0"}
BATCH = 512  # tokens of a prompt at once: llama.cpp's own default


class LlamaCpp:
    """A model in one of llama.cpp's formats."""

    def __init__(self, file: Path) -> None:
        import llama_cpp

        threads = torch.get_num_threads()
        self._model = llama_cpp.Llama(
            str(file), n_ctx=2048, n_batch=BATCH, n_threads=threads, n_threads_batch=threads, verbose=False
        )

    def answer(self, ids: Sequence[int], new: int) -> Usage:
        """What greedy search from an empty cache costs, to so many new tokens."""
        began = time.perf_counter()
        self._model.reset()
        self._model.eval(ids)
        token = self._model.sample(temp=0.0)
        first = time.perf_counter()
        for _ in range(new - 1):
            self._model.eval([token])
            token = self._model.sample(temp=0.0)
        return Usage(len(ids), new, first - began, time.perf_counter() - began)


def write(model: PreTrainedModel, folder: Path) -> dict[str, Path]:
    """The model, of the shapes in `shapes`, as one file for each of `FORMATS`; tokens are numbers there."""
    import llama_cpp
    from llama_cpp._logger import set_verbose

    set_verbose(False)
    whole = folder / "whole.gguf"
    _write_gguf(model, whole)
    files = {}
    for name, kind in FORMATS.items():
        files[name] = folder / f"{name}.gguf"
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
        options.nthread = torch.get_num_threads()
        if llama_cpp.llama_model_quantize(str(whole).encode(), str(files[name]).encode(), options):
            raise RuntimeError(f"llama.cpp could not write {kind}")
    whole.unlink()
    return files


def _write_gguf(model: PreTrainedModel, file: Path) -> None:
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
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("no_vocab")
    for name, weight in _named(model):
        writer.add_tensor(name, weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _named(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Each weight by llama.cpp's name, matrices as 16-bit floats."""
    import gguf

    config = model.config
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, config.model_type.upper()), config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        layer = name.split(".")[-2]
        if config.model_type == "llama" and layer in heads:  # it turns pairs of neighbours, not of halves
            halves = weight.view(heads[layer], 2, config.head_dim // 2, -1)
            weight = halves.transpose(1, 2).reshape(weight.shape)  # noqa: PLW2901
        yield names.get_name(name, (".weight",)), weight.half() if weight.ndim == 2 else weight.float()
