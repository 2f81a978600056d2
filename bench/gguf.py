"""The sample model cut to 70 % of its blocks, as files for llama.cpp: `python -m bench.gguf [--write docs/gguf.md]`.

Each cell prunes, writes the files, holds them against the artifact and times them beside the dense model's, in turn.
Figures are cached by the cell's work, the code that does it and the machine.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.cells import CACHE, Cell, Runner, cell_key, engine_program, own_release, run
from bench.machine import describe_machine, threads_available
from bench.page import show, table
from bench.windows import Windows
from core.settings import get_settings
from secateur_wire.metrics import ExportedFile, TokenRate
from worker.samples.language import CALIBRATION, EVALUATION, MODEL

SECTION = "bench-gguf"
LAYOUTS = {"uniform": "one width", "per_layer": "widths by layer"}
WORK = {"method": "flap", "sparsity": 0.237, "parameters": {"attention": "none"}}
"""30 % of the sample model's blocks: its embeddings stay. Channels go, heads stay."""


def cell_of(layout: str, given: argparse.Namespace) -> Cell:
    """Return the cell of a layout."""
    model = given.model.absolute()
    windows = Windows(model, given.calibration.absolute(), "calibration", given.samples, given.length)
    spec = WORK | {
        "model": str(model),
        "tokens": str(windows.written(given.threads)),
        "text": str(given.evaluation.absolute()),
        "layout": layout,
        "types": given.types,
        "threads": given.threads,
    }
    program = engine_program("bench.gguf_cell:measure", [Path(__file__).with_name("prune_cell.py")])
    key = cell_key(program, spec, describe_machine())
    output = (CACHE / "checkpoints" / f"gguf-{key}").absolute()
    return Cell(LAYOUTS[layout], key, lambda: run(program, spec | {"output": str(output)}, key).result)


def rows_of(layout: str, figures: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """A row for each file: what it is, its bytes and KL, and both speeds."""
    dense, pruned = figures["parameters"]
    for each in map(ExportedFile.model_validate, figures["files"]):
        speed = each.speed
        assert speed is not None
        yield (
            f"{LAYOUTS[layout]}, multiples of {figures['round_to']}",
            each.type,
            f"{pruned / 1e6:.1f} of {dense / 1e6:.1f}",
            f"{each.bytes / 1e6:.1f} of {speed.dense_bytes / 1e6:.1f}",
            f"{each.kl:.2g}",
            _rate(speed.prefill),
            _rate(speed.decode),
        )


def _rate(rate: TokenRate) -> str:
    return f"{rate.ratio:.2f} × ({rate.dense:.0f}, {rate.pruned:.0f}; ± {rate.spread:.0%})"


def sample_parser(name: str, description: str | None, *, length: int, types: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of a bench of GGUF files of the sample model: model, texts, windows, types and threads."""
    settings = get_settings()
    texts = {use: settings.datasets_root / f"{text}.jsonl" for use, text in (("c", CALIBRATION), ("e", EVALUATION))}
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=description)
    parser.add_argument("--model", type=Path, default=settings.models_root / MODEL, help="folder of safetensors")
    parser.add_argument("--calibration", type=Path, default=texts["c"], help="text to calibrate on")
    parser.add_argument("--evaluation", type=Path, default=texts["e"], help="text to measure on")
    parser.add_argument("--samples", type=int, default=32, help="windows to calibrate on (default 32)")
    parser.add_argument("--length", type=int, default=length, help=f"tokens of a window (default {length})")
    parser.add_argument("--types", nargs="+", default=list(types), help="of the files")
    parser.add_argument("--threads", type=int, default=threads_available())
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    parser = sample_parser("gguf", __doc__, length=256, types=("F16", "Q8_0"))
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=LAYOUTS)
    given = parser.parse_args(arguments)
    cells = {layout: cell_of(layout, given) for layout in given.layouts}
    found = Runner.of(given).figures(cells, lambda figures: f"{len(figures['files'])} files")
    rows = [row for layout, figures in found.items() for row in rows_of(layout, figures)]
    header = ("30 % of the blocks went", "type", "parameters, M", "MB", "KL, nats", "prefill", "decode")
    text = f"""{table(header, rows)}

Measured by `python -m bench.gguf` on {describe_machine()}; {own_release()}.

The model is SmolLM2-135M-Instruct. `flap` removed channels (heads stay), calibrated on {given.samples} × {given.length}
tokens, with no recovery. The KL divergence is that of the file from the artifact. The speed is tokens per second in
llama.cpp, pruned ÷ dense, with files of the same type, timed in turn with {given.threads} threads; both values and the
largest spread of the rounds are in brackets."""
    show(text, SECTION, given.write)
    return int(len(found) < len(cells))


if __name__ == "__main__":
    sys.exit(main())
