"""The bench of speed targets: its jobs are jobs, and what it says of figures follows from them."""

from xml.etree import ElementTree

import pytest

from bench import speed_targets
from bench.speed_targets import BEST, ENGINES, SEARCH, Name, bodies, excess_at, page, plot, points
from core.service.jobs.schemas import JobBody


def figures(ratio: float, excess: float) -> dict[str, object]:
    """Return the figures of a job whose decode step takes this ratio of the dense one's, in llama.cpp."""
    perplexity = [20.0, 20.0 * 2.718281828459045**excess]
    speed = {"decode": {"dense": 50.0, "pruned": 50.0 / ratio, "spread": 0.02, "noise": 0.0}}
    return {
        "perplexity": dict.fromkeys(speed_targets._TEXTS, perplexity),
        "bits_per_byte": {name: {"pruned": 1.0 + excess} for name in speed_targets._TEXTS},
        "exports": [{"format": "gguf", "type": "Q8_0", "speed": speed}],
    }


def test_every_cell_is_a_job_of_its_own_and_can_be_selected() -> None:
    given = speed_targets._parser().parse_args([])
    every = dict(bodies(given))
    assert len(every) == 1 + 3 * 3 + 2 * 3 * 2
    parsed = [JobBody.model_validate({"model": "m", **body}) for body in every.values()]
    assert len({each.model_dump_json() for each in parsed}) == len(every)
    few = speed_targets._parser().parse_args(["--rows", SEARCH, "--ratios", "0.5", "--engines", "openvino"])
    ((name, body),) = bodies(few)
    assert name == Name(SEARCH, 0.5, "openvino", 0) and body == every[name]


def test_the_search_is_held_against_the_best_of_today_at_the_same_time() -> None:
    llama = ENGINES["llama-cpp"]
    found = {
        Name(BEST, 0.8, "", 0): figures(0.8, 0.2),
        Name(BEST, 0.5, "", 0): figures(0.6, 0.6),
        Name(SEARCH, 0.65, llama.id, 0): figures(0.7, 0.3),
        Name(SEARCH, 0.65, "openvino", 0): figures(0.7, 0.1),
    }
    placed = points(found, llama)
    assert len(placed) == 3
    curve = [placed[name] for name in placed if name.row == BEST]
    assert excess_at(curve, 0.7, 0) == pytest.approx(0.4) and excess_at(curve, 0.5, 0) is None
    assert excess_at(curve, 0.9, 0) == pytest.approx(0.1), "the dense model loses nothing at 1"
    text = page(found, [llama])
    assert "search, 0.65" in text and "0.75" in text and "| yes" in text
    panels = ElementTree.fromstring(plot(found, list(ENGINES.values())))
    assert panels.tag.endswith("svg")
