"""Trace of a pass over a language model: the bytes that a device would hold, from the engine's own pass without values.

The pass runs on a device without values. Where weights are set to zero it runs on the first blocks of the model, among
which there are all kinds. What it holds does not grow with depth, but for the inputs of all blocks that are kept while
gradients choose: the rest of these is added. Where units go all blocks are there.
"""

import json
from collections.abc import Iterable
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
from core.engine.models.folder import open_model
from core.engine.models.precision import gradient_dtype
from core.engine.models.tracing.without_values import META, Account, FolderWithoutValues, device_without_values
from core.methods.registry import parse_parameters
from core.pipeline.messages import PassQuestion, TracedPass
from core.pipeline.passes import walk_for
from core.pipeline.recipes.request import ResolvedRequest
from core.progress import Progress
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
        traced.method, traced.pattern, traced.sparsity, parameters, traced.layout, traced.at_least, traced.is_timed
    )
    with TemporaryDirectory() as temporary:
        place = Path(temporary)
        folder = source = _open(place / "model", question, question.config, question.tensors)
        if request.removal is not None and request.removal.zeroes:
            config, tensors = _first_blocks(folder.family, question.config, question.tensors)
            folder = _open(place / "first", question, config, tensors)
        with device_without_values(device_kind(traced.device)) as account:
            walk = walk_for(
                folder,
                request,
                device=META,
                calibration=None if traced.calibration is None else _tokens(traced.calibration),
                evaluations={str(number): _tokens(each) for number, each in enumerate(traced.evaluations)},
                work=place,
                activation_budget_bytes=traced.activation_budget_bytes,
                progress=(choosing := _Choosing(account)),
            )
            walk.measured_batches = 1  # each holds as much
            account.begin()
            walk.run()
            itemsize = gradient_dtype(walk.plan.dtype, META).itemsize
            inputs = [_block_inputs(request, traced, each.description, itemsize) for each in (folder, source)]
            return max(account.peak, choosing.peak + inputs[1] - inputs[0])


class _Choosing(Progress):
    """Listener that keeps apart what was held before the walk over the blocks, `peak`."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.peak = 0

    def stage(self, name: str) -> None:
        if name == "prune":
            self.peak = self._account.peak
            self._account.begin()


def _block_inputs(request: ResolvedRequest, traced: TracedPass, description: ModelDescription, itemsize: int) -> int:
    """Return the bytes of all blocks' inputs that are kept for the gradients by which layers get their rates."""
    options = request.parameters.allocation_options
    if traced.calibration is None or options is None or options.measured_allocation != "fisher":
        return 0
    sequences, length = traced.calibration
    tokens = min(options.fisher_sequences, sequences) * length
    return min(description.layers * tokens * description.hidden_size * itemsize, traced.activation_budget_bytes)


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


def _first_blocks(family: Architecture, config: JsonObject, tensors: Shapes) -> tuple[JsonObject, Shapes]:
    """Return config and tensors of a model's first blocks, as many as it takes to have one of each kind.

    Blocks are of one kind where their tensors have the same names, dtypes and shapes, and the config's lists say the
    same of them. All blocks are left of a model whose config does not give their number.
    """
    settings = part_of(config, family.config_path)
    count = family.config_value(config, "num_hidden_layers")
    if not isinstance(count, int):
        return config, tensors
    lists = {name: settings[name] for name in family.lists_by_layer if settings.get(name)}
    blocks: dict[int, list[object]] = {index: [entries[index] for entries in lists.values()] for index in range(count)}
    of_block = {key: _block_of(family, key) for key in tensors}
    for key, index in of_block.items():
        if index is not None and index < count:
            blocks[index].append((family.module_name(key).replace(f".{index}.", ".", 1), *tensors[key]))
    left = 1 + max(_firsts(map(repr, blocks.values())))
    changed = {name: entries[:left] for name, entries in lists.items()}
    changed[family.config_key(config, "num_hidden_layers")] = left
    reduced = with_part(config, family.config_path, {**settings, **changed})
    return reduced, {key: each for key, each in tensors.items() if (of_block[key] or 0) < left}


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
