"""One baseline's pruning in a process of its own: load, choose and cut, save."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.structured.baselines import osscar, slimgpt
from bench.structured.baselines.slicegpt import save_sliced, slice_model, width_for
from bench.structured.baselines.walk import Walk, dense_model, linear, set_weight
from core.engine.architectures.description import require_structure
from core.engine.architectures.heterogeneous import per_layer_config
from core.engine.datasets.formats import detect_format
from core.engine.datasets.text_files import read_documents
from core.engine.datasets.token_windows import calibration_windows
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.tensors import DTYPES, write_tensors

MULTIPLE = 8
"""Channels that stay are a multiple of this, as those of the product on a CPU."""


def prune(spec: dict[str, Any]) -> dict[str, Any]:
    """Prune the spec's `model` by its `baseline` into its `output`, of `share` of its blocks' parameters; calibrated on
    `samples` windows of `length` tokens of `text`, drawn by `seed` as the product draws them.
    """
    folder, text = open_model(Path(spec["model"])), Path(spec["text"])
    windows = calibration_windows(
        read_documents(text, detect_format(text)),
        folder.tokenizer(),
        samples=spec["samples"],
        length=spec["length"],
        seed=spec["seed"],
        name=text.name,
    )
    return cut(spec["baseline"], folder, windows, spec["share"], Path(spec["output"]))


def cut(baseline: str, folder: ModelFolder, tokens_NT: Tensor, share: float, output: Path) -> dict[str, Any]:
    """Write what a baseline leaves of a model; the seconds of it, without loading and saving where they are apart."""
    begun = time.perf_counter()
    if baseline == "slicegpt":
        width = width_for(folder, round((1 - share) * require_structure(folder.description).parameters))
        model = slice_model(folder, tokens_NT, width)
        done = time.perf_counter()
        save_sliced(model, folder, output, width)
        return _told(done - begun, folder.raw_config, width)
    choose, counts = _CHANNELS[baseline](folder, share)
    tensors = _cut_channels(folder, tokens_NT, counts, choose)
    done = time.perf_counter()
    config = _config(folder, counts)
    file = output.with_name(f"{output.name}.tensors.safetensors")
    output.mkdir(parents=True, exist_ok=True)
    write_tensors(file, tensors)
    write_checkpoint([file], [], folder.path, output, config=config)
    file.unlink()
    return _told(done - begun, config, None)


def _told(seconds: float, config: dict[str, Any], sliced_width: int | None) -> dict[str, Any]:
    return {"seconds": {"prune": seconds}, "notes": [], "config": config, "sliced_width": sliced_width}


Choice = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""Function of weights [out, channels], XᵀX [channels, channels] and a number: channels that stay, weights then."""


def _slimgpt(folder: ModelFolder, share: float) -> tuple[Choice, list[int]]:
    width, total = folder.config.intermediate_size, _channels_left(folder, share)
    return slimgpt.choose, slimgpt.widths(folder.description.layers, width, total, MULTIPLE)


def _osscar(folder: ModelFolder, share: float) -> tuple[Choice, list[int]]:
    layers = folder.description.layers
    width = max(MULTIPLE, round(_channels_left(folder, share) / layers / MULTIPLE) * MULTIPLE)
    return osscar.choose, [width] * layers


_CHANNELS: dict[str, Callable[[ModelFolder, float], tuple[Choice, list[int]]]] = {
    "slimgpt": _slimgpt,
    "osscar": _osscar,
}


def _channels_left(folder: ModelFolder, share: float) -> int:
    """Return the channels that stay, of all layers, where they alone make up that share of the blocks' parameters."""
    description, width = folder.description, int(folder.config.intermediate_size)
    removed = round(share * require_structure(description).parameters / (3 * description.hidden_size))
    return width * description.layers - removed


@torch.inference_mode()
def _cut_channels(folder: ModelFolder, tokens_NT: Tensor, counts: list[int], choose: Choice) -> dict[str, Tensor]:
    """The model's tensors with so many channels left in each layer's FFN, chosen with what the layers before became."""
    model = dense_model(folder)
    walk = Walk.begin(model, model.model.layers, tokens_NT)
    for number, block in walk.steps():
        down = linear(block, "mlp.down_proj")
        if counts[number] < down.in_features:
            left, weight = choose(down.weight.double(), walk.moments(block, down), counts[number])
            set_weight(down, weight[:, left].float())
            for name in ("gate", "up"):
                reader = linear(block, f"mlp.{name}_proj")
                set_weight(reader, reader.weight[left])
    dtype = DTYPES[folder.description.dtype]
    return {name: each.to(dtype) for name, each in model.named_parameters()}


def _config(folder: ModelFolder, counts: list[int]) -> dict[str, Any]:
    key = folder.family.width_key
    if len(set(counts)) == 1:
        return folder.raw_config | {key: counts[0]}
    own = [{key: each} if each != folder.raw_config[key] else {} for each in counts]
    return per_layer_config(folder.raw_config, folder.family, own)
