"""Recovery in stages: sequences drawn where most was lost, until a round wins back nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core.engine.models.folder import open_model
from core.engine.recovery.completion import complete_recovery
from core.engine.recovery.language import Recovered
from core.engine.recovery.request import Recovery
from core.engine.recovery.sampling import Adaptive, Source, shares
from core.progress import WorkStopped
from secateur_wire.errors import InvalidRequest
from tests.engine.recovering import make_pruned, tiny_lora, train
from tests.engine.tiny import make_model, make_tokens
from tests.engine.watching import Watching

ASKED = Recovery.model_validate(
    {
        "method": "lora", "batch_size": 4, "learning_rate": 1e-2, "seed": 1, "checkpoint_every": 3, "lora": tiny_lora(),
        "stages": [{"datasets": ["prose", "code"], "steps": 6}, {"datasets": ["questions"], "steps": 4}],
        "steps": 10, "resample_every": 2,
    }
)  # fmt: skip


def sources(references: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> list[Source]:
    """9 and 5 sequences of the first stage, 7 of the second."""
    texts = [("prose", 0, 9), ("code", 0, 5), ("questions", 1, 7)]
    return [
        Source(name, stage, make_tokens(size, seed=n), make_tokens(2, seed=10 + n), references[n])
        for n, (name, stage, size) in enumerate(texts)
    ]


def told(losses: list[float]) -> tuple[Adaptive, list[int]]:
    """Sampling whose model has these losses, one after the other, and the steps it takes."""
    sampling = Adaptive(sources(), ASKED)
    answers = iter(losses)

    def loss(held: Tensor) -> float:
        return next(answers)

    return sampling, [step for step in range(10) if sampling.begin(step, loss)]


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=6), st.integers(0, 500))
def test_a_total_is_divided_in_proportion_and_wholly(weights: list[float], total: int) -> None:
    counts = shares(weights, total)
    assert sum(counts) == total
    whole = sum(weights)
    for weight, count in zip(weights, counts, strict=True):
        exact = total * weight / whole if whole > 0 else total / len(weights)
        assert abs(count - exact) < 1 + 1e-6


def test_a_round_draws_from_each_text_in_proportion_to_what_was_lost_on_it() -> None:
    sampling, taken = told([3.0, 1.0, 1.5, 1.5, 0.5, 1.0, 2.0, 1.0])
    assert taken == list(range(10))
    assert [each["sequences"] for each in sampling.rounds] == [
        {"0": 6, "1": 2}, {"0": 4, "1": 4}, {"0": 3, "1": 5}, {"2": 8}, {"2": 8},
    ]  # fmt: skip
    for start, each in zip((0, 2, 4), sampling.rounds, strict=False):
        drawn = sampling.batch(start) + sampling.batch(start + 1)
        assert sum(number < 9 for number in drawn) == each["sequences"]["0"]
        assert len(drawn) == 8 and max(drawn) < 14 and sampling.batch(start) == sampling.batch(start)
    last = sampling.batch(6) + sampling.batch(7)
    assert set(last) == set(range(14, 21)), "all of a text before any of it again"


def test_a_stage_ends_when_a_round_has_won_back_nothing() -> None:
    sampling, taken = told([3.0, 1.0, 3.0, 1.5, 2.0, 1.0])
    assert taken == [0, 1, 6, 7, 8, 9]
    assert [each["is_over"] for each in sampling.rounds] == [False, True, False, False]


def test_what_the_reference_loses_too_is_no_loss() -> None:
    sampling = Adaptive(sources((5.0, 1.0, 0.0)), ASKED)
    assert sampling.begin(0, lambda held: 4.0)
    assert sampling.rounds[0]["degradation"] == {"prose": 0.0, "code": 3.0}
    assert all(number >= 9 for number in sampling.batch(0))


def run(source: Path, work: Path, asked: Recovery = ASKED, **more: object) -> Recovered:
    given = [replace(each, holdout_NT=each.windows_NT[:3]) for each in sources()]  # only these can be learnt
    windows = torch.cat([each.windows_NT for each in given])
    return train(source, work, asked, windows, sources=given, **more)


def test_stopped_and_taken_up_again_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    source = make_pruned(tmp_path / "pruned")
    whole = run(source, tmp_path / "whole")
    assert whole.rounds[0]["mean"] > whole.rounds[1]["mean"] and whole.rounds[-1]["stage"] == 1
    assert whole.tokens == len(whole.losses) * 4 * 24
    with pytest.raises(WorkStopped):
        run(source, tmp_path / "first", progress=Watching(stop_after=4))
    again = run(source, tmp_path / "again", previous=[tmp_path / "first"])
    assert again.resumed_from > 0 and again.losses == whole.losses and again.rounds == whole.rounds
    assert [file.read_bytes() for file in again.files] == [file.read_bytes() for file in whole.files]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"dataset": "prose"}, "recovery.dataset"),
        ({"steps": 11}, "recovery.steps"),
        ({"stages": None}, "recovery.resample_every"),
        ({"stages": [{"datasets": ["prose", "prose"], "steps": 10}]}, "recovery.stages.0.datasets.1"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, object], param: str, tmp_path: Path) -> None:
    description = open_model(make_model(tmp_path / "model")).description
    with pytest.raises(InvalidRequest) as caught:
        complete_recovery(Recovery.model_validate(ASKED.model_dump() | changes), description)
    assert caught.value.param == param
