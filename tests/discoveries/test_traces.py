"""Traces of registered classifiers: a worker makes them beside its jobs, and nobody waits for one."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker, undefer

from core.database import transaction
from core.engine.architectures.classifier_architecture import TraceAnswer, TraceQuestion
from core.engine.models.classifier import open_classifier
from core.engine.pruning.classifier_trace import trace_classifier
from core.pipeline.stages.trace import answer
from core.service.registry.tables import ModelRow
from core.settings import Settings
from core.storage import Store
from tests.engine.classifier_folders import make_classifier
from worker.supervisor.tracer import ClassifierTracer

_JOB = {"method": "magnitude", "sparsity": 0.5, "evaluation": {"datasets": []}}


@pytest.fixture
def classifier(settings: Settings) -> Path:
    return make_classifier(settings.models_root / "lenet", "lenet-5").absolute()


def _estimate(api: TestClient) -> dict[str, Any]:
    answer = api.post("/v1/models/inspect", json={"model": "lenet", **_JOB}).raise_for_status().json()
    estimate: dict[str, Any] = answer["estimate"]
    return estimate


@pytest.fixture
def command(classifier: Path, tmp_path: Path) -> Sequence[str]:
    """The command of a child that says what was traced here, which loads no libraries."""
    passes = trace_classifier(open_classifier(classifier), (1, 28, 28))
    answer = tmp_path / "answer.json"
    answer.write_text(TraceAnswer(passes=passes).model_dump_json())
    return sys.executable, "-c", "import sys; print(open(sys.argv[1]).read())", str(answer)


def test_a_registered_classifier_is_traced_and_its_jobs_estimated_by_that(
    api: TestClient, sessions: sessionmaker[Session], settings: Settings, store: Store, classifier: Path,
    command: Sequence[str],
) -> None:  # fmt: skip
    api.post("/v1/models", json={"name": "lenet", "path": str(classifier)}).raise_for_status()
    rough = _estimate(api)
    tracer = ClassifierTracer(store, settings, command=command)
    assert tracer.take_next(sessions) and not tracer.take_next(sessions)
    with transaction(sessions) as session:
        query = select(ModelRow).where(ModelRow.name == "lenet").options(undefer(ModelRow.description))
        passes = session.scalars(query).one().description["passes"]
    assert passes["image_shape"] == [1, 28, 28] and passes["operations"] == 4_581_000
    traced = _estimate(api)
    assert traced["floating_point_operations"] == 200 * 4_581_000 < rough["floating_point_operations"]
    assert traced["peak_memory_bytes"] != rough["peak_memory_bytes"]


def test_the_child_finds_the_same_by_config_and_headers_alone(classifier: Path) -> None:
    opened = open_classifier(classifier)
    tensors = {entry.name: (entry.dtype, entry.shape) for entry in opened.tensors.values()}
    question = TraceQuestion(config=opened.raw_config, tensors=tensors, image_shape=(1, 28, 28))
    answered = answer(TraceQuestion.model_validate_json(question.model_dump_json()))
    assert answered.error is None and answered.passes == trace_classifier(opened, (1, 28, 28))
    refused = answer(question.model_copy(update={"config": opened.raw_config | {"network": "none"}}))
    assert refused.passes is None and refused.error is not None and "none" in refused.error
