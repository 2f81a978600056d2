"""Peak memory of the prune stage over depth: N layers and 4 N layers of one width need the same.

python -m bench.depth_memory [--fresh] [--write docs/benchmarks.md]
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cells import CACHE, CellFailed, cell_key, own_program, recall, remember, run
from bench.machine import describe_machine, threads_available
from bench.page import table, write_section

MIB = 2**20
METHOD = "sparsegpt"
"""The method that keeps the most beside a block: Gram matrices and their factors."""


@dataclass(frozen=True)
class Depth:
    """One model's figures, in bytes."""

    layers: int
    model_bytes: int
    peak_bytes: int


def measure(layers: int, *, width: int, samples: int, length: int, threads: int, fresh: bool) -> Depth:
    """Write a random model, prune it, forget it; raises CellFailed."""
    writer, pruner = own_program("bench.deep_model_cell"), own_program("bench.prune_cell")
    folder = CACHE / "models" / f"deep-{width}-{layers}"
    shape = {"width": width, "layers": layers, "samples": samples, "length": length, "threads": threads}
    output = CACHE / "checkpoints" / folder.name
    spec = {
        "model": str(folder),
        "tokens": str(folder / "tokens.safetensors"),
        "output": str(output),
        "method": METHOD,
        "pattern": "unstructured",
        "sparsity": 0.5,
        "parameters": {},
        "threads": threads,
    }
    key = cell_key(pruner, spec | shape, describe_machine())
    figures = None if fresh else recall(key)
    if figures is None:
        try:
            written = run(writer, shape | {"output": str(folder)}, f"{key}-model")
            pruned = run(pruner, spec, key)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(output, ignore_errors=True)
        figures = {"model_bytes": written.result["model_bytes"], "peak_bytes": pruned.peak_bytes}
        remember(key, figures)
    return Depth(layers, **figures)


def report(depths: Sequence[Depth], *, width: int, samples: int, length: int) -> str:
    """The section of the page."""
    first = depths[0]
    rows = [
        [
            f"{depth.layers}",
            f"{depth.model_bytes / MIB:,.0f} MiB",
            f"{depth.peak_bytes / MIB:,.0f} MiB",
            f"{depth.peak_bytes / first.peak_bytes:.2f}",
        ]
        for depth in depths
    ]
    return (
        f"{METHOD}, 50 %, Llama-like with random weights, width {width}, float32, {samples} × {length} tokens; "
        f"{describe_machine()}. Peak of the whole process, interpreter and libraries included.\n\n"
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
    try:
        depths = [
            measure(layers, **size, threads=threads_available(), fresh=given.fresh)
            for layers in (given.layers, 4 * given.layers)
        ]
    except CellFailed as error:
        print(error, file=sys.stderr)
        return 1
    text = report(depths, **size)
    print(f"\n{text}", flush=True)
    if given.write:
        write_section(given.write, "depth_memory", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
