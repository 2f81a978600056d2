"""Long loops say how far they are while they run, and nothing once they ended."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from core import counting
from core.counting import counted, current_work, finished_share, working
from core.engine.models.folder import open_model
from core.pipeline.passes import walk_for
from tests.engine.sweeping import request_for
from tests.engine.tiny import make_model, make_tokens

CPU = torch.device("cpu")


class Noted(dict[object, Any]):
    """Every text that loops say."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def __setitem__(self, loop: object, work: Any) -> None:
        super().__setitem__(loop, work)
        self.said.append(current_work() or "")


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Noted]:
    running = Noted()
    monkeypatch.setattr(counting, "_running", running)
    yield running
    assert current_work() is None, "a loop that ended still counts"


def test_loops_within_one_another_are_told_together_and_end_with_their_errors(noted: Noted) -> None:
    for layer in counted(["a", "b"], "layers"):
        for _ in counted(range(2), f"batches of {layer}"):
            pass
    assert noted.said[-1] == "layers: 1 of 2; batches of b: 1 of 2"
    shares = [finished_share() for _ in counted(range(2), "outer") for _ in counted(range(4), "inner")]
    assert shares == [0, 1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8] and finished_share() == 0
    with suppress(RuntimeError), working("something without steps"):
        assert current_work() == "something without steps"
        raise RuntimeError


@pytest.mark.parametrize(
    ("method", "parameters", "sparsity", "said"),
    [
        ("wanda", {"allocation": "owl"}, 0.5, ["looking for outliers in blocks: 3 of 4", "pruning blocks: 3 of 4"]),
        (
            "depth",
            {"criterion": "perplexity"},
            0.4,
            ["layers to remove: 0 of 2; trying the model without each: 3 of 4", "layers to remove: 1 of 2; trying"],
        ),
    ],
)
def test_methods_say_what_they_are_at(
    method: str, parameters: dict[str, Any], sparsity: float, said: list[str], noted: Noted, tmp_path: Path
) -> None:
    folder = open_model(make_model(tmp_path / "model", num_hidden_layers=4))
    pattern = "unstructured" if method == "wanda" else "structured"
    walk_for(
        folder,
        request_for(folder, method, sparsity, pattern, parameters, layout="uniform"),
        device=CPU,
        calibration=make_tokens(),
        evaluations={},
        work=tmp_path,
    ).run()
    for words in said:
        assert any(words in each for each in noted.said), (words, sorted(set(noted.said)))
