"""The frontier's bench: its plan, its tables from given figures, and that what was measured is not run again."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import contest
from bench.cells import Measured, Program, Runner, run
from bench.contest import Figures, Ground, dense_cell, own_contender
from bench.evaluate_cell import evaluate
from bench.frontier import cells_of, main
from bench.frontier_plan import SETTINGS, TARGETS, Plan, Pruning
from bench.frontier_report import page
from bench.judging_texts import IN_DOMAIN, OUT_OF_DOMAIN
from bench.page import write_section
from bench.windows import Windows
from core.engine.evaluation.zero_shot_tasks import TASKS
from core.engine.models.tensors import write_tensors
from tests.forked_processes import warm_python
from tests.model_folders import write_llama, write_text

ROOT = Path(__file__).parents[2]


def a_plan(**changed: Any) -> Plan:
    asked: dict[str, Any] = {
        "settings": ["sparsegpt", "refit"],
        "targets": ["50", "4:8"],
        "seeds": 3,
        "samples": 32,
        "compared": ["sparsegpt", "refit"],
        "sizes": [8, 32],
        "size_seeds": 1,
        "task_limit": 100,
        "task_targets": ["50", "2:4"],
    }
    return Plan(**asked | changed)


def figures(inside: float, outside: float, *, tasks: dict[str, dict[str, float]] | None = None) -> Figures:
    return Figures(
        seconds=12.0,
        processor_seconds=20.0,
        prune_seconds=inside / 10,
        peak_bytes=800 * 2**20,
        forward_dtype="float32",
        perplexity={IN_DOMAIN: inside, OUT_OF_DOMAIN: outside},
        sparsity=0.5,
        tasks=tasks or {},
        measured="2026-01-01T00:00:00+00:00",
    )


def answers(accuracy: float) -> dict[str, dict[str, float]]:
    return {
        name: {task.metric: accuracy, f"{task.metric}_stderr": 0.05, "samples": 300} for name, task in TASKS.items()
    }


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """The lines of the table under a heading, by their first cell."""
    section = text.partition(f"### {heading}\n")[2].partition("\n### ")[0]
    lines = [line.strip("| ").split("|") for line in section.splitlines() if line.startswith("|")]
    return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines}


def test_every_cell_comes_once_and_a_seed_is_whole_before_the_next() -> None:
    cells = a_plan().prunings()
    assert len(cells) == len(set(cells)) == 3 * 4 + 2
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    first = [cell for cell in cells if cell.seed == 0]
    assert {cell.samples for cell in first} == {8, 32}
    assert [cell for cell in cells if a_plan().is_asked(cell)] == [
        Pruning(name, "50", 0, 32) for name in a_plan().settings
    ]
    elsewhere = a_plan(task_targets=["4:8"])
    assert {cell.target for cell in cells if elsewhere.is_asked(cell)} == {"4:8"}
    assert not any(a_plan(task_limit=0).is_asked(cell) for cell in cells)


def test_a_cell_shows_mean_deviation_seeds_and_the_mean_of_the_ratios_to_the_same_seeds() -> None:
    found: dict[Pruning, Figures | None] = {
        Pruning("sparsegpt", "50", 0, 32): figures(40, 60),
        Pruning("sparsegpt", "50", 1, 32): figures(44, 60),
        Pruning("sparsegpt", "50", 2, 32): figures(90, 60),
        Pruning("refit", "50", 0, 32): figures(20, 60),
        Pruning("refit", "50", 1, 32): figures(33, 66),
        Pruning("refit", "4:8", 0, 32): figures(50, 70),
    }
    text = page(found, a_plan(), {"perplexity": {IN_DOMAIN: 20.5, OUT_OF_DOMAIN: 44.0}, "tasks": {}}, ["a machine"])
    inside = rows(text, "Perplexity in domain")
    assert inside["dense"] == ["20.50", "20.50"]
    assert inside["refit"] == ["26.50 ± 9.19 (2); 0.625", "50.00 (1); –"]
    assert inside["sparsegpt"] == ["58.00 ± 27.78 (3); 1.000", "–"]
    assert rows(text, "Perplexity out of domain")["refit"][0] == "63.00 ± 4.24 (2); 1.050"
    assert rows(text, "Seconds of pruning")["refit"][0] == "2.6 ± 0.9 (2); 0.625"
    assert rows(text, "Peak memory of the process, MiB")["refit"] == ["800 ± 0 (2); 1.000", "800 (1); –"]
    assert text.startswith("- a machine\n- Measured from 2026-01-01")
    assert '`{"method": "sparsegpt", "parameters": {"compensation": {"refit": 0.5}}}`' in text


def test_what_was_not_run_is_a_dash_and_what_is_not_offered_is_said() -> None:
    text = page({Pruning("refit", "50", 0, 32): None}, a_plan(), None, [])
    assert rows(text, "Perplexity in domain")["refit"] == ["not offered", "–"]
    assert "dense" not in rows(text, "Perplexity in domain")
    assert set(rows(text, "Zero-shot accuracy")["dense"][1:]) == {"–"}
    assert "Measured" not in text


@pytest.mark.parametrize(
    ("values", "verdict"), [((50, 40, 40), "yes"), ((50, 40, 41), "no: rises at 128"), ((50, None, 40), "–")]
)
def test_more_calibration_is_monotone_by_the_figures_alone(values: tuple[float | None, ...], verdict: str) -> None:
    sizes = [8, 32, 128]
    found: dict[Pruning, Figures | None] = {
        Pruning("refit", "50", 0, size): figures(value, 60) for size, value in zip(sizes, values, strict=True) if value
    }
    found[Pruning("refit", "50", 1, 32)] = figures(1, 1)  # of a seed that does not vary the sizes
    text = page(found, a_plan(compared=["refit"], sizes=sizes), None, [])
    lines = [line for line in text.splitlines() if line.startswith("| refit") and "| in domain" in line]
    assert [line.strip("| ").split("|")[-1].strip() for line in lines] == [verdict]
    assert f" {values[0]:.2f} (1); – |" in lines[0]


def test_tasks_have_their_standard_errors_and_the_mean_its_own() -> None:
    found: dict[Pruning, Figures | None] = {Pruning("sparsegpt", "50", 0, 32): figures(40, 60, tasks=answers(0.4))}
    plan = a_plan(compared=["sparsegpt"])
    shown = rows(
        page(found, plan, {"perplexity": {IN_DOMAIN: 1, OUT_OF_DOMAIN: 1}, "tasks": answers(0.5)}, []),
        "Zero-shot accuracy",
    )
    assert shown["sparsegpt"] == ["50 %", *["40.0 ± 5.0"] * len(TASKS), f"40.0 ± {5 / len(TASKS) ** 0.5:.1f}"]
    assert shown["dense"][1] == "50.0 ± 5.0"


def test_settings_fit_their_methods_parameters_and_the_page_has_the_section(tmp_path: Path) -> None:
    from core.methods.registry import METHODS

    for setting in SETTINGS.values():
        METHODS[setting.method].parameters.model_validate(setting.parameters)
    assert [each.title for each in TARGETS.values()] == ["50 %", "60 %", "70 %", "2:4", "4:8"]
    copy = tmp_path / "frontier.md"
    copy.write_text((ROOT / "docs" / "frontier.md").read_text())
    write_section(copy, "bench-frontier", "the tables")
    assert "the tables" in copy.read_text()


def test_where_a_pattern_fixes_all_rates_nothing_is_allocated() -> None:
    cells = a_plan(settings=["sparsegpt", "allocation"], sizes=[]).prunings()
    assert {cell.target for cell in cells if cell.setting == "allocation"} == {"50"}
    assert {cell.target for cell in cells if cell.setting == "sparsegpt"} == {"50", "4:8"}


def test_a_number_that_cannot_be_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--seeds", "0"])
    assert "--seeds: 0 is not above 0" in capsys.readouterr().err


def run_but_judge_here(program: Program, spec: dict[str, Any], key: str) -> Measured:
    """Run a cell's program where the libraries are loaded; what judges models is called here."""
    python, *arguments = program.arguments
    if arguments[-1:] == ["bench.evaluate_cell:evaluate"]:
        return Measured(seconds=0, processor_seconds=0, peak_bytes=0, result=evaluate(spec))
    if python == sys.executable:
        program = replace(program, arguments=(*warm_python(), *arguments))
    return run(program, spec, key)


@pytest.mark.parametrize(
    "runs", [run_but_judge_here, pytest.param(run, marks=pytest.mark.nightly)], ids=["judged here", "judged apart"]
)
def test_a_cell_that_was_measured_is_not_run_again(
    runs: Callable[[Program, dict[str, Any], str], Measured], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(contest, "run", runs)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'client' / 'src'}")
    tokens = tmp_path / "tokens.safetensors"
    write_tensors(tokens, {"tokens": torch.randint(64, (2, 16), generator=torch.Generator().manual_seed(0))})
    plan = a_plan(settings=["sparsegpt"], targets=["50"], seeds=1, samples=2, compared=[], sizes=[], task_limit=0)
    texts = {IN_DOMAIN: tokens, OUT_OF_DOMAIN: tokens}
    ground = Ground(write_llama(tmp_path / "model"), write_text(tmp_path / "text.txt"), texts, {}, 1)
    for seed in (0, 1):
        windows = Windows(ground.model, ground.calibration, "calibration", 2, 16, seed).file
        windows.parent.mkdir(parents=True)
        write_tensors(windows, {"tokens": torch.arange(32).view(2, 16) + seed})
    contender = own_contender("sparsegpt", {})
    runner = Runner()
    found = runner.figures(cells_of(plan, ground, 16, {"sparsegpt": contender}))
    measured = Figures.of(found[Pruning("sparsegpt", "50", 0, 2)])
    assert measured is not None
    assert measured.sparsity == pytest.approx(0.5, abs=0.02)
    assert measured.perplexity[IN_DOMAIN] == measured.perplexity[OUT_OF_DOMAIN] > 1
    dense = runner.figures({None: dense_cell(ground)})
    assert dense[None]["perplexity"][IN_DOMAIN] != measured.perplexity[IN_DOMAIN]
    assert not list((tmp_path / ".cache/bench/checkpoints").iterdir()) and not runner.failures

    broken = replace(contender, program=replace(contender.program, arguments=("false",)))
    more = cells_of(replace(plan, seeds=2), ground, 16, {"sparsegpt": broken})
    assert len(more) == 2 and Runner().figures(more) == found
    assert "seed 1, sparsegpt 50 %, 2 sequences: failed" in capsys.readouterr().err
