"""Measurements on this machine's GPU: `python -m bench.gpu [--hours H] [--write docs/gpu.md]`.

First the tests that need a GPU; then, for models of real sizes from the smallest to the largest that has room here,
the pruning methods, each in a process of its own: seconds, how many of them in solvers, peak bytes of device and host;
and the speed of 2:4 zeros by torch's semi-structured kernels. Weights are random, for times and memory do not depend on
them; what methods do to a model's quality is measured elsewhere.

Figures are cached by the device, the releases and the sources: ended at its time limit or by Ctrl-C the command goes on
where it was. `--device cpu --shape tiny` is a dry run, whose figures no page takes.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.cells import (
    CACHE,
    CellFailed,
    Program,
    cell_key,
    engine_program,
    own_program,
    recall,
    remember,
    run,
)
from bench.gpu_report import GIB, Tables, page, pruned_row
from bench.machine import describe_machine, threads_available
from bench.page import write_section
from core.device_kinds import CUDA, device_kind
from core.settings import Settings
from worker.devices import DeviceReader

SECTION = "bench-gpu"
DISK_SHARE = 2.5
"""Free disk a model needs, as a multiple of its bytes: itself, what is pruned of it, and hidden states."""
TEST_FOLDERS = ("tests/engine", "tests/worker")


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama, in bfloat16, and of the calibration it is pruned by."""

    width: int
    intermediate: int
    layers: int
    head_size: int
    key_value_heads: int
    vocabulary: int
    samples: int = 128
    length: int = 2048

    @property
    def bytes(self) -> int:
        """Return the bytes of its weights."""
        attention = 2 * self.width**2 + 2 * self.width * self.head_size * self.key_value_heads
        block = attention + 3 * self.width * self.intermediate + 2 * self.width
        return 2 * (self.layers * block + self.vocabulary * self.width + self.width)


SHAPES = {
    "tiny": Shape(64, 192, 2, 16, 2, 256, samples=4, length=32),
    "1B": Shape(2048, 8192, 16, 64, 8, 128_256),
    "8B": Shape(4096, 14_336, 32, 128, 8, 128_256),
    "70B": Shape(8192, 28_672, 80, 128, 8, 128_256),
}
"""Llamas by name: these are the third generation's, with one matrix for embeddings and head."""


@dataclass(frozen=True)
class Method:
    """A row of the table."""

    title: str
    method: str
    pattern: str
    sparsity: float


METHODS = (
    Method("Wanda, 50 %", "wanda", "unstructured", 0.5),
    Method("SparseGPT, 50 %", "sparsegpt", "unstructured", 0.5),
    Method("SparseGPT, 2:4", "sparsegpt", "2:4", 0.5),
    Method("Frontier, 50 %", "frontier", "unstructured", 0.5),
    Method("structured (l2), 25 %", "l2-structured", "structured", 0.25),
)
TOKENS = (1, 16, 256, 4096)
"""Tokens at a time for which 2:4 is timed: decoding one text, decoding several, and reading a prompt."""


class OutOfTime(Exception):
    """The time limit was reached: what is missing is measured by the next call."""


class Bench:
    """Runs cells on one device until the time is over, or recalls what they gave."""

    def __init__(self, device: str, machine: str, deadline: float) -> None:
        self._common = {"device": device, "threads": threads_available()}
        self._machine = machine
        self._deadline = deadline

    def figures(
        self, program: Program, spec: dict[str, Any], prepare: Callable[[], None] | None = None
    ) -> dict[str, Any]:
        """Return a cell's result, of now or before, with the host's peak bytes; raises CellFailed, OutOfTime.

        `prepare` is called before a cell that has to run.
        """
        spec = self._common | spec
        key = cell_key(program, spec, self._machine)
        if (known := recall(key)) is not None:
            return known
        if prepare is not None:
            prepare()
        measured = self.run(program, spec, key)
        remember(key, measured)
        return measured

    def run(self, program: Program, spec: dict[str, Any], key: str) -> dict[str, Any]:
        """Run a cell in the time that is left, whatever is known of it."""
        seconds = self._deadline - time.monotonic()
        if seconds <= 0:
            raise OutOfTime
        try:
            measured = run(program, self._common | spec, key, limit_seconds=seconds)
        except TimeoutError:
            raise OutOfTime from None
        return measured.result | {"host_peak_bytes": measured.peak_bytes}


def measure(bench: Bench, shapes: Sequence[str], methods: Sequence[Method], tests: bool, tables: Tables) -> None:
    """Fill in the tables; raises OutOfTime, with what was measured until then in them."""
    if tests:
        tables.tests = bench.figures(_tests_program(), {"folders": list(TEST_FOLDERS)})
        tables.has_failed = bool(tables.tests["failed"]) or not tables.tests["counts"].get("passed")
    for name in shapes:
        if (reason := _lacks(SHAPES[name])) is not None:
            tables.notes.append(f"{name} was left out: {reason}.")
            continue
        _prune_all(bench, name, methods, tables)
        _time_sparse(bench, name, tables)
    tables.is_complete = True


def _lacks(shape: Shape) -> str | None:
    """Return what this machine has too little of for a model, None where it has enough."""
    CACHE.mkdir(parents=True, exist_ok=True)
    needed, free = DISK_SHARE * shape.bytes, shutil.disk_usage(CACHE).free
    if free < needed:
        return f"it needs {needed / GIB:.0f} GiB of disk, {free / GIB:.0f} are free"
    return None


def _prune_all(bench: Bench, name: str, methods: Sequence[Method], tables: Tables) -> None:
    """Add the rows of one model, which is written where one has to be measured, and removed in the end."""
    shape, folder, output = SHAPES[name], CACHE / "models" / f"gpu-{name}", CACHE / "checkpoints" / f"gpu-{name}"
    program = engine_program("bench.gpu_cell")
    sizes = asdict(shape) | {"dtype": "bfloat16"}

    def write_model() -> None:
        if not (folder / "tokens.safetensors").exists():
            bench.run(own_program("bench.deep_model_cell"), sizes | {"output": str(folder)}, f"gpu-{name}-model")

    tables.calibration[name] = f"{shape.samples} x {shape.length} tokens"
    try:
        for method in methods:
            spec = {
                "task": "prune", "method": method.method, "pattern": method.pattern, "sparsity": method.sparsity,
                "parameters": {}, "model": str(folder), "tokens": str(folder / "tokens.safetensors"),
                "output": str(output), "sizes": sizes,
            }  # fmt: skip
            try:
                figures = bench.figures(program, spec, write_model)
            except CellFailed as failure:
                tables.has_failed |= not _is_out_of_memory(failure)
                reason = "out of memory" if _is_out_of_memory(failure) else "failed"
                tables.pruned.append([name, method.title, reason, *[""] * 4])
                print(f"{name}, {method.title}: {failure}", file=sys.stderr, flush=True)
            else:
                tables.pruned.append([name, method.title, *pruned_row(figures)])
                tables.precisions.add((figures["forward_dtype"], figures["solve_precision"]))
            shutil.rmtree(output, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(output, ignore_errors=True)


def _is_out_of_memory(failure: CellFailed) -> bool:
    return "OutOfMemoryError" in str(failure) or "MemoryError" in str(failure)


def _time_sparse(bench: Bench, name: str, tables: Tables) -> None:
    """Add the rows of 2:4 of one model's largest linear layer."""
    shape, program = SHAPES[name], engine_program("bench.gpu_cell")
    for tokens in TOKENS:
        spec = {"task": "semi_structured", "inputs": shape.width, "outputs": shape.intermediate, "tokens": tokens}
        timed = bench.figures(program, spec)
        dense, sparse = timed["dense_seconds"], timed.get("sparse_seconds")
        speed = ["–", "–"] if sparse is None else [f"{1e6 * sparse:.0f}", f"{dense / sparse:.2f}"]
        tables.sparse.append(
            [name, f"{shape.width} to {shape.intermediate}", f"{tokens}", f"{1e6 * dense:.0f}", *speed]
        )
        if (
            "reason" in timed
            and (note := f"2:4 has no kernel here: {timed['reason'].rstrip('.')}.") not in tables.notes
        ):
            tables.notes.append(note)


def _tests_program() -> Program:
    tests = sorted(Path("tests").rglob("*.py"))
    return engine_program("bench.gpu_tests_cell", tests)


def refusal(device: str) -> str | None:
    """Return why nothing can be measured on a device here, None where it can; nothing loads torch."""
    if device_kind(device) is not CUDA:
        return None
    card = DeviceReader(Settings(device=CUDA.name)).read()
    if card is None:
        return "this machine has no NVIDIA GPU that its driver knows; `--device cpu --shape tiny` is a dry run"
    return None if card.failure is None else f"the GPU of this machine failed: {card.failure}"


def name_of(device: str) -> str:
    """Return the name of a device and of its machine."""
    card = DeviceReader(Settings(device=CUDA.name)).read() if device_kind(device) is CUDA else None
    return f"{device if card is None else card.name}; {describe_machine()}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--device", default=CUDA.name)
    parser.add_argument("--shape", action="append", choices=SHAPES, help="these models alone; else all but tiny")
    parser.add_argument("--method", action="append", choices=sorted({each.method for each in METHODS}))
    parser.add_argument("--hours", type=float, default=4.0, help="most that it may take; the next call goes on")
    parser.add_argument("--write", metavar="PAGE", help="replace the page's section too")
    options = parser.parse_args(arguments)
    if options.write and device_kind(options.device) is not CUDA:
        parser.error("--write is for figures of a GPU, and this would be a dry run")
    if (reason := refusal(options.device)) is not None:
        print(f"bench.gpu: {reason}", file=sys.stderr)
        return 2
    machine, tables = name_of(options.device), Tables()
    bench = Bench(options.device, machine, time.monotonic() + 3600 * options.hours)
    shapes = options.shape or [name for name in SHAPES if name != "tiny"]
    methods = [each for each in METHODS if not options.method or each.method in options.method]
    is_gpu = device_kind(options.device) is CUDA
    try:
        bench.run(engine_program("bench.gpu_cell"), {"task": "look"}, "gpu-look")
        measure(bench, shapes, methods, tests=is_gpu, tables=tables)
    except CellFailed as failure:
        print(f"bench.gpu: {options.device} cannot be used by torch, or a cell failed: {failure}", file=sys.stderr)
        tables.has_failed = True
    except (OutOfTime, KeyboardInterrupt):
        print("ended before all was measured: the same command goes on", file=sys.stderr)
    command = " ".join(["python -m bench.gpu", *(arguments if arguments is not None else sys.argv[1:])])
    text = page(tables, machine, command)
    print(text)
    if options.write and (tables.pruned or tables.sparse):
        write_section(Path(options.write), SECTION, text)
    return int(tables.has_failed)


if __name__ == "__main__":
    sys.exit(main())
