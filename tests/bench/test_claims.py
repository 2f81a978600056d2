"""The rules of the claims, their data, and the page that is written from them. No claim is measured here."""

import gzip
import itertools
import math
import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

from bench.claims.__main__ import cells_of
from bench.claims.claim import CLAIMS, Claim, Run, Verdict
from bench.claims.data import IMAGE_SHAPE, digits, fashion_mnist, is_monk, monk, xor
from bench.claims.record import knee
from bench.claims.report import draw, text, write_page
from bench.sources import MissingData
from tests.bench.claim_figures import ADVERSE, FAVOURABLE


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_a_claim_holds_where_every_seed_says_so_and_not_where_none_does(claim: Claim) -> None:
    good, bad = FAVOURABLE[claim.name], ADVERSE[claim.name]
    assert claim.verdict([good] * 3) is Verdict.HOLDS
    assert [part.verdict([bad] * 3) for part in claim.parts] == [Verdict.FAILS] * len(claim.parts)
    assert claim.verdict([bad] * 3) is Verdict.FAILS
    assert claim.verdict([good, good, bad]) is Verdict.INCONCLUSIVE
    assert claim.verdict([good] * 2) is Verdict.INCONCLUSIVE
    assert len(claim.seeds) >= 3


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_one_part_that_fails_decides_a_claim(claim: Claim) -> None:
    good = FAVOURABLE[claim.name]
    failing = [*claim.parts, type(claim.parts[0])("never", "False")]
    assert Claim(**{**vars(claim), "parts": tuple(failing)}).verdict([good] * 3) is Verdict.FAILS


def test_every_measurement_is_there_and_its_cells_have_names_of_their_own() -> None:
    keys = {cell.key for cell in cells_of(CLAIMS).values()}
    assert len(keys) == sum(len(claim.seeds) for claim in CLAIMS)


def test_the_page_is_written_whole_with_what_ran_and_what_did_not(tmp_path: Path) -> None:
    page = tmp_path / "claims.md"
    first = CLAIMS[0]
    found = {(first.name, seed): FAVOURABLE[first.name] for seed in first.seeds[:3]}
    write_page(page, CLAIMS, found, "make claims")
    written = page.read_text()
    assert "Claim 1: **holds**" in written
    assert " 2 holds |" in written
    assert written.count("**not run yet**") == 2 * (len(CLAIMS) - 1)
    assert all(set(line) <= set("|:- ") and ":-" in line for line in written.splitlines() if line.startswith("| :"))
    assert "3 of 3 seeds ran" in written
    assert all(part.question in written for claim in CLAIMS for part in claim.parts)
    plot = tmp_path / "claims" / f"{first.name}.svg"
    assert ElementTree.fromstring(plot.read_text()).tag.endswith("svg")
    assert f"(claims/{first.name}.svg)" in written
    before = plot.read_bytes()
    write_page(page, CLAIMS, found, "make claims")
    assert plot.read_bytes() == before
    assert text(CLAIMS, {}, "make claims", "claims").count("**not run yet**") == 2 * len(CLAIMS)


def test_names_on_an_axis_are_drawn_as_bars(tmp_path: Path) -> None:
    draw(CLAIMS[2].panels, [FAVOURABLE[CLAIMS[2].name]] * 3, tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    assert all(name in drawn for name in ("MONK-1", "MONK-2", "MONK-3", "solved", "magnitude"))


def test_monk_problems_have_the_published_numbers_of_members() -> None:
    cases = list(itertools.product(*(range(1, count + 1) for count in (3, 3, 2, 3, 4, 2))))
    assert [sum(is_monk(problem, case) for case in cases) for problem in (1, 2, 3)] == [216, 142, 228]


@pytest.mark.parametrize(("problem", "cases"), [(1, 124), (2, 169), (3, 122)])
def test_monk_cases_are_apart_and_only_the_third_has_noise(problem: int, cases: int) -> None:
    split = monk(problem, seed=4)
    assert (len(split.train), len(split.test)) == (cases, 432 - cases)
    rows = {
        tuple(row): label
        for images in (split.train, split.test)
        for row, label in zip(
            images.batch(range(len(images))).flatten(1).int().tolist(), images.labels_N.tolist(), strict=True
        )
    }
    assert len(rows) == 432
    assert all(sum(row) == 6 and len(row) == 17 for row in rows)
    members = {1: 216, 2: 142, 3: 228}[problem]
    assert (sum(rows.values()) != members) <= (problem == 3)


def test_digits_for_training_and_testing_are_apart_and_drawn_by_the_seed() -> None:
    one, other = digits(0, enlarged=False), digits(1, enlarged=True)
    assert (len(one.train), len(one.test)) == (1200, 597)
    assert other.train.batch([0]).shape == (1, 1, 28, 28)
    assert not torch.equal(one.train.labels_N, other.train.labels_N)
    assert xor().labels_N.tolist() == [0, 1, 1, 0]


def test_fashion_mnist_is_read_from_the_folder_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASHION_MNIST", str(tmp_path))
    with pytest.raises(MissingData, match=r"train-images-idx3-ubyte\.gz.*apt-get install dataset-fashion-mnist"):
        fashion_mnist()
    for name, count in (("train", 3), ("t10k", 2)):
        pixels = struct.pack(">IIII", 0x803, count, 28, 28) + bytes(count * 784)
        labels = struct.pack(">II", 0x801, count) + bytes(range(count))
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(pixels))
        (tmp_path / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    split = fashion_mnist()
    assert split.train.labels_N.tolist() == [0, 1, 2]
    assert split.test.batch([1]).shape == (1, *IMAGE_SHAPE)


def test_the_knee_is_the_last_sparsity_before_the_first_that_harms() -> None:
    points: list[tuple[float | str, float]] = [(0.1, 1.0), (0.2, 1.02), (0.3, 1.2), (0.4, 1.0)]
    assert knee(points, 1.05) == 0.2
    assert knee(points, 0.5) == 0
    assert knee(points, math.inf) == 0.4


def test_a_line_is_read_by_place() -> None:
    run = Run.of({"curves": {"loss": {"obd": [[0.1, 1.0], [0.2, 3.0]]}}, "facts": {}})
    assert run.value("loss", "obd", 0.2) == 3
    assert run.mean("loss", "obd", (0.1, 0.2)) == 2
