"""The sample model, dense and cut, in llama.cpp, OpenVINO and ONNX Runtime, timed in turn.

`python -m bench.engine_speeds [--write docs/engines.md]`. Figures are cached by the work, the code that does it and the
machine.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from bench.cells import CACHE, Cell, Runner, cell_key, engine_program, own_release, run
from bench.machine import describe_machine, threads_available
from bench.page import show, table
from bench.windows import Windows
from core.settings import get_settings
from worker.samples.language import CALIBRATION, EVALUATION, MODEL

SECTION: Final = "engine-speeds"
FILES: Final = (("gguf", "Q8_0"), ("openvino", "INT8"), ("gguf", "F16"), ("openvino", "F16"), ("onnx", "F32"))
NAMES: Final = {"gguf": "llama.cpp", "openvino": "OpenVINO", "onnx": "ONNX Runtime"}
WORK: Final = {"method": "flap", "sparsity": 0.158, "parameters": {"attention": "none"}}
"""20 % of the sample model's blocks: its embeddings stay. Channels go, heads stay."""


def rows_of(figures: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield a row for each file: the engine, its type, which model, bytes, KL, and both rates with their spread."""
    for each in figures["rows"]:
        yield (
            NAMES[each["form"]],
            each["type"],
            "80 % of the blocks" if each["pruned"] else "dense",
            f"{each['bytes'] / 1e6:.1f}",
            f"{each['kl']:.2g}",
            f"{each['prefill']:.0f} ± {each['prefill_spread']:.0%}",
            f"{each['decode']:.1f} ± {each['decode_spread']:.0%}",
        )


def main(arguments: Sequence[str] | None = None) -> int:
    settings = get_settings()
    parser = argparse.ArgumentParser(prog="python -m bench.engine_speeds", description=__doc__)
    parser.add_argument("--model", type=Path, default=settings.models_root / MODEL, help="folder of safetensors")
    for name, text in (("calibration", CALIBRATION), ("evaluation", EVALUATION)):
        parser.add_argument(f"--{name}", type=Path, default=settings.datasets_root / f"{text}.jsonl")
    parser.add_argument("--turns", type=int, default=3, help="times that all files are timed, in turn (default 3)")
    parser.add_argument("--threads", type=int, default=threads_available())
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    given = parser.parse_args(arguments)
    model = given.model.absolute()
    windows = Windows(model, given.calibration.absolute(), "calibration", 32, 256)
    spec = WORK | {
        "model": str(model),
        "tokens": str(windows.written(given.threads)),
        "text": str(given.evaluation.absolute()),
        "files": [list(each) for each in FILES],
        "turns": given.turns,
        "threads": given.threads,
    }
    program = engine_program("bench.engine_cell:measure", [Path(__file__).with_name("prune_cell.py")])
    key = cell_key(program, spec, describe_machine())
    output = (CACHE / "checkpoints" / f"engines-{key}").absolute()
    cell = Cell("speeds", key, lambda: run(program, spec | {"output": str(output)}, key).result)
    found = Runner.of(given).figures({"speeds": cell}, lambda figures: f"{len(figures['rows'])} files")
    if not found:
        return 1
    header = ("engine", "type", "model", "MB", "KL, nats", "prefill, tokens/s", "decode, tokens/s")
    text = f"""{table(header, list(rows_of(found["speeds"])), text_columns=3)}

{describe_machine()}; {own_release()}. `python -m bench.engine_speeds`

SmolLM2-135M-Instruct, channels removed by `flap` (heads stay), with no recovery. A prompt of 128 tokens and 32 after
it, {given.threads} threads, each engine as it is by itself: medians over all rounds of {given.turns} turns, in each of
which every file is timed, with the spread of rounds."""
    show(text, SECTION, given.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
