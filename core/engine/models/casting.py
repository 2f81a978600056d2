"""Folder of a model as it is saved in another dtype: which tensors are cast, and what the rounding costs."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from accelerate import init_empty_weights
from torch import Tensor
from transformers.initialization import no_init_weights

from core.counting import counted
from core.engine.architectures.description import stored_as
from core.engine.checkpoints.cast import CastEntry
from core.engine.checkpoints.quantisation import DTYPE_KEYS
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES, WEIGHT_DTYPES, TensorEntry
from core.engine.checkpoints.stacked import StackedEntry
from core.engine.models.folder import ModelFolder
from core.engine.models.loading import build_model
from core.engine.models.precision import kept_in_float32
from core.engine.models.tensors import DTYPES, cast_weight, read_tensor
from core.progress import Progress
from secateur_wire.base import JsonObject
from secateur_wire.job_body import StoredDtype

_AT_ONCE = 2**22
_STORED = {name: stored for stored, name in WEIGHT_DTYPES.items()}


@dataclass
class CastFigures:
    """Figures of a cast of a model's weights: numbers of tensors and of weights that were cast.

    `largest_relative_error` is of the rounding, over the weights that are normal numbers of the dtype; `largest_in` is
    the tensor that has it. `underflowed` counts weights that were not zero and became zero, `underflowed_tensors` the
    tensors that have any.
    """

    dtype: str
    tensors: int = 0
    weights: int = 0
    largest_relative_error: float = 0.0
    largest_in: str | None = None
    underflowed: int = 0
    underflowed_tensors: int = 0

    def add(self, name: str, weight: Tensor) -> None:
        """Add a tensor before its cast, some weights at a time; raises InvalidRequest as `cast_weight` does."""
        dtype, lost = DTYPES[self.dtype], 0
        for before in weight.view(-1).split(_AT_ONCE):
            after = before.to(dtype)
            if not after.isfinite().all():
                cast_weight(name, weight, dtype)
            lost += int(((after == 0) & (before != 0)).sum())
            magnitude = before.abs()
            is_normal = magnitude >= torch.finfo(dtype).tiny
            error = (before - after.to(before.dtype)).abs_().div_(magnitude.where(is_normal, 1.0))
            largest = float(error.mul_(is_normal).max())
            if largest > self.largest_relative_error:
                self.largest_relative_error, self.largest_in = largest, name
        self.tensors += 1
        self.weights += weight.numel()
        self.underflowed += lost
        self.underflowed_tensors += bool(lost)


def folder_as_stored(folder: ModelFolder, dtype: StoredDtype) -> ModelFolder:
    """Return a folder whose tensors are read, and saved, in the dtype of `output.dtype`.

    Only tensors that are wider are cast. Parameters and buffers that `from_pretrained(dtype=...)` keeps in float32 are
    left as they are. Where nothing is cast the folder itself is returned.
    """
    if dtype == "keep":
        return folder
    with init_empty_weights(include_buffers=True), no_init_weights():
        model = build_model(folder, DTYPES[dtype])
    is_kept = kept_in_float32(model, DTYPES[dtype])
    cast = {
        name: _STORED[dtype]
        for name, each in model.state_dict(keep_vars=True).items()
        if each.dtype is DTYPES[dtype] and not is_kept(name)
    }
    tensors = {name: _entry(entry, cast[name]) if name in cast else entry for name, entry in folder.tensors.items()}
    if tensors == folder.tensors:
        return folder
    return replace(
        folder,
        description=stored_as(folder.description, dtype),
        raw_config={"dtype": dtype} | _config_in(folder.raw_config, dtype),
        tensors=tensors,
    )


def cast_figures(stored: ModelFolder, dtype: str, progress: Progress) -> CastFigures:
    """Read every tensor that is cast, and return the figures; raises InvalidRequest for one beyond float16's range."""
    figures = CastFigures(dtype)
    entries = [each for entry in stored.tensors.values() for each in _cast_entries(entry) if each.numel]
    for entry in counted(entries, "rounding weights"):
        figures.add(entry.name, read_tensor(entry.source))
        progress.raise_if_stopped()
    return figures


def _cast_entries(entry: TensorEntry) -> Iterator[CastEntry]:
    if isinstance(entry, CastEntry):
        yield entry
    elif isinstance(entry, StackedEntry):
        for part in entry:
            yield from _cast_entries(part)


def _entry(entry: TensorEntry, dtype: str) -> TensorEntry:
    """Return a tensor's entry, cast where it is wider than the dtype."""
    if WEIGHT_BYTES.get(WEIGHT_DTYPES.get(entry.dtype, ""), 0) <= WEIGHT_BYTES[WEIGHT_DTYPES[dtype]]:
        return entry
    if isinstance(entry, StackedEntry):
        parts = tuple(tuple(_entry(each, dtype) for each in member) for member in entry.parts)
        return replace(entry, dtype=dtype, parts=parts)
    return CastEntry(entry.name, dtype, entry.shape, entry.file, entry.start, entry.end, source=entry)


def _config_in(config: JsonObject, dtype: str) -> JsonObject:
    """Return a config with this dtype wherever it, or the config of one of its parts, names one."""
    changed: JsonObject = {}
    for name, value in config.items():
        if name in DTYPE_KEYS:
            changed[name] = dtype
        else:
            changed[name] = _config_in(value, dtype) if name.endswith("_config") and isinstance(value, dict) else value
    return changed
