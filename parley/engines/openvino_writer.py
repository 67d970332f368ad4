"""Writes a model folder as a stateful int8 OpenVINO model: `python -m parley.engines.openvino_writer SOURCE TARGET`.

A program of its own, for the memory it needs and a crash of its libraries should not be the server's. What it is
doing stands in the file `progress` beside the model, one short sentence. It ends when its standard input closes, as
that does when the server dies.
"""

import os
import sys
import threading
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino.opset14 as ops
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.exporters import OpenVINOConfig, OpenVINOExporter
from transformers.exporters.configs import ExportFormat
from transformers.exporters.quantizers.base import ExportQuantizer
from transformers.exporters.utils import decompose_for_generation

NICENESS = 10  # the server answers meanwhile, on the same cores
FLOATS = (openvino.Type.f32, openvino.Type.f16, openvino.Type.bf16)
SMALLEST = 16  # matrices with fewer rows or columns are tables, such as those of positions, and stay as they are


class Int8Weights(ExportQuantizer):
    """Stores each matrix as whole numbers of one byte, with one 16-bit scale a row (symmetric, round to nearest).

    In place of nncf's, which does the same for one more scale a row, but brings scipy and scikit-learn: 220 MB.
    """

    supported_formats = (ExportFormat.OPENVINO,)

    def quantize(self, model: openvino.Model, sample_inputs: MutableMapping[str, Any], _: str) -> openvino.Model:
        """Changes `model` in place; matrices that two layers share stay shared."""
        for node in model.get_ops():
            if node.get_type_name() == "Constant" and node.get_element_type() in FLOATS:
                shape = node.get_output_shape(0)
                if len(shape) == 2 and min(shape) >= SMALLEST:
                    _quantise(node)
        return model


def _quantise(node: openvino.Node) -> None:
    weights = node.get_data(dtype=np.float32)
    scale = np.maximum(np.abs(weights).max(axis=1, keepdims=True) / 127, 1e-7).astype(np.float16)
    whole = np.clip(np.rint(weights / scale.astype(np.float32)), -127, 127).astype(np.int8)
    product = ops.multiply(ops.convert(ops.constant(whole), "f16"), ops.constant(scale))
    wide = ops.convert(product, "f32")
    for user in list(node.output(0).get_target_inputs()):
        converts = user.get_node()
        if converts.get_type_name() == "Convert" and converts.get_element_type() == openvino.Type.f32:
            converts.output(0).replace(wide.output(0))
        else:
            same = wide if node.get_element_type() == openvino.Type.f32 else ops.convert(wide, node.get_element_type())
            user.replace_source_output(same.output(0))


def write(source: Path, target: Path) -> None:
    """Reads the model of `source`, a folder as transformers saves it, and writes it into the folder `target`."""

    def report(sentence: str) -> None:
        (target / "progress").write_text(sentence, "utf-8")

    report("reading the weights")
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype="auto", use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    report("tracing the model")
    exported = OpenVINOExporter().export(
        *_decoding(model.eval()), OpenVINOConfig(dynamic=True, stateful=True, quantizer=Int8Weights())
    )
    report("writing the model")
    exported.save_pretrained(target)


def _decoding(model: PreTrainedModel) -> tuple[torch.nn.Module, dict[str, Any]]:
    """What runs when several tokens follow a cache, which serves for a prompt as well, and an example of its input.

    The example has two rows of different length, so that neither number becomes part of the graph.
    """
    ids = torch.arange(48).reshape(2, 24) % model.config.get_text_config().vocab_size
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    parts = decompose_for_generation(model, {"input_ids": ids, "attention_mask": mask}, multi_token_decode=True)
    return parts["decode"]


def main() -> None:
    """The command line."""
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
    os.nice(NICENESS)
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    write(Path(sys.argv[1]), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
