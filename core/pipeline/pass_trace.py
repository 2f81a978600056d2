"""Trace of a pass over a language model: the bytes that a device would hold, from the engine's own pass without values.

The pass runs on a device without values, on models of a few of the blocks, among which all kinds are. What is held at
each place in the engine's code is a straight line over the number of blocks: two models give it, and the whole model's
bytes are read off it. Only hidden states end at the budget that they have.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from core.device_kinds import device_kind
from core.engine.architectures.architecture import Architecture
from core.engine.architectures.config_part import part_of, with_part
from core.engine.architectures.description import ModelDescription
from core.engine.checkpoints.files import CONFIG_FILE, SINGLE_FILE
from core.engine.checkpoints.safetensors_header import dtype_bytes, encode_header
from core.engine.cuts.cut import Cut
from core.engine.models.casting import folder_as_stored
from core.engine.models.folder import open_model
from core.engine.models.tracing.without_values import (
    META,
    AllocatedBytes,
    FolderWithoutValues,
    Place,
    device_without_values,
)
from core.methods.registry import parse_parameters
from core.pipeline.messages import PassQuestion, TracedPass
from core.pipeline.passes import walk_for
from core.pipeline.plans import cut_for_device
from core.pipeline.recipes.request import ResolvedRequest
from secateur_wire.base import JsonObject

Shapes = dict[str, tuple[str, tuple[int, ...]]]
"""Dtype and shape of each tensor, by the file's key."""


def trace_pass(question: PassQuestion) -> int:
    """Return the most bytes that a device holds during a pass.

    Raises ValueNeeded where the pass reads a value that a trace does not have, and whatever a model raises that does
    not run so.
    """
    traced = question.traced
    parameters = parse_parameters(traced.method, traced.parameters, traced.pattern)
    request = ResolvedRequest(
        traced.method, traced.pattern, traced.sparsity, parameters, traced.layout, traced.at_least
    )
    with TemporaryDirectory() as temporary:
        source = _open(Path(temporary) / "model", question, question.config, question.tensors)
        layers = source.description.layers
        cut = cut_for_device(torch.device(traced.device), request, source.description)
        numbers = _numbers_of_blocks(source, request, question.config, question.tensors, cut)
        runs: list[list[Mapping[Place, AllocatedBytes]]] = []
        for number in numbers:
            folder = source
            if number < layers:
                reduced = _first_blocks(source.family, question.config, question.tensors, number)
                folder = _open(Path(temporary) / str(number), question, *reduced)
            requests = _on_fewer_blocks(request, cut, folder.description)
            runs.append([_run(folder, each, traced) for each in requests])
    at_places = (_at_depth(each, numbers, layers, traced.activation_budget_bytes) for each in zip(*runs, strict=True))
    return max(map(max, at_places))


def _run(folder: FolderWithoutValues, request: ResolvedRequest, traced: TracedPass) -> Mapping[Place, AllocatedBytes]:
    """Run a pass, and return the most that is held at each place."""
    with TemporaryDirectory() as temporary, device_without_values(device_kind(traced.device)) as account:
        walk = walk_for(
            folder,
            request,
            device=META,
            quantization=traced.quantization,
            calibration=None if traced.calibration is None else _tokens(traced.calibration),
            evaluations={str(number): _tokens(each) for number, each in enumerate(traced.evaluations)},
            work=Path(temporary),
            activation_budget_bytes=traced.activation_budget_bytes,
            stored=folder_as_stored(folder, traced.dtype),
        )
        walk.measured_batches = 1  # each holds as much
        account.begin(lambda: walk.budget.used)
        walk.run()
        return account.most


def _at_depth(
    runs: Sequence[Mapping[Place, AllocatedBytes]], numbers: Sequence[int], layers: int, budget_bytes: int
) -> Iterable[int]:
    """Yield the bytes held at each place of a pass over so many blocks, from those of passes over fewer ones."""
    fewer, more = runs[0], runs[-1]
    steps = (layers - numbers[0]) / max(1, numbers[-1] - numbers[0])
    for place in {**fewer, **more}:
        last = more.get(place) or fewer[place]
        first = fewer.get(place, last)
        states = first.states + steps * max(0, last.states - first.states)
        rest: float = first.total - first.states
        rest += steps * max(0, last.total - last.states - rest)
        yield ceil(rest + min(states, max(budget_bytes, last.states)))


def _on_fewer_blocks(request: ResolvedRequest, cut: Cut, reduced: ModelDescription) -> Sequence[ResolvedRequest]:
    """Return requests by which each block of a reduced model loses as much as it does in the whole one of a cut."""
    if request.removal is None or request.removal.zeroes or not cut.sparsity:
        return [request]
    fewer = request.removal.on_fewer_layers(cut, reduced)
    return [replace(request, parameters=each.options, sparsity=each.sparsity) for each in fewer]


def _open(place: Path, question: PassQuestion, config: JsonObject, tensors: Shapes) -> FolderWithoutValues:
    """Open a folder of a config and of tensors that have no content, and take no room."""
    place.mkdir()
    (place / CONFIG_FILE).write_text(json.dumps(config))
    sizes = {name: dtype_bytes(dtype, shape) for name, (dtype, shape) in tensors.items()}
    header = encode_header((name, dtype, shape, sizes[name]) for name, (dtype, shape) in tensors.items())
    with (place / SINGLE_FILE).open("wb") as file:
        file.write(header)
        file.truncate(len(header) + sum(sizes.values()))
    return FolderWithoutValues.of(open_model(place, own_artifact=question.own_artifact, discovered=question.discovered))


def _numbers_of_blocks(
    source: FolderWithoutValues, request: ResolvedRequest, config: JsonObject, tensors: Shapes, cut: Cut
) -> Sequence[int]:
    """Return the numbers of blocks of the models that a pass is traced on: two, or one where more would hold the same.

    The fewest blocks have one of each kind. Blocks are of one kind where their tensors have the same names, dtypes and
    shapes, and the config's lists say the same of them. All blocks are run of a model whose config does not give their
    number, and of one with blocks of different tensors that does not keep all of its weights.
    """
    family, layers, removal = source.family, source.description.layers, request.pass_removal
    if family.config_value(config, "num_hidden_layers") != layers:
        return [layers]
    settings = part_of(config, family.config_path)
    lists = [settings[name] for name in family.lists_by_layer if settings.get(name)]
    blocks: list[list[object]] = [[] for _ in range(layers)]
    for key, each in tensors.items():
        index = _block_of(family, key)
        if index is not None and index < layers:
            blocks[index].append((family.module_name(key).replace(f".{index}.", ".", 1), *each))
    if not removal.zeroes and len(set(map(repr, blocks))) > 1:
        return [layers]
    kinds = [repr([block, *(entries[index] for entries in lists)]) for index, block in enumerate(blocks)]
    fewest = 1 + max(_firsts(kinds))
    allocation = request.parameters.allocation_options
    if removal.zeroes and (allocation is None or allocation.measured_allocation != "fisher"):
        return [fewest]  # nothing is held of more than a block
    if cut.sparsity:
        fewest = max(fewest, removal.fewest_layers(cut))
    return [fewest, fewest + 1] if fewest + 1 < layers else [layers]


def _first_blocks(family: Architecture, config: JsonObject, tensors: Shapes, number: int) -> tuple[JsonObject, Shapes]:
    """Return config and tensors of a model's first blocks."""
    settings = part_of(config, family.config_path)
    changed = {name: settings[name][:number] for name in family.lists_by_layer if settings.get(name)}
    changed[family.config_key(config, "num_hidden_layers")] = number
    reduced = with_part(config, family.config_path, {**settings, **changed})
    return reduced, {key: each for key, each in tensors.items() if (_block_of(family, key) or 0) < number}


def _firsts(values: Iterable[str]) -> Iterable[int]:
    """Return the first place of each value."""
    first: dict[str, int] = {}
    for place, value in enumerate(values):
        first.setdefault(value, place)
    return first.values()


def _block_of(family: Architecture, key: str) -> int | None:
    """Return the block that a tensor is of, by the file's key; None for one outside all blocks."""
    name = family.module_name(key)
    if not name.startswith(f"{family.blocks}."):
        return None
    number = name.removeprefix(f"{family.blocks}.").partition(".")[0]
    return int(number) if number.isdecimal() else None


def _tokens(shape: tuple[int, int]) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64)
