"""Where the dense model's perplexity is known, its tokens do not go through that model; nothing else changes."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from core.engine.evaluation.perplexity import MeasuredPerplexity
from core.engine.evaluation.perplexity_ratio import ratio_stderr
from core.engine.models.folder import open_model
from core.engine.pruning.results import PruneResult
from core.engine.pruning.streams.stream import Stream
from core.pipeline.passes import walk_for
from core.progress import WorkStopped
from tests.engine.sweeping import request_for, tensors_of
from tests.engine.tiny import make_model, make_tokens
from tests.engine.watching import Watching

Known = dict[str, MeasuredPerplexity]
SETS = {"first": make_tokens(seed=1), "second": make_tokens(seed=2)}


def prune(folder: Path, work: Path, method: str, known: Known | None = None, **setting: Any) -> PruneResult:
    opened = open_model(folder)
    work.mkdir(parents=True)
    return walk_for(
        opened, request_for(opened, method, 0.25), device=torch.device("cpu"), work=work, calibration=make_tokens(),
        evaluations=SETS, dense_perplexity=known, **setting,
    ).run()  # fmt: skip


@pytest.fixture
def advanced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of streams, each time one goes through a block."""
    names: list[str] = []
    advance: Callable[..., None] = Stream.advance

    def counting(self: Stream, *given: Any) -> None:
        names.append(self.name)
        advance(self, *given)

    monkeypatch.setattr(Stream, "advance", counting)
    return names


def test_only_what_is_not_known_goes_through_the_dense_model(tmp_path: Path, advanced: list[str]) -> None:
    method = "llm-pruner"
    folder = make_model(tmp_path / "model")
    alone = prune(folder, tmp_path / "alone", method)
    assert {"dense-0", "dense-1"} <= set(advanced)
    for known, left in (({"first"}, {"dense-1"}), ({"first", "second"}, set())):
        advanced.clear()
        figures = {name: alone.perplexity[name].measured_dense for name in known}
        told = prune(folder, tmp_path / "-".join(sorted(known)), method, figures)
        assert {name for name in advanced if name.startswith("dense")} == left
        assert told.perplexity == alone.perplexity
        assert all((each.ratio_stderr or 0) > 0 for each in told.perplexity.values())
        ours, theirs = tensors_of(told), tensors_of(alone)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_error_of_a_ratio_is_that_of_its_windows_in_pairs() -> None:
    dense, gains = [2.0, 3.0, 2.5, 4.0], [0.1, 0.2, 0.1, 0.2]
    pruned = [loss + gain for loss, gain in zip(dense, gains, strict=True)]
    # Of the logarithm: a deviation of 0.1 / √3 over √4 windows, around a mean of 0.15.
    assert ratio_stderr(dense, pruned) == pytest.approx(math.exp(0.15) * 0.1 / math.sqrt(3) / 2)
    assert ratio_stderr(dense, dense) == 0.0
    for other in (pruned[:3], [], [*pruned[:3], math.inf]):
        assert ratio_stderr(dense, other) is None and ratio_stderr(dense[:3], pruned[:3]) is None


def test_an_attempt_that_knew_more_or_less_is_not_continued(tmp_path: Path) -> None:
    """Its records lack streams that are needed now, or have others."""
    folder = make_model(tmp_path / "model")
    alone = prune(folder, tmp_path / "alone", "wanda")
    known = {"first": alone.perplexity["first"].measured_dense}

    with pytest.raises(WorkStopped):
        prune(folder, tmp_path / "before", "wanda", known, progress=Watching(stop_after=1))
    again = prune(folder, tmp_path / "again", "wanda", known, previous=[tmp_path / "before"])
    assert again.resumed_from == 1 and again.perplexity == alone.perplexity
    other = prune(folder, tmp_path / "other", "wanda", previous=[tmp_path / "before"])
    assert other.resumed_from == 0 and other.perplexity == alone.perplexity
