"""Tiny random-weight language models of every family of `tests.families`."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PretrainedConfig

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.declared import LANGUAGE_ARCHITECTURES
from tests.families import LANGUAGE_CONFIGS


def make_config(name: str, **changes: object) -> PretrainedConfig:
    kind, values = LANGUAGE_CONFIGS[name]
    given: dict[str, Any] = values | changes
    if "layer_types" in given:  # of as many layers as there are
        given["layer_types"] = given["layer_types"][: given["num_hidden_layers"]]
    config = getattr(transformers, kind)(**given)
    assert isinstance(config, PretrainedConfig)
    return config


def architecture_of(name: str) -> Architecture:
    kind = make_config(name).model_type
    return next(each for each in LANGUAGE_ARCHITECTURES.values() if each.model_type == kind)


def _unlike() -> list[str]:
    """Return the first of the models whose layers are put together alike, for pruning."""
    first: dict[object, str] = {}
    for name in LANGUAGE_CONFIGS:
        each = architecture_of(name)
        alike = (each.inputs, each.axes("channels"), each.axes("heads"), tuple(each.added_to_stream), each.transposed)
        first.setdefault(alike, name)
    return list(first.values())


UNLIKE = _unlike()


def make_model(folder: Path, name: str = "llama", *, seed: int = 0, **how: Any) -> Path:
    """Save a random model, as `_saved` makes it once of each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in _saved(name, seed, **how).items():
        (folder / file).write_bytes(content)
    torch.manual_seed(seed)  # whether it was made now or before, the same random numbers follow
    return folder


@cache
def _saved(
    name: str, seed: int, *, dtype: torch.dtype = torch.float32, max_shard_size: str = "1GB", hub_style: bool = False,
    **changes: object,
) -> dict[str, bytes]:  # fmt: skip
    """Return the files of a model; `hub_style` drops the backbone's prefix from the keys, as older hub files do."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(make_config(name, **changes), dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
            parameter.masked_fill_(parameter == 0, 0.001)  # as few bits may come to; in a trained model none does
    with TemporaryDirectory() as place:
        folder = Path(place)
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        if hub_style:
            tensors = load_file(folder / "model.safetensors")
            prefix = f"{model.base_model_prefix}."
            save_file(
                {key.removeprefix(prefix): value for key, value in tensors.items()},
                folder / "model.safetensors",
                {"format": "pt"},
            )
        return {file.name: file.read_bytes() for file in folder.iterdir()}


def make_tokens(samples: int = 6, length: int = 24, *, seed: int = 0, vocabulary: int = 96) -> torch.Tensor:
    return torch.randint(3, vocabulary, (samples, length), generator=torch.Generator().manual_seed(seed))
