"""The map of bytes: its jobs are jobs, and its tables follow from the figures."""

from math import log
from typing import Any
from xml.etree import ElementTree

import pytest

from bench.equal_bytes.__main__ import _parser
from bench.equal_bytes.plan import IN_DOMAIN, OUT_OF_DOMAIN, ROWS, THIRD, Name, bodies
from bench.equal_bytes.report import Kind, front, measured_files, page, plot, points, signs
from core.service.jobs.schemas import JobBody


def figures(size: int, bits: float, *, difference: float = 0.1, third: float = 0.1, rate: float | None = None) -> Any:
    """Return the figures of a job with one file, and its difference from a dense one: ± 0.06 in each text."""
    compared = {"difference": difference, "stderr": 0.06, "outcome": "worse"}
    texts = (IN_DOMAIN, OUT_OF_DOMAIN)
    return {
        "files": [{"name": "artifact", "bytes": size, "bits": dict.fromkeys(texts, bits), "rate": rate}],
        "equal_bytes": {**dict.fromkeys(texts, compared), THIRD: {**compared, "difference": third}},
    }


def test_every_cell_is_a_job_of_its_own_and_dense_ones_come_first() -> None:
    given = _parser().parse_args(["--distilled", "no", "yes", "--seeds", "2"])
    every = dict(bodies(given))
    assert len(every) == 5 + (len(ROWS) - 1) * 3 * 2 * 2
    parsed = [JobBody.model_validate({"model": "m", **body}) for body in every.values()]
    assert len({each.model_dump_json() for each in parsed}) == len(every)
    assert [name.row for name in every][:5] == ["dense"] * 5
    few = dict(bodies(_parser().parse_args(["--rows", "2:4", "dense", "--bits", "4", "--seeds", "1"])))
    assert list(few) == [Name("dense", 4, False, 0), Name("2:4", 4, False, 0)]
    assert few[Name("2:4", 4, False, 0)]["output"] == {
        "dtype": "bfloat16",
        "format": "packed",
        "quantization": {"scheme": "int4"},
    }


def test_files_of_a_job_have_their_bytes_bits_and_speed() -> None:
    metrics = {
        "bytes": {"dense": 300, "artifact": 200, "packed": 150},
        "perplexity": {IN_DOMAIN: {"bits_per_byte": {"pruned": 1.2, "tokens": 50, "bytes": 200}}},
        "exports": [
            {"file": "m.gguf", "type": "Q8_0", "bytes": 90, "speed": {"decode": {"pruned": 70.0, "dense": 50.0}}},
            {"file": "n.gguf", "type": "Q4_K_M", "bytes": 60, "own_speed": {"decode": 80.0}},
        ],
    }
    report = {"window_losses": {"m.gguf": {IN_DOMAIN: {"losses": [2.0, 4.0]}}}}
    artifact, eight, four = measured_files(metrics, report)
    assert (artifact["bytes"], artifact["bits"], artifact["rate"]) == (150, {IN_DOMAIN: 1.2}, None)
    assert (eight["bytes"], eight["rate"]) == (90, 70.0)
    assert eight["bits"][IN_DOMAIN] == pytest.approx(3.0 * 50 / (200 * log(2)))
    assert (four["bits"], four["rate"]) == ({}, 80.0)


def test_only_kinds_that_no_smaller_one_beats_are_advised() -> None:
    found = {
        Name("dense", 16, False, 0): figures(300, 1.0),
        Name("dense", 4, False, 0): figures(100, 1.1, rate=50.0),
        Name("dense", 4, False, 1): figures(100, 1.3),
        Name("depth", 8, False, 0): figures(150, 1.25),
        Name("2:4", 4, True, 0): figures(80, 1.5),
    }
    placed = points(found)
    kinds = [Kind("2:4", "4 bits", True), Kind("dense", "4 bits", False), Kind("dense", "16 bits", False)]
    assert front(placed) == kinds
    text = page(found, {"depth, 4 bits": "refused\noutput.quantization: no"})
    assert "2:4, 4 bits, distilled" in text and "1.200 ± 0.141 (2)" in text and "50.0" in text
    assert "output.quantization: no" in text and text.count("depth, 8 bits") == 1
    assert ElementTree.fromstring(plot(found, "judge")).tag.endswith("svg")


def test_a_certificate_is_right_where_the_third_text_has_its_sign() -> None:
    jobs = [figures(1, 1.0), figures(1, 1.0, third=-0.1), figures(1, 1.0, difference=-0.2, third=-0.1)]
    unknown = figures(1, 1.0)
    unknown["equal_bytes"].pop(THIRD)
    counted = signs([*jobs, unknown, figures(1, 1.0, difference=0.01)], 1)
    assert (counted.certificates, counted.right) == (6, 4)
    counted = signs(jobs, 2)
    assert (counted.certificates, counted.right) == (2, 2)
