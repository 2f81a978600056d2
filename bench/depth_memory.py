"""Peak memory of the prune stage over depth: N layers and 4 N layers of one width need the same.

python -m bench.depth_memory [--fresh] [--write docs/benchmarks.md]
"""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.cells import CACHE, Cell, Runner, cell_key, engine_program, run
from bench.contest import MIB, checkpoint_place
from bench.machine import describe_machine, threads_available
from bench.page import show, table

METHOD = "sparsegpt"
"""The method that keeps the most beside a block: Gram matrices and their factors."""


def cell_of(layers: int, size: Mapping[str, int]) -> Cell:
    """Return the cell of a depth: a random model is written, pruned and forgotten."""
    pruner, folder = engine_program("bench.prune_cell:prune"), CACHE / "models" / f"deep-{size['width']}-{layers}"
    shape = {**size, "layers": layers, "threads": threads_available()}
    job = {"method": METHOD, "pattern": "unstructured", "sparsity": 0.5, "parameters": {}}
    key = cell_key(pruner, job | shape, describe_machine())

    def work() -> dict[str, Any]:
        try:
            writer = engine_program("bench.deep_model_cell:write_model")
            written = run(writer, shape | {"output": str(folder)}, f"{key}-model").result
            with checkpoint_place(key) as output:
                paths = {"model": str(folder), "tokens": str(folder / "tokens.safetensors"), "output": str(output)}
                pruned = run(pruner, job | paths | {"threads": shape["threads"]}, key)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return {"model_bytes": written["model_bytes"], "peak_bytes": pruned.peak_bytes}

    return Cell(f"{layers} layers", key, work)


def report(depths: Mapping[int, Mapping[str, int]], *, width: int, samples: int, length: int) -> str:
    """The section of the page."""
    first = next(iter(depths.values()))["peak_bytes"]
    rows = [
        [
            f"{layers}",
            f"{depth['model_bytes'] / MIB:,.0f} MiB",
            f"{depth['peak_bytes'] / MIB:,.0f} MiB",
            f"{depth['peak_bytes'] / first:.2f}",
        ]
        for layers, depth in depths.items()
    ]
    return (
        f"The job is {METHOD} at 50 % with {samples} × {length} tokens. The model is like Llama, with random weights "
        f"in float32 and a width of {width}. The machine is {describe_machine()}. The peak memory is that of the "
        "complete process, with the interpreter and the libraries.\n\n"
        + table(["layers", "weights", "peak memory", "ratio"], rows)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both depths, print the table; 1 where a run failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.depth_memory", description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=8, help="N; 4 N are measured too (default 8)")
    parser.add_argument("--width", type=int, default=512, help="hidden size (default 512)")
    parser.add_argument("--samples", type=int, default=32, help="calibration windows (default 32)")
    parser.add_argument("--length", type=int, default=512, help="tokens of a window (default 512)")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    given = parser.parse_args(arguments)
    size = {"width": given.width, "samples": given.samples, "length": given.length}
    cells = {layers: cell_of(layers, size) for layers in (given.layers, 4 * given.layers)}
    depths = Runner.of(given).figures(cells, lambda depth: f"{depth['peak_bytes'] / MIB:,.0f} MiB")
    if len(depths) < len(cells):
        return 1
    show(report(depths, **size), "depth_memory", given.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
