"""The structured bench: its plan, its tables and measurements from given figures, and its cells on a tiny model."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import contest
from bench.cells import CACHE, Measured, Program, run
from bench.contest import Ground
from bench.judging_texts import IN_DOMAIN, OUT_OF_DOMAIN
from bench.measurements import merge, write
from bench.structured import __main__ as command
from bench.structured import judge_cell, prune_cell, running
from bench.structured.plan import ROWS, TARGETS, Plan, Pruning, refusal
from bench.structured.recipes import recipe_of
from bench.structured.report import measured, page
from bench.structured.results import Dense, Figures, Origin, Ratio, Results, read_results, write_results
from bench.structured.running import Bench
from core.engine.architectures.description import inspect_folder
from core.engine.evaluation.zero_shot_tasks import TASKS
from core.engine.models.tensors import write_tensors
from core.measurements.reader import read_file
from tests.bench.test_frontier import answers
from tests.engine.tiny import make_model
from tests.runner.models import write_model, write_words

ROOT = Path(__file__).parents[2]


def a_plan(*names: str, **changed: Any) -> Plan:
    asked: dict[str, Any] = {
        "rows": names,
        "targets": ["20", "50"],
        "seeds": 3,
        "distil_steps": 2,
        "task_limit": 0,
        "task_rows": [],
        "task_targets": ["20"],
    }
    return Plan(**asked | changed)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny") / "llama", intermediate_size=192)


def a_ground(model: Path, folder: Path, **changed: Any) -> Ground:
    """Texts are read only where something is pruned."""
    (folder / "text.jsonl").write_text("{}\n")
    asked: dict[str, Any] = {
        "model": model,
        "calibration": folder / "text.jsonl",
        "own_text": None,
        "texts": {},
        "tasks": {},
        "threads": 1,
    }
    return Ground(**asked | changed)


HERE = Origin("this machine", 1, "torch 2", "0123456789abcdef0123")
THERE = Origin("another machine", 2, "torch 1", "fedcba98765432100123")


def figures(
    inside: float,
    outside: float,
    *,
    parameters: int = 50_000,
    recovery: float | None = None,
    origin: Origin = HERE,
) -> Figures:
    return Figures(
        seconds=inside / 10,
        recovery_seconds=recovery,
        processor_seconds=20.0,
        peak_bytes=800 * 2**20,
        parameters=parameters,
        perplexity={IN_DOMAIN: inside, OUT_OF_DOMAIN: outside},
        config={},
        notes=[],
        measured="2026-01-01T00:00:00+00:00",
        origin=origin,
    )


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """The lines of the table under a heading, by their first cell."""
    section = text.partition(f"#### {heading}\n")[2].partition("\n#### ")[0]
    lines = [line.strip("| ").split("|") for line in section.splitlines() if line.startswith("|")]
    return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines}


def test_quick_rows_come_first_with_all_their_seeds_and_only_some_rows_have_several() -> None:
    cells = a_plan("frontier uniform quick", "flap paper", "llm-pruner", "depth").prunings()
    assert len(cells) == len(set(cells)) == 2 * (3 + 3 + 1 + 1)
    assert [ROWS[cell.row].slow for cell in cells] == [False] * 14 + [True] * 2
    quick = [cell.seed for cell in cells[:14]]
    assert quick == sorted(quick)
    assert {cell.row for cell in cells if cell.seed} == {"frontier uniform quick", "flap paper"}
    asked = a_plan("llm-pruner", "flap paper", task_rows=["flap paper"])
    assert [cell for cell in asked.prunings() if asked.is_asked(cell)] == [Pruning("flap paper", "20", 0)]


def test_a_share_of_the_blocks_is_a_smaller_share_of_the_model_and_the_other_way_round(model: Path) -> None:
    description = inspect_folder(model)
    assert description.structure is not None
    removed = TARGETS["20"].sparsity(description) * description.parameters
    assert removed == pytest.approx(0.2 * description.structure.parameters)
    assert TARGETS["20"].of_blocks(description) == 0.2 and TARGETS["model-20"].sparsity(description) == 0.2
    assert TARGETS["model-20"].of_blocks(description) * description.structure.parameters == pytest.approx(
        0.2 * description.parameters
    )


def test_every_row_is_a_job_the_service_takes(model: Path) -> None:
    description = inspect_folder(model)
    assert [why for row in ROWS.values() if (why := refusal(row, description, TARGETS["20"]))] == []
    why = refusal(replace(ROWS["flap paper"], parameters={"metric": "?"}), description, TARGETS["20"])
    assert why is not None and "metric" in why


def test_excess_is_against_the_better_flap_and_goals_stand_beside_what_came_out(model: Path, tmp_path: Path) -> None:
    results = Results(
        Dense(100_000, {IN_DOMAIN: 10.0, OUT_OF_DOMAIN: 20.0}),
        {
            Pruning("frontier uniform quick", "20", 1): figures(16, 34),
            Pruning("frontier uniform quick", "20", 0): figures(14, 30),
            Pruning("frontier per_layer quick, distilled", "20", 0): figures(13, 29, recovery=600),
            Pruning("flap best", "20", 0): figures(40, 60),
            Pruning("flap paper", "20", 0): figures(30, 80),
            Pruning("llm-pruner", "50", 0): figures(90, 90),
        },
        {Pruning("frontier uniform quick", "20", 0): {"prefill": Ratio(0.51, 0.02), "decode": Ratio(0.6, 0.1)}},
        {None: answers(0.5)},
    )
    bench = Bench(a_plan("frontier uniform quick"), a_ground(model, tmp_path), results=results)
    bench.refused = {"bonsai, 20 % of the blocks": "no such job"}
    text = page(bench, results, ["a fact"])
    table = rows(text, "20 % of the blocks")
    assert table["frontier uniform quick"][2:9] == [
        "15.00 ± 1.41 (2)", "1.50", "32.00 ± 2.83 (2)", "1.60", "0.37", "0.43", "0.51 ± 0.02"
    ]  # fmt: skip
    assert table["flap best"][6:8] == ["1.26", "1.00"] and table["flap paper"][6:8] == ["1.00", "1.26"]
    assert table["frontier per_layer quick, distilled"][10] == "1 + 600"
    assert table["llm-pruner"] == ["–"] * 13 and rows(text, "50 % of the blocks")["llm-pruner"][2] == "90.00"
    goals = rows(text, "Goals")
    assert goals["uniform, one shot, 20 % of the blocks, in domain: ÷ dense"] == [
        "frontier uniform quick", "≤ 1.50", "1.50", "yes"
    ]  # fmt: skip
    assert goals["distilled, 20 % of the blocks, in domain: ÷ dense"][1:] == ["≤ 1.25", "1.30", "no"]
    assert goals["per_layer, one shot, 20 % of the blocks, in domain: ÷ dense"] == ["", "≤ 1.40", "–", "–"]
    assert goals["one shot, 20 % of the blocks, in domain: excess ÷ the better flap's"][1:] == ["≤ 0.60", "0.37", "yes"]
    assert goals["20 % of the blocks: decode ÷ dense"][1:] == ["≤ 0.55", "0.60", "no"]
    assert rows(text, "Zero-shot accuracy")["dense"][1:] == ["50.0 ± 5.0"] * len(TASKS) + ["50.0 ± 1.9"]
    assert "- Not run, bonsai, 20 % of the blocks: no such job" in text
    (missing,) = [line for line in text.splitlines() if line.startswith("- Not run at all: ")]
    assert "bonsai" in missing and ", llm-pruner," not in missing


def test_what_other_machines_measured_stays_on_the_page_until_it_is_measured_anew(model: Path, tmp_path: Path) -> None:
    again, changed, left = (Pruning("flap best", target, 0) for target in ("20", "30", "50"))
    seed = replace(again, seed=1)
    times, dense = {"prefill": Ratio(0.5, 0.1)}, Dense(100_000, {IN_DOMAIN: 10.0, OUT_OF_DOMAIN: 20.0})
    kept = Results(
        dense,
        {
            again: figures(14, 30, origin=THERE),
            seed: figures(18, 30, origin=THERE),
            changed: figures(15, 30, origin=THERE),
            left: replace(figures(16, 30, origin=THERE), config={"layers": 2}),
        },
        {again: times, changed: times, left: times},
        {None: answers(0.5), changed: answers(0.4), left: answers(0.3)},
    )
    file = tmp_path / "results.json"
    assert read_results(file) == Results()
    write_results(kept, file)
    older = read_results(file)
    assert older == replace(kept, found=kept.found | {left: replace(kept.found[left], config={})})
    own = Results(
        Dense(100_000, {IN_DOMAIN: 10.001, OUT_OF_DOMAIN: 20.0}), {again: figures(14, 30), changed: figures(12, 30)}
    )
    shown = own.over(older)
    assert shown.found == own.found | {left: older.found[left]} and shown.dense == own.dense, "codes are not mixed"
    assert shown.latency == {again: times, left: times}, "of a model that is another now they say nothing"
    assert shown.answers == {None: answers(0.5), left: answers(0.3)}
    same_code = replace(HERE, machine="a third", code=THERE.code)
    moved = replace(own, found={again: figures(14, 30, origin=same_code)}).over(older)
    assert [each.origin for each in moved.of("flap best", "20")] == [same_code, THERE]
    others = replace(own, dense=Dense(100_000, {IN_DOMAIN: 11.0, OUT_OF_DOMAIN: 20.0}))
    assert others.over(older) == others
    text = page(Bench(a_plan("flap best"), a_ground(model, tmp_path)), own.over(replace(older, answers={})), [])
    assert rows(text, "20 % of the blocks")["flap best"][2] == "14.00"
    assert rows(text, "50 % of the blocks")["flap best"][2] == "16.00"
    origins = [line for line in text.splitlines() if "machine" in line]
    assert [line.partition(",")[0] for line in origins] == ["- this machine", "- another machine"]
    assert "code fedcba987654, 2026-01-01: " in origins[1] and origins[1].endswith("flap best (50).")


def test_the_page_is_written_with_the_settings_of_all_its_figures_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--write", "page.md", "--windows", "2", "--tasks", "5"])
    assert "--windows, --tasks" in capsys.readouterr().err


def test_measurements_are_of_rows_that_are_jobs_and_name_the_machines_that_took_them(
    model: Path, tmp_path: Path
) -> None:
    cells = {
        Pruning("flap paper", "20", 0): figures(14, 30),
        Pruning("flap paper", "20", 1): figures(16, 34, origin=THERE),
        Pruning("llm-pruner", "50", 0): figures(50, 70),
    }
    times = {Pruning("flap paper", "20", 0): {"prefill": Ratio(0.51, 0.02), "decode": Ratio(0.6, 0.1)}}
    results = Results(Dense(100_000, {IN_DOMAIN: 10.0, OUT_OF_DOMAIN: 20.0}), cells, times)
    file = tmp_path / "measurements.json"
    write(file, measured(results, a_ground(model, tmp_path), 2))
    row, other = read_file(file)
    assert (row.method, row.layout, row.calibration_tokens, row.removed) == ("flap", "per_layer", 1024 * 128, 0.5)
    assert row.perplexity["in_domain"].mean == 1.5 and row.perplexity["in_domain"].seeds == 2
    assert row.prefill is not None and row.prefill.ratio == 0.51
    assert row.machine == "another machine and this machine" and row.releases == "torch 1 and torch 2"
    assert (other.method, other.blocks, other.machine) == ("llm-pruner", 0.5, "this machine")
    merge(file, [other.model_copy(update={"peak_bytes": 7}), other.model_copy(update={"machine": "a third"})])
    assert [(each.machine, each.peak_bytes) for each in read_file(file)[1:]] == [
        ("a third", other.peak_bytes),
        ("this machine", 7),
    ]
    assert read_file(file)[0] == row


def test_shapes_are_timed_in_turn_without_their_weights(model: Path) -> None:
    config = json.loads((model / "config.json").read_text()) | {"intermediate_size": 16}
    spec = {"model": str(model), "config": config, "length": 16, "rounds": 3}
    found = judge_cell.measure_speed(spec)
    assert set(found) == {"prefill", "decode"} and all(each["ratio"] > 0 for each in found.values())


def run_here(program: Program, spec: dict[str, Any], key: str) -> Measured:
    """Run a program as `run` does, but in this process."""
    work = {"work": prune_cell.work, "evaluate": judge_cell.evaluate}
    return Measured(1.0, 2.0, 3, work[program.arguments[-1].rpartition(":")[2]](spec))


def run_all_with(monkeypatch: pytest.MonkeyPatch, runs: Callable[[Program, dict[str, Any], str], Measured]) -> None:
    """Have cells run so: what prunes, and what judges."""
    for module in (running, contest):
        monkeypatch.setattr(module, "run", runs)


@pytest.mark.parametrize(
    "runs", [run_here, pytest.param(run, marks=pytest.mark.nightly)], ids=["pruned here", "pruned apart"]
)
def test_a_cell_is_pruned_and_judged_once_and_is_recalled_afterwards(
    runs: Callable[[Program, dict[str, Any], str], Measured],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_all_with(monkeypatch, runs)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'client' / 'src'}")
    tokens = tmp_path / "tokens.safetensors"
    write_tensors(tokens, {"tokens": torch.randint(96, (2, 16), generator=torch.Generator().manual_seed(0))})
    ground = a_ground(model, tmp_path, texts={IN_DOMAIN: tokens, OUT_OF_DOMAIN: tokens})
    bench = Bench(a_plan("l2-structured", targets=["20"]), ground)
    bench.measure(["prune"])
    (measured_figures,) = bench.results.found.values()
    assert bench.results.dense is not None and bench.is_complete()
    assert measured_figures.parameters < bench.results.dense.parameters and measured_figures.perplexity[IN_DOMAIN] > 1
    assert not list((tmp_path / ".cache/bench/checkpoints").iterdir())
    run_all_with(monkeypatch, lambda *asked: pytest.fail("nothing is to be run again"))
    later = Bench(bench.plan, ground)
    later.measure(["prune"])
    assert later.results.found == bench.results.found and later.results.dense == bench.results.dense
    assert not Bench(a_plan("l2-structured"), ground).is_complete()


def test_a_row_that_distils_calibrates_on_the_model_s_own_text_and_is_judged_before_and_after_it_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def run_and_count(program: Program, spec: dict[str, Any], key: str) -> Measured:
        ran.append(key.rpartition("-")[2])
        return run_here(program, spec, key)

    run_all_with(monkeypatch, run_and_count)
    monkeypatch.chdir(tmp_path)
    plain = "frontier per_layer quick"
    name, labelled = f"{plain}, distilled", f"{plain}, distilled with labels"
    for each in (plain, name, labelled):
        monkeypatch.setitem(ROWS, each, replace(ROWS[each], samples=8, length=16))
    tokens = tmp_path / "tokens.safetensors"
    write_tensors(tokens, {"tokens": torch.randint(96, (2, 16), generator=torch.Generator().manual_seed(0))})
    ground = a_ground(
        write_model(tmp_path / "model"),
        tmp_path,
        calibration=write_words(tmp_path / "words.txt"),
        own_text=write_words(tmp_path / "own.txt"),
        texts={IN_DOMAIN: tokens, OUT_OF_DOMAIN: tokens},
    )
    bench = Bench(a_plan(plain, name, labelled, targets=["20"], seeds=1), ground)
    bench.measure(["prune"])
    trained = ["recover", "evaluation"]
    assert ran[1:] == ["prune", "evaluation", *trained, *trained], "pruned once for the three rows, after the dense"
    assert not list((CACHE / "checkpoints").iterdir())
    before, came_out = bench.results.found[Pruning(plain, "20", 0)], bench.results.found[Pruning(name, "20", 0)]
    assert came_out.recovery_seconds is not None and came_out.processor_seconds == 4.0
    assert bench.results.dense is not None and came_out.parameters < bench.results.dense.parameters
    assert came_out.perplexity != before.perplexity and before.recovery_seconds is None
    assert bench.results.found[Pruning(labelled, "20", 0)].perplexity not in (came_out.perplexity, before.perplexity)
    shutil.rmtree(CACHE)
    alone = Bench(a_plan(plain, targets=["20"], seeds=1), ground)
    alone.measure(["prune"])
    (itself,) = alone.results.found.values()
    assert itself.perplexity == before.perplexity, "as by itself"
    recipe = recipe_of(Pruning(name, "20", 0), ground, 2)
    assert recipe.calibration is not None and (recipe.calibration.samples, recipe.calibration.generated) == (6, 2)
