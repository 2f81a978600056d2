"""Prunings of models of real sizes on a device, each in a process of its own, and the speed of 2:4. Loads no torch.

Figures are kept by the device, the releases and the sources. On a CPU, with the model `tiny` alone, it is a dry run.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.cells import CACHE, Cell, CellFailed, Figures, cell_key, engine_program, run
from bench.contest import Contest, checkpoint_place
from bench.machine import describe_machine
from bench.sources import MissingData
from core.device_kinds import CUDA, device_kind
from core.settings import Settings
from worker.devices import DeviceReader

_GIB = 2**30
_DISK_SHARE = 2.5
"""Free disk a model needs, as a multiple of its bytes: itself, what is pruned of it, and hidden states."""
_MODELS = CACHE / "models"
_SIZES = ("width", "intermediate", "layers", "head_size", "key_value_heads", "vocabulary", "samples", "length")


def prepare(spec: Mapping[str, Any], bodies: Sequence[Mapping[str, Any]], threads: int) -> Contest:
    """Return the cells of bodies, which have the sizes of a Llama, and a method or so many `tokens`, on a `device`.

    Raises MissingData where the device is not there.
    """
    device, common = spec["device"], {"device": spec["device"], "threads": threads}
    card = DeviceReader(Settings(device=CUDA.name)).read() if device_kind(device) is CUDA else None
    if device_kind(device) is CUDA and (card is None or card.failure is not None):
        raise MissingData(
            "this machine has no NVIDIA GPU that works: "
            + ("its driver knows none" if card is None else f"{card.failure}")
            + "; `--set contest.spec.device='\"cpu\"' --only tiny` is a dry run"
        )
    machine = f"{device if card is None else card.name}; {describe_machine()}"

    def cell(title: str, body: Mapping[str, Any]) -> Cell:
        sizes = {name: body[name] for name in _SIZES}
        prunes = "method" in body
        program = engine_program(
            f"bench.capacity_cell:{'prune' if prunes else 'semi_structured'}",
            [Path(__file__).parents[1] / "prune_cell.py"],
        )
        key = cell_key(program, {**common, **body}, machine)

        def work() -> Figures:
            if not prunes:
                return run(program, {**common, **body}, key).result
            with checkpoint_place(key) as output:
                paths = {"model": str(_written(sizes, threads)), "output": str(output)}
                done = run(program, {**common, **body, **paths}, key)
            return {**done.result, "host_peak_bytes": done.peak_bytes}

        return Cell(title, key, work)

    return Contest(cell, {}, [machine])


def _written(sizes: Mapping[str, Any], threads: int) -> Path:
    """Return the folder of a model, which is written in place of all others; raises CellFailed without room for it."""
    folder = _MODELS / f"capacity-{sizes['width']}"
    if not (folder / "tokens.safetensors").exists():
        for other in _MODELS.glob("capacity-*"):
            shutil.rmtree(other)
        block = 2 * sizes["width"] * (sizes["width"] + sizes["head_size"] * sizes["key_value_heads"])
        block += 3 * sizes["width"] * sizes["intermediate"]
        needed = _DISK_SHARE * 2 * (sizes["layers"] * block + sizes["vocabulary"] * sizes["width"])
        _MODELS.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(_MODELS).free) < needed:
            raise CellFailed(f"it needs {needed / _GIB:.0f} GiB of disk, {free / _GIB:.0f} are free")
        spec = {**sizes, "dtype": "bfloat16", "threads": threads, "output": str(folder)}
        run(engine_program("bench.capacity_cell:write_model"), spec, folder.name)
    return folder
