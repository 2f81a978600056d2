"""Latency predicted from measured costs of parts, against the measured latency of shapes that were never timed.

`python -m bench.part_costs [--write docs/latency.md]`. Each engine has a table, then unseen shapes of the sample model
are timed in turn with the dense one. Figures are cached by the work, the code that does it and the machine.
"""

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.cells import CACHE, Cell, Figures, Runner, cell_key, engine_program, own_release, run
from bench.machine import describe_machine, threads_available
from bench.page import show, table
from core.engine.architectures.description import inspect_folder
from core.engine.latency.costs import ModelWidths, PartCosts, Workload, standard_error
from core.engine.latency.model_widths import dense_shape, model_widths
from core.engine.latency.registry import ENGINES
from core.engine.latency.variants import BlockVariant, ModelShape
from core.settings import get_settings
from worker.samples.language import MODEL

SECTION: Final = "part-costs"
_MISSING: Final = 0.08
"""Share of layers that lose their attention, their FFN, or both."""
_STEP: Final = 64
_SMALL_VOCABULARY: Final = 1 / 3


@dataclass(frozen=True)
class Comparison:
    """One shape in one engine: prediction ÷ measurement of prefill and decode step, and two standard errors of these.

    `relative` has the same of both divided by the dense model's.
    """

    ratios: tuple[float, float]
    relative: tuple[float, float]
    noise: tuple[float, float]


def unseen_shapes(model: ModelWidths, layers: int, count: int, *, without_ffn: bool, seed: int = 0) -> list[ModelShape]:
    """Return shapes of random widths and KV groups, with parts left out, and every other of a smaller vocabulary.

    The first layer keeps its parts: llama.cpp reads the size of the heads from it.
    """
    drawn, shapes = random.Random(seed), []
    for number in range(count):
        most = drawn.uniform(0.3, 1.0)
        blocks: list[BlockVariant] = []
        for _ in range(layers):
            width = max(round(most * drawn.uniform(0.5, 1.0) * model.block.ffn_width / _STEP), 1) * _STEP
            groups = drawn.randint(1, model.block.kv_groups)
            lost = drawn.random()
            if not blocks or lost >= 3 * _MISSING:
                pass
            elif lost < _MISSING:
                groups = 0
            elif lost < 2 * _MISSING:
                groups, width = groups if without_ffn else 0, 0
            else:
                groups, width = 0, 0
            blocks.append(BlockVariant(groups, width))
        rows = round(model.vocabulary * _SMALL_VOCABULARY) if number % 2 else model.vocabulary
        shapes.append(ModelShape(tuple(blocks), rows))
    return shapes


def compared(costs: PartCosts, shapes: Sequence[ModelShape], seconds: Sequence[Any]) -> Iterator[Comparison]:
    """Yield the comparison of each shape but the first, the dense one."""
    dense = costs.predict(shapes[0])
    for shape, rounds in list(zip(shapes, seconds, strict=True))[1:]:
        predicted = costs.predict(shape)
        ratios, relative, noise = [], [], []
        for place in range(2):
            own = [1000 * each[place] for each in rounds]
            of_dense = [each[place] / base[place] for each, base in zip(rounds, seconds[0], strict=True)]
            ratios.append(predicted[place] / median(own))
            relative.append(predicted[place] / dense[place] / median(of_dense))
            noise.append(2 * standard_error(of_dense) / median(of_dense))
        yield Comparison((ratios[0], ratios[1]), (relative[0], relative[1]), (noise[0], noise[1]))


def row_of(engine: str, name: str, place: int, found: Sequence[Comparison]) -> tuple[str, ...]:
    """Return the row of one kind of pass in an engine."""
    errors, relative = (
        [abs(pair[place] - 1) for pair in pairs]
        for pairs in ([each.ratios for each in found], [each.relative for each in found])
    )
    return (
        ENGINES[engine].title,
        name,
        f"{len(found)}",
        f"{median(errors):.1%}",
        f"{max(errors):.1%}",
        f"{median(relative):.1%}",
        f"{max(relative):.1%}",
        f"{median(each.noise[place] for each in found):.1%}",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.part_costs", description=__doc__)
    parser.add_argument("--model", type=Path, default=get_settings().models_root / MODEL, help="folder of safetensors")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=["llama-cpp", "openvino"])
    parser.add_argument("--shapes", type=int, default=20, help="unseen shapes of each engine (default 20)")
    parser.add_argument("--at-once", type=int, default=5, help="shapes of a cell, timed in turn (default 5)")
    parser.add_argument("--threads", type=int, default=threads_available())
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    parser.add_argument("--recall", action="store_true", help="show what there is, and measure nothing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    given = parser.parse_args(arguments)
    model, machine = given.model.absolute(), describe_machine()
    description = inspect_folder(model)
    widths, layers = model_widths(description), len(dense_shape(description))
    (CACHE / "checkpoints").mkdir(parents=True, exist_ok=True)
    shapes: dict[str, list[list[ModelShape]]] = {}
    cells: dict[tuple[str, int], Cell] = {}

    def cell(engine: str, number: int, work: str, more: Figures) -> Cell:
        workload = Workload(engine=engine, type=next(iter(ENGINES[engine].types)), threads=given.threads)
        spec = {"model": str(model), "threads": given.threads, "workload": workload.model_dump(), **more}
        spec["version"] = ENGINES[engine].version
        program = engine_program(f"bench.part_costs_cell:{work}")
        key = cell_key(program, spec, machine)
        place = str((CACHE / "checkpoints").absolute())
        return Cell(f"{engine} {number}", key, lambda: run(program, spec | {"place": place}, key).result)

    for engine in given.engines:
        cells[engine, 0] = cell(engine, 0, "measure", {})
        unseen = unseen_shapes(widths, layers, given.shapes, without_ffn=ENGINES[engine].without_ffn)
        dense = ModelShape(dense_shape(description), widths.vocabulary)
        parts = [unseen[start : start + given.at_once] for start in range(0, len(unseen), given.at_once)]
        shapes[engine] = [[dense, *each] for each in parts]
        for number, each in enumerate(shapes[engine], 1):
            cells[engine, number] = cell(engine, number, "time", {"shapes": each})
    found = Runner.of(given).figures(cells, lambda figures: ", ".join(figures))
    rows = []
    for engine in given.engines:
        if (engine, 0) not in found:
            continue
        costs = PartCosts.model_validate(found[engine, 0])
        comparisons = [
            comparison
            for number, each in enumerate(shapes[engine], 1)
            if (engine, number) in found
            for comparison in compared(costs, each, found[engine, number]["seconds"])
        ]
        if comparisons:
            rows += [row_of(engine, name, place, comparisons) for place, name in enumerate(("prefill", "decode"))]
    if not rows:
        return 1
    header = ("engine", "pass", "shapes", "error", "largest", "÷ dense", "largest", "two standard errors")
    text = f"""{table(header, rows, text_columns=2)}

{machine}; {own_release()}. `python -m bench.part_costs`

Shapes of SmolLM2-135M-Instruct with random weights, {layers} layers of random widths and KV groups, some without
attention, FFN or both, half of them with a third of the vocabulary. A prompt of 128 tokens and 24 after it,
{given.threads} threads. Error: predicted ÷ measured, minus 1, as a median over shapes; ÷ dense: the same of the ratio
to the dense model, which was timed in turn; the last column is that of the measured ratio."""
    show(text, SECTION, given.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
