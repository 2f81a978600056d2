"""Long loops say how far they are while they run, and nothing once they ended."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch

from core import counting
from core.counting import counted, current_work, finished_share, working

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
