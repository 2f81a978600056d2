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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.cells import CACHE, Cell, CellFailed, Program, Runner, cell_key, engine_program, own_release, run
from bench.machine import describe_machine, threads_available
from bench.page import show, table
from core.device_kinds import CUDA, device_kind
from core.settings import Settings
from worker.devices import DeviceReader

SECTION = "bench-gpu"
GIB = 2**30
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


@dataclass
class Tables:
    """Figures that were measured, as the page has them."""

    tests: dict[str, Any] | None = None
    pruned: list[list[str]] = field(default_factory=list)
    sparse: list[list[str]] = field(default_factory=list)
    calibration: dict[str, str] = field(default_factory=dict)
    """Size of the calibration set of each model in `pruned`."""
    precisions: set[tuple[str, str]] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


def pruned_row(figures: dict[str, Any]) -> list[str]:
    """Return the cells of a row: seconds in all, of forwards and reading, and of solving; peaks of device and host."""
    total, solve, device = (figures[name] for name in ("prune_seconds", "solve_seconds", "device_peak_bytes"))
    parts = ["–", "–"] if solve is None else [f"{total - solve:.1f}", f"{solve:.1f}"]
    peaks = ["–" if device is None else f"{device / GIB:.2f}", f"{figures['host_peak_bytes'] / GIB:.2f}"]
    return [f"{total:.1f}", *parts, *peaks]


@dataclass
class Bench:
    """Measures one device of a machine into tables."""

    device: str
    machine: str
    runner: Runner
    tables: Tables = field(default_factory=Tables)

    def measure(self, shapes: Sequence[str], methods: Sequence[Method], *, tests: bool) -> None:
        """Fill in the tables, as far as the time is enough."""
        if tests:
            program = engine_program("bench.gpu_cell:run_tests", sorted(Path("tests").rglob("*.py")))
            cell = self._cell("tests", program, {"folders": list(TEST_FOLDERS)})
            self.tables.tests = self.runner.figures({None: cell}).get(None)
        for name in shapes:
            if (reason := _lacks(SHAPES[name])) is not None:
                self.tables.notes.append(f"{name} was left out: {reason}.")
            else:
                self._prune_all(name, methods)
                self._time_sparse(name)

    @property
    def has_failed(self) -> bool:
        """Return whether a test or a cell failed, and not for want of memory."""
        tests = self.tables.tests
        has_failed_test = tests is not None and (bool(tests["failed"]) or not tests["counts"].get("passed"))
        return has_failed_test or not all(map(_is_out_of_memory, self.runner.failures.values()))

    def run(self, program: Program, spec: dict[str, Any], key: str) -> dict[str, Any]:
        """Run a program in the time that is left; its result has the host's peak bytes. Raises TimeoutError."""
        left = None if self.runner.deadline is None else self.runner.deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        common = {"device": self.device, "threads": threads_available()}
        measured = run(program, common | spec, key, limit_seconds=left)
        return measured.result | {"host_peak_bytes": measured.peak_bytes}

    def _cell(
        self, title: str, program: Program, spec: dict[str, Any], prepare: Callable[[], None] = lambda: None
    ) -> Cell:
        """Return the cell of a program; `prepare` is called before it has to run."""
        key = cell_key(program, spec | {"device": self.device, "threads": threads_available()}, self.machine)

        def work() -> dict[str, Any]:
            prepare()
            return self.run(program, spec, key)

        return Cell(title, key, work)

    def _prune_all(self, name: str, methods: Sequence[Method]) -> None:
        """Add the rows of one model, which is written where one has to be measured, and removed in the end."""
        shape, folder = SHAPES[name], CACHE / "models" / f"gpu-{name}"
        output, sizes = CACHE / "checkpoints" / f"gpu-{name}", asdict(SHAPES[name]) | {"dtype": "bfloat16"}

        def prepare() -> None:
            shutil.rmtree(output, ignore_errors=True)
            if not (folder / "tokens.safetensors").exists():
                writer = engine_program("bench.deep_model_cell:write_model")
                self.run(writer, sizes | {"output": str(folder)}, f"gpu-{name}-model")

        def cell(method: Method) -> Cell:
            spec = {
                "method": method.method, "pattern": method.pattern, "sparsity": method.sparsity, "parameters": {},
                "model": str(folder), "tokens": str(folder / "tokens.safetensors"), "output": str(output),
                "sizes": sizes,
            }  # fmt: skip
            return self._cell(
                f"{name}, {method.title}",
                engine_program("bench.gpu_cell:prune", [Path(__file__).with_name("prune_cell.py")]),
                spec,
                prepare,
            )

        self.tables.calibration[name] = f"{shape.samples} x {shape.length} tokens"
        cells = {method: cell(method) for method in methods}
        try:
            found = self.runner.figures(cells, lambda figures: f"{figures['prune_seconds']:.1f} s")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(output, ignore_errors=True)
        for method, each in cells.items():
            if (figures := found.get(method)) is not None:
                self.tables.pruned.append([name, method.title, *pruned_row(figures)])
                self.tables.precisions.add((figures["forward_dtype"], figures["solve_precision"]))
            elif (why := self.runner.failures.get(each.title)) is not None:
                reason = "out of memory" if _is_out_of_memory(why) else "failed"
                self.tables.pruned.append([name, method.title, reason, *[""] * 4])

    def _time_sparse(self, name: str) -> None:
        """Add the rows of 2:4 of one model's largest linear layer."""
        shape, program = SHAPES[name], engine_program("bench.gpu_cell:semi_structured")
        cells = {
            tokens: self._cell(
                f"{name}, 2:4, {tokens} tokens",
                program,
                {"inputs": shape.width, "outputs": shape.intermediate, "tokens": tokens},
            )
            for tokens in TOKENS
        }
        for tokens, timed in self.runner.figures(
            cells, lambda timed: f"{1e6 * timed['dense_seconds']:.0f} µs dense"
        ).items():
            dense, sparse = timed["dense_seconds"], timed.get("sparse_seconds")
            speed = ["–", "–"] if sparse is None else [f"{1e6 * sparse:.0f}", f"{dense / sparse:.2f}"]
            layer = f"{shape.width} to {shape.intermediate}"
            self.tables.sparse.append([name, layer, f"{tokens}", f"{1e6 * dense:.0f}", *speed])
            if "reason" in timed:
                note = f"2:4 has no kernel here: {timed['reason'].rstrip('.')}."
                self.tables.notes += [note] if note not in self.tables.notes else []


def _lacks(shape: Shape) -> str | None:
    """Return what this machine has too little of for a model, None where it has enough."""
    CACHE.mkdir(parents=True, exist_ok=True)
    needed, free = DISK_SHARE * shape.bytes, shutil.disk_usage(CACHE).free
    if free < needed:
        return f"it needs {needed / GIB:.0f} GiB of disk, {free / GIB:.0f} are free"
    return None


def _is_out_of_memory(failure: str) -> bool:
    return "OutOfMemoryError" in failure or "MemoryError" in failure


def page(bench: Bench, command: str) -> str:
    """Return the section of the page: what was measured so far."""
    tables, parts = bench.tables, [f"Measured on **{bench.machine}** with {own_release()}: `{command}`."]
    if not bench.runner.runs:
        parts.append("The time limit ended the run; the same command goes on where it was.")
    if tables.tests is not None:
        counts = ", ".join(f"{number} {outcome}" for outcome, number in sorted(tables.tests["counts"].items()))
        failed = "".join(f"\n- failed: `{name}`" for name in tables.tests["failed"])
        parts.append(f"Tests that need a GPU: {counts or 'none ran'}.{failed}")
    if tables.pruned:
        header = ("model", "method", "seconds", "forwards", "solving", "device, GiB", "host, GiB")
        parts.append(table(header, tables.pruned))
        about = "; ".join(f"{name}: {size}" for name, size in tables.calibration.items())
        parts.append(
            f"Llamas with random weights in bfloat16; {about}. Seconds are of pruning alone, without loading libraries "
            "and writing the artifact; forwards have reading and statistics with them; peaks are of tensors on the "
            "device and of the process on the host."
        )
    if tables.precisions:
        said = "; ".join(
            f"forwards in {forward}, solvers in float32 with matrix precision `{solver}`"
            for forward, solver in sorted(tables.precisions)
        )
        parts.append(f"Precision: {said} (`highest` is without TF32).")
    if tables.sparse:
        columns = ("model", "linear layer", "tokens", "dense, µs", "2:4, µs", "times as fast")
        parts.append(table(columns, tables.sparse))
        parts.append("A linear layer in bfloat16, dense and in torch's semi-structured form; medians of 20 rounds.")
    return "\n\n".join([*parts, *tables.notes])


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
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    options = parser.parse_args(arguments)
    if options.write and device_kind(options.device) is not CUDA:
        parser.error("--write is for figures of a GPU, and this would be a dry run")
    if (reason := refusal(options.device)) is not None:
        print(f"bench.gpu: {reason}", file=sys.stderr)
        return 2
    bench = Bench(options.device, name_of(options.device), Runner.of(options))
    bench.runner.deadline = time.monotonic() + 3600 * options.hours
    shapes = options.shape or [name for name in SHAPES if name != "tiny"]
    methods = [each for each in METHODS if not options.method or each.method in options.method]
    try:
        bench.run(engine_program("bench.gpu_cell:look"), {}, "gpu-look")
    except TimeoutError:
        bench.runner.runs = False
    except CellFailed as failure:
        print(f"bench.gpu: {options.device} cannot be used by torch: {failure}", file=sys.stderr)
        return 1
    bench.measure(shapes, methods, tests=device_kind(options.device) is CUDA)
    command = " ".join(["python -m bench.gpu", *(arguments if arguments is not None else sys.argv[1:])])
    has_rows = bench.tables.pruned or bench.tables.sparse
    show(page(bench, command), SECTION, options.write if has_rows else None)
    return int(bench.has_failed)


if __name__ == "__main__":
    sys.exit(main())
