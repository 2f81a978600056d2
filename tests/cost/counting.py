"""Counts of what a piece of work costs that are the same on every run: no times."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker
from transformers import PreTrainedModel


@dataclass
class Cost:
    """Cost of one stage: multiplications and additions of matrix products, loads of a whole model, and bytes.

    Solves and factorisations are not among the products.
    `read_bytes` and `written_bytes` went through system calls of this process; pages of memory maps are not among them.
    `allocations` are those of torch on the CPU, `peak_bytes` the most that they held at once.
    """

    flops: int = 0
    loads: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    allocations: int = 0
    peak_bytes: int = 0


def cost_of(work: Callable[[], object]) -> Cost:
    """Do the work twice, in this process; return what the second time cost, with all libraries loaded.

    The products are counted the first time, as the counter itself takes memory.
    """
    cost = Cost()
    products = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _flops_in_place})
    products.mod_tracker = _WholeWork()
    with products:
        work()
    cost.flops = products.get_total_flops()
    with _loads(cost), _no_collection(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as memory:
        before = _transferred()
        work()
        after = _transferred()
    cost.read_bytes, cost.written_bytes = after[0] - before[0], after[1] - before[1]
    held = 0
    for change in _changes(memory):
        held += change
        cost.allocations += change > 0
        cost.peak_bytes = max(cost.peak_bytes, held)
    return cost


class _WholeWork(ModuleTracker):
    """Tracker of no module: torch's own cannot follow gradients of inputs alone."""

    def __enter__(self) -> "_WholeWork":
        return self

    def __exit__(self, *unused: object) -> None: ...


def _flops_in_place(
    total: tuple[int, int], left: tuple[int, int], right: tuple[int, int], out_shape: object = None, **unused: object
) -> int:
    """Return the operations of a product that is added to a matrix in place, which torch does not count."""
    return 2 * left[0] * left[1] * right[1]


def _transferred() -> tuple[int, int]:
    """Return the bytes that this process has read and written so far."""
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counters["rchar"]), int(counters["wchar"])


@contextmanager
def _no_collection() -> Iterator[None]:
    """Collect no garbage: when that happens depends on what the process did before, and so would the most bytes."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def _loads(cost: Cost) -> Iterator[None]:
    """Count the models that are loaded whole."""
    load = PreTrainedModel.from_pretrained.__func__  # type: ignore[attr-defined]

    def counted(kind: type[PreTrainedModel], *arguments: Any, **more: Any) -> Any:
        cost.loads += 1
        return load(kind, *arguments, **more)

    PreTrainedModel.from_pretrained = classmethod(counted)  # type: ignore[assignment]
    try:
        yield
    finally:
        PreTrainedModel.from_pretrained = classmethod(load)  # type: ignore[method-assign]


def _changes(memory: profile) -> Iterator[int]:
    """Yield the bytes of each allocation, negative where it was released, in the order of time."""
    results = memory.profiler.kineto_results  # type: ignore[union-attr]
    events = [each for each in results.events() if each.name() == "[memory]"]
    yield from (each.nbytes() for each in sorted(events, key=lambda each: each.start_ns()))
