"""Studies: their jobs are a product of axes, their figures and goals follow from paths, and cells are recalled."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from bench import cells
from bench.cells import Cell, Runner, remember
from bench.probes.files import advice, certificates, files_of
from bench.probes.speeds import Point, excess_at
from bench.service import Service
from bench.study import STUDIES, Bench, Study, main, merged, read_study
from bench.study_page import Name, Results, Value, measured, page
from core.service.jobs.schemas import JobBody

STUDY = {
    "section": "s",
    "facts": "",
    "model": "m",
    "seeds": 2,
    "seed_at": ["calibration", "recovery"],
    "base": {"method": "wanda", "calibration": {"samples": 8}, "recovery": "null"},
    "axis": [
        {"name": "share", "choices": {"half": {"sparsity": 0.5}, "none": {"calibration": "absent"}}},
        {"name": "text", "choices": {"": {}, "chats": {"calibration": {"shape": "chat"}}}},
    ],
    "where": [{"cells": {"share": ["half"], "text": ["chats"]}, "body": {"calibration": {"samples": 4}}}],
    "skip": [{"share": ["none"], "text": ["chats"]}, {"share": ["none"], "seed": ["1"]}],
}


def test_jobs_are_the_product_of_axes_but_for_what_is_skipped() -> None:
    bodies = {name.title: body for name, body in Study.model_validate(STUDY).bodies()}
    assert list(bodies) == [
        "half, seed 0",
        "half, chats, seed 0",
        "none, seed 0",
        "half, seed 1",
        "half, chats, seed 1",
    ]
    calibration = {"samples": 4, "shape": "chat", "seed": 1}
    assert bodies["half, chats, seed 1"] == {
        "method": "wanda", "sparsity": 0.5, "calibration": calibration, "recovery": None,
    }  # fmt: skip
    assert bodies["none, seed 0"] == {"method": "wanda", "recovery": None}
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": "absent"}}) == {"a": {"c": 2}}


@pytest.mark.parametrize("name", sorted(file.stem for file in STUDIES.glob("*.toml")))
def test_every_study_has_jobs_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    study = read_study(name)
    bodies = [json.dumps(body, sort_keys=True) for _, body in study.bodies()]
    assert len(set(bodies)) == len(bodies)
    figures = [each.figure for each in (*study.goal, *(column for table in study.table for column in table.columns))]
    choices = [choice for axis in study.axis for choice in axis.choices]
    assert {figure.partition(" with ")[2] for figure in figures if " with " in figure} <= set(choices)
    for body in [] if study.contest else bodies:
        JobBody.model_validate({**json.loads(body), "model": "m"})
    assert main([name, "--list", "--seeds", "1", "--set", 'facts="changed"']) == 0
    assert capsys.readouterr().out.strip()
    assert read_study(name, ['facts="changed"', "seeds=1"]).facts == "changed"


def found(kl: list[float], bits: float) -> dict[str, Any]:
    return {"probe": {"kl": kl, "tokens": [10, 20]}, "metrics": {"bits": bits, "kind": "frontier"}}


def results() -> Results:
    planned = dict(Study.model_validate({**STUDY, "skip": []}).bodies())
    names = {name.title: name for name in planned}
    return Results(
        planned,
        {
            names["half, seed 0"]: found([10, 20], 1.0),
            names["half, seed 1"]: found([30, 60], 1.5),
            names["half, chats, seed 0"]: found([5, 10], 0.9),
        },
        {"dense": {"a": {"right": 1, "of": 2}, "b": {"right": 2, "of": 2}}},
        {"half, chats, seed 1": "refused\nthere is no such text"},
    )


@pytest.mark.parametrize(
    ("text", "figure", "shown"),
    [
        ("", "probe.kl ÷ probe.tokens", "2.00"),
        ("chats", "probe.kl ÷ probe.kl with ", "0.50"),
        ("chats", "metrics.bits ÷ metrics.bits with none", "–"),
        ("", "metrics.bits", "1.25 ± 0.35 (2)"),
        ("chats", "ln metrics.bits", "-0.11"),
        ("chats", "ln probe.kl.0 ÷ ln probe.kl.0 with ", "0.70"),
        ("chats", "metrics.kind", "frontier"),
        ("chats", "beside.dense.*.right ÷ beside.dense.*.of", "0.75"),
        ("chats", "probe.tokens.1 ÷ metrics.bits", "22.22"),
        ("chats", "probe.nothing ÷ probe.tokens", "–"),
    ],
)
def test_a_path_names_a_figure_over_seeds(text: str, figure: str, shown: str) -> None:
    made = results()
    (names,) = made.groups({"text": [text]})
    value = measured(made, names, figure)
    assert (value.shown(".2f") if isinstance(value, Value) else value or "–") == shown


def test_a_figure_is_divided_by_that_of_the_same_seed_with_another_choice() -> None:
    made = results()
    planned = {"text": ["", "chats"], "share": ["half", "none"]}
    name = Name((("share", "half"), ("text", "chats")), 1)
    assert name.instead("", planned) == Name((("share", "half"), ("text", "")), 1)
    made.found[name] = found([15, 30], 0.75)
    value = measured(made, [each for each in made.found if each.fits({"text": ["chats"]})], "metrics.bits")
    assert isinstance(value, Value) and value.mean == pytest.approx(0.825)
    none = Name((("share", "none"), ("text", "")), 0)
    made.found[none] = found([20, 40], 2.0)
    ratio = measured(made, [none], "metrics.bits ÷ metrics.bits with half")
    assert isinstance(ratio, Value) and ratio.values == [2.0]


def test_goals_stand_beside_what_came_out_and_what_is_missing_is_named() -> None:
    goals = [
        {"what": "bits", "figure": "metrics.bits", "at_most": 1.0, "best": "metrics.bits"},
        {"what": "kl", "figure": "probe.kl ÷ probe.tokens", "at_least": 0.9, "at_most": 1.1, "cells": {"text": [""]}},
        {"what": "none", "figure": "metrics.bits", "at_least": 1.0, "cells": {"share": ["none"]}},
    ]
    table = {
        "title": "On ",
        "each": "text",
        "columns": [{"title": "bits", "figure": "metrics.bits"}],
        "beside": ["dense.a"],
    }
    study = Study.model_validate({**STUDY, "goal": goals, "table": [table]})
    lines = page(results(), study.goal, study.table).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert rows[2:5] == [
        ["bits, half, chats", "≤ 1", "0.900", "yes"],
        ["kl", "0.9 … 1.1", "2.000", "no"],
        ["none", "≥ 1.000", "–", "–"],
    ]
    assert ["dense.a", "–"] in rows and ["half", "1.250 ± 0.354 (2)"] in rows and "### On chats" in lines
    assert "Not run: 5 of 8 cells: none, seed 0, 1; none, chats, seed 0, 1; half, chats, seed 1." in lines
    assert rows[-1] == ["half, chats, seed 1", "there is no such text"]


def test_all_kept_cells_are_recalled_and_the_chosen_ones_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "CACHE", tmp_path)
    study = Study.model_validate(STUDY)
    asked = {name: Cell(name.title, f"key {name.title}", lambda: {"job": "new"}) for name, _ in study.bodies()}
    remember("key half, seed 0", {"job": "kept"})
    bench = Bench(study, cast(Service, None), Runner(), chosen=["chats, seed 1"], threads=1)
    found = {name.title: figures["job"] for name, figures in bench._figures(asked, str).items()}
    assert found == {"half, seed 0": "kept", "half, chats, seed 1": "new"}
    bench.chosen, bench.runner = [], Runner(runs=False)
    assert set(bench._figures(asked, str)) == {name for name in asked if name.title in found}


def test_files_are_advised_by_bytes_and_speeds_are_compared_at_equal_time() -> None:
    bits = {"bits_per_byte": {"pruned": 1.2, "tokens": 50, "bytes": 200}}
    texts = dict.fromkeys(("wikipedia-articles", "python-code", "secateur-documentation"), bits)
    compared = {text: {"difference": 0.1, "stderr": 0.06} for text in texts}
    export = {"file": "m.gguf", "type": "Q8_0", "bytes": 90, "own_speed": {"decode": 70.0}}
    losses = {"m.gguf": {text: {"losses": [2.0, 4.0]} for text in texts}}
    metrics = {"bytes": {"artifact": 200, "packed": 150}, "perplexity": texts, "exports": [export]}
    job = {"metrics": {**metrics, "equal_bytes": compared}, "report": {"window_losses": losses}}
    assert files_of(job)["Q8_0"].rate == 70.0 and files_of(job)[""].bytes == 150
    name = Name((("row", "depth"), ("bits", "8 bits"), ("training", "")), 0)
    made = Results({name: {}}, {name: job})
    assert [row[1] for row in advice(made)[1]] == ["depth, Q8_0"]
    assert certificates(made)[1] == [["1", "2", "2"], ["2", "0", "0"]]
    point = Point(20.0, 10.0, (1.0,), (0.4,))
    assert excess_at([point], 0.75, 0) == pytest.approx(0.2) and excess_at([point], 0.4, 0) is None
