"""Early exit by a model of the turn's own, which has the weights of the whole model and a config of its own.

Transformers lowers the number of layers in the config of the model itself, which every other turn reads too.
"""

import copy
from typing import Any

from transformers import GenerationConfig, PreTrainedModel

from parley.engines.transformers.scheduler import Scheduler, schedule


def exit_in_a_copy(model: PreTrainedModel) -> None:
    """Makes drafts by early exit come from such a model. The tokens are the same."""
    if "_get_candidate_generator" in vars(model):  # two engines may share one model
        return
    whole, scheduler = model._get_candidate_generator, schedule(model)

    def candidate_generator(*, generation_config: GenerationConfig, **given: Any) -> Any:
        layer = generation_config.assistant_early_exit
        of = whole if layer is None else _first_layers(model, layer, scheduler)._get_candidate_generator
        return of(generation_config=generation_config, **given)

    model._get_candidate_generator = candidate_generator


def _first_layers(model: PreTrainedModel, count: int, scheduler: Scheduler) -> PreTrainedModel:
    """The same modules around a decoder whose config says that it has `count` layers."""
    decoder, short = copy.copy(model.base_model), copy.copy(model)
    decoder.config = copy.copy(decoder.config)
    decoder.config.num_hidden_layers = count
    if model.config is model.base_model.config:  # from which the cache of the drafts gets its layers
        short.config = decoder.config
    short._modules = {**model._modules, model.base_model_prefix: decoder}
    del short._get_candidate_generator, short.forward  # those of its class are there again
    short.forward = Scheduler(short, group=(scheduler, count))
    return short
