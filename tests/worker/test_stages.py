"""The stages of an attempt: which of them a job has, in which order, and what each covers of its progress. The time
left follows the pace of the work: exact at a constant pace, and soon right after the pace changed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.pipeline.messages import ClassifierSpec, JobSpec, LanguageSpec, ModelSource
from core.pipeline.stages.registry import stages_of
from core.pipeline.stages.stage import Entry, RunningJob, TaskRunner
from secateur_wire.errors import DiskFull, ModelTooLarge, SecateurError
from tests.recipes import recipe_of
from worker.supervisor.time_left import TRUSTED, WINDOW, WorkRecord

GGUF = [{"format": "gguf", "types": ["Q8_0"]}]
PRUNE = ["PruneModel", "MeasureModels", "VerifyArtifact"]


def spec_of(is_classifier: bool, **body: Any) -> JobSpec:
    folder = Path("work")
    common: dict[str, Any] = {
        "job": "job_1", "attempt": 1, "recipe": recipe_of(**body), "calibration": None, "evaluation": [],
        "model": ModelSource(path=folder, name="m", revision="1"), "work": folder, "previous": [],
        "artifact": folder / "artifact", "device": None, "threads": None,
    }  # fmt: skip
    if is_classifier:
        return ClassifierSpec(**common, recovery=None)
    return LanguageSpec(**common, activation_budget_bytes=1)


@pytest.mark.parametrize(
    ("is_classifier", "body", "expected"),
    [
        (
            False,
            {"sparsity": 0.5, "recovery": {"method": "finetune", "steps": 1}},
            ["PruneModel", "RecoverModel", *PRUNE[1:]],
        ),
        (False, {"method": "depth", "target": {"latency_ratio": 0.8}}, ["SearchSparsity", *PRUNE]),
        (
            False,
            {"sparsity": 0.5, "evaluation": {"prompts": ["a"], "tasks": ["piqa"]}, "output": {"format": "packed"}},
            ["PruneModel", "MeasureModels", "AnswerTasks", "VerifyArtifact", "ExportWeights"],
        ),
        (
            False,
            {"method": "flap", "sparsity": 0.5, "pattern": "structured", "output": {"exports": GGUF}},
            ["CheckExports", *PRUNE, "AddExports", "TimeExports"],
        ),
        (False, {"method": "sensitivity"}, ["MeasureSensitivity"]),
        (True, {"method": "obd", "sparsity": 0.5}, ["PruneClassifier", *PRUNE[1:]]),
        (True, {"method": "sensitivity"}, ["PruneClassifier"]),
    ],
)
def test_a_job_has_the_stages_that_apply_and_its_progress_never_falls(
    is_classifier: bool, body: dict[str, Any], expected: list[str]
) -> None:
    spec = spec_of(is_classifier, **body)
    applying = list(stages_of(spec))
    assert [type(stage).__name__ for stage, _ in applying] == expected
    places = [place for _, share in applying for place in share]
    assert places == sorted(places) and places[0] == 0.0 and places[-1] == pytest.approx(0.99), "storing does the rest"


@pytest.mark.parametrize("reason", [DiskFull, ModelTooLarge])
def test_a_node_without_room_fails_no_job_for_what_it_would_keep(reason: type[SecateurError]) -> None:
    class FullCache:
        def find(self, key: str) -> Entry | None:
            return None

        @contextmanager
        def fill(self, key: str, size: int) -> Iterator[Path | None]:
            raise reason("no room")
            yield None

    RunningJob(spec_of(False, sparsity=0.5), cast(TaskRunner, None), FullCache()).keep_if_possible("a", "b", "c")


STEPS = st.integers(min_value=10, max_value=200)
PACES = st.floats(min_value=0.01, max_value=1000)
ESTIMATES = st.one_of(st.none(), st.floats(min_value=0.1, max_value=1e6))


def record_of(seconds: Sequence[float], *, of: int | None = None) -> tuple[WorkRecord, float]:
    """Return the record of one part whose steps took so many seconds, of `of` steps in all, and the time at its end."""
    record, at = WorkRecord(), 0.0
    record.begin_part(at, 0.0, 1.0)
    for done, each in enumerate(seconds, 1):
        at += each
        record.report(at, done / (of or len(seconds)))
    return record, at


@given(STEPS, PACES, st.floats(min_value=0.05, max_value=20), ESTIMATES, st.data())
def test_another_pace_is_followed_within_a_share_of_the_work(
    steps: int, pace: float, factor: float, estimate: float | None, data: st.DataObject
) -> None:
    changed = data.draw(st.integers(min_value=1, max_value=steps - 1))
    followed = int(changed / (1 - WINDOW)) + 1
    if followed > steps:
        return
    record, now = record_of([pace] * changed + [pace * factor] * (followed - changed), of=steps)
    if followed / steps >= TRUSTED:
        left = record.seconds_left(now, estimate)
        assert left is not None and left[0] == pytest.approx((steps - followed) * pace * factor)


@given(st.lists(PACES, min_size=2, max_size=30), ESTIMATES, st.floats(min_value=0, max_value=1e4))
def test_it_is_never_negative_and_falls_until_the_next_step(
    seconds: list[float], estimate: float | None, more: float
) -> None:
    record, now = record_of(seconds[:-1], of=len(seconds))
    left = [record.seconds_left(now + later, estimate) for later in (0.0, more, 2 * more)]
    assert all(each is not None and each[0] >= 0 for each in left)
    if (len(seconds) - 1) / len(seconds) >= TRUSTED:
        highs = [each[1] for each in left if each is not None]
        assert highs == sorted(highs, reverse=True), "no report is no reason for it to climb"


def test_work_of_an_earlier_attempt_is_no_pace() -> None:
    record = WorkRecord()
    record.begin_part(0.0, 0.0, 0.9)
    record.begin_part(5.0, 0.6, 0.9)
    record.report(15.0, 0.7)
    left = record.seconds_left(15.0, None)
    assert left is not None and left[0] == pytest.approx(20.0 + 10.0), "0.3 are left, 0.1 in 10 s"


def test_later_parts_take_the_share_of_the_time_that_they_took_in_past_jobs() -> None:
    past = [[(0.0, 0.0), (0.8, 0.2), (1.0, 1.0)]]
    known, unknown = WorkRecord(past), WorkRecord()
    for record in (known, unknown):
        record.begin_part(0.0, 0.0, 0.8)
        for done in range(1, 9):
            record.report(5.0 * done, 0.1 * done)
        record.begin_part(40.0, 0.8, 1.0)
    left, without = known.seconds_left(40.0, 200.0), unknown.seconds_left(40.0, 200.0)
    assert left is not None and left[0] == pytest.approx(160.0), "four times as long as the first four fifths"
    assert without is not None and without[0] < 20
    later = known.seconds_left(100.0, 200.0)
    assert later is not None and 80 < later[0] < 160, "it falls while a part tells of no work"
