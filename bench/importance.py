"""GGUF types with an importance matrix and without: `python -m bench.importance [--write docs/gguf.md]`.

The sample model, dense and pruned, is rounded by llama.cpp twice, and measured there on the same windows. Figures are
cached by the cell's work, the code that does it and the machine.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from bench.cells import CACHE, Cell, Runner, cell_key, engine_program, own_release, run
from bench.gguf import sample_parser
from bench.machine import describe_machine
from bench.page import show, table
from bench.windows import Windows

SECTION = "bench-importance"
MODELS: Mapping[str, dict[str, Any]] = {
    "dense": {"method": "none", "sparsity": None, "parameters": {}},
    "sparsegpt 50 %": {"method": "sparsegpt", "sparsity": 0.5, "parameters": {}},
}
"""Changes of the sample model before its files are made: none, or pruning."""


def cell_of(name: str, given: argparse.Namespace) -> Cell:
    """Return the cell of a model."""
    model = given.model.absolute()
    windows = Windows(model, given.calibration.absolute(), "calibration", given.samples, given.length)
    spec = MODELS[name] | {
        "model": str(model),
        "tokens": str(windows.written(given.threads)),
        "text": str(given.evaluation.absolute()),
        "length": given.length,
        "types": given.types,
        "threads": given.threads,
    }
    program = engine_program("bench.importance_cell:measure", [Path(__file__).with_name("prune_cell.py")])
    key = cell_key(program, spec, describe_machine())
    output = (CACHE / "checkpoints" / f"importance-{key}").absolute()
    return Cell(name, key, lambda: run(program, spec | {"output": str(output)}, key).result)


def rows_of(name: str, figures: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """A row for each type: both files' bytes, KL and perplexity, and the ratio of these with its error."""
    for kind, (plain, weighted) in figures["files"].items():
        differences = [one - other for one, other in zip(weighted["losses"], plain["losses"], strict=True)]
        ratio, error = math.exp(fmean(differences)), stdev(differences) / math.sqrt(len(differences))
        yield (
            name,
            kind,
            *(f"{each['bytes'] / 1e6:.1f}" for each in (plain, weighted)),
            *(f"{each['kl']:.3g}" for each in (plain, weighted)),
            *(f"{math.exp(fmean(each['losses'])):.2f}" for each in (plain, weighted)),
            f"{ratio:.4f} ± {ratio * error:.4f}",
        )


def main(arguments: Sequence[str] | None = None) -> int:
    types = ("Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0")
    parser = sample_parser("importance", __doc__, length=512, types=types)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    given = parser.parse_args(arguments)
    cells = {name: cell_of(name, given) for name in given.models}
    figures = Runner.of(given).figures(cells, lambda figures: f"{len(figures['files'])} types")
    rows = [row for name, each in figures.items() for row in rows_of(name, each)]
    header = (
        "model",
        "type",
        "MB without",
        "with",
        "KL without",
        "with",
        "perplexity without",
        "with",
        "with ÷ without",
    )
    pruned = " `sparsegpt` takes them off it, by the same calibration tokens." if len(figures) > 1 else ""
    text = f"""{table(header, rows)}

Measured by `python -m bench.importance` on {describe_machine()}; {own_release()}.

The model is SmolLM2-135M-Instruct. Its sample was stored in 4 bits (Q4_1), so the weights of the dense model are on a
grid of 4 bits before they are rounded.{pruned} The matrix is of {given.samples} × {given.length} tokens of Wikipedia.
The KL divergence, in nats, is that of the file from the artifact. Perplexity is measured in llama.cpp on windows of
{given.length} tokens of other articles; its ratio has the standard error of the paired windows."""
    show(text, SECTION, given.write)
    return int(len(figures) < len(cells))


if __name__ == "__main__":
    sys.exit(main())
