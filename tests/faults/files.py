"""Faults in the files of a model."""

from contextlib import contextmanager

import torch

from tests.faults.world import STORY, ask
from tests.standins.hub import WEIGHTS, change_weights, edit

LOOPS = "".join(f"{{% for {name} in range(99999) %}}" for name in "abc") + "{% endfor %}" * 3


def reverse(data):
    """Other bytes of the same length."""
    return data[::-1]


def on_the_hub(**faults):
    """A model of the Hub with these faults of `Repo`, which end before the next turn."""

    @contextmanager
    def happens(world):
        id = f"org/{world.new_folder('m').name}"
        repo = world.hub.add(id, world.tiny, **faults)

        def mended():
            repo.gated, repo.status, repo.cut, repo.damaged = False, 0, 0, 0
            return ask(world.space.url, id)

        yield lambda: ask(world.space.url, id), mended

    return happens


def spoilt(spoil):
    """A model of the owner whose folder is spoilt, and mended before the next turn."""

    @contextmanager
    def happens(world):
        with world.folder() as (folder, mend):
            spoil(folder)
            yield lambda: ask(world.inside.url, folder.name), lambda: mend() or ask(world.inside.url, folder.name)

    return happens


def cut_weights(folder):
    """Cuts off their end."""
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def without_tensor(folder):
    """Takes one tensor out."""
    change_weights(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))


def misshapen(folder):
    """Makes one tensor shorter."""
    change_weights(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(31)}))


def not_a_number(folder):
    """Fills one tensor with NaN."""
    change_weights(folder, lambda tensors: tensors["model.norm.weight"].fill_(float("nan")))


def without_weights(folder):
    """Deletes the weights."""
    (folder / WEIGHTS).unlink()


def cut_config(folder):
    """Leaves one byte."""
    (folder / "config.json").write_text("{")


def reversed_tokenizer(folder):
    """Turns it round."""
    (folder / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes()[::-1])


def with_code(folder):
    """An architecture that only the code of the repository knows."""
    edit(folder / "config.json", model_type="zeppelin", auto_map={"AutoConfig": "evil.Config"})


def with_template(template):
    """A model of the owner with this chat template."""
    return spoilt(lambda folder: (folder / "chat_template.jinja").write_text(template))


@contextmanager
def template_that_fails_later(world):
    """The first question is answered, the second is not."""
    with world.folder() as (folder, _):
        file = folder / "chat_template.jinja"
        file.write_text(file.read_text() + "{% if messages | length > 2 %}{{ 'x' + 1 }}{% endif %}")
        earlier = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
        yield (
            lambda: ask(world.inside.url, folder.name, message=STORY, messages=earlier),
            lambda: ask(world.inside.url, folder.name),
        )
