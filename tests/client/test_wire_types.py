"""Wire types between servers and clients of different releases: what one does not know, the other does not lose."""

import importlib
import pkgutil
from collections.abc import Iterator
from datetime import UTC, date, datetime
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import pytest
from pydantic import TypeAdapter, ValidationError

import secateur_wire
from secateur.jobs import Job
from secateur_wire.base import Number, Page, Record, WireModel
from secateur_wire.fleet import Worker
from secateur_wire.teams import CreatedKey, Key


def wire_types() -> Iterator[type[WireModel]]:
    for found in pkgutil.iter_modules(secateur_wire.__path__):
        if found.ispkg:
            continue
        module = importlib.import_module(f"secateur_wire.{found.name}")
        for each in vars(module).values():
            is_own = isinstance(each, type) and each.__module__ == module.__name__
            if (
                is_own
                and issubclass(each, WireModel)
                and each not in (WireModel, Record, Page)
                and "[" not in each.__name__
            ):
                yield each
    yield Job


TYPES = sorted(wire_types(), key=lambda each: (each.__module__, each.__name__))


def plain(kind: Any) -> Any:
    """Return a JSON value of a field's type, the fullest there is."""
    if isinstance(kind, TypeVar):
        variable: Any = kind  # the standard library's have defaults from Python 3.13 on
        return plain(variable.__default__)
    arguments, origin = get_args(kind), get_origin(kind)
    if origin is Annotated:
        return plain(arguments[0])
    if origin is Literal:
        return arguments[0]
    if kind == Number:
        return 0.5
    if origin in (Union, UnionType):
        return plain(next(each for each in arguments if each is not NoneType))
    if origin is list:
        return [plain(arguments[0])]
    if origin is dict:
        return {"name": plain(arguments[1])}
    if isinstance(kind, type) and issubclass(kind, WireModel):
        return answer(kind)
    if kind is datetime:
        return "2026-03-01T12:00:00Z"
    if kind is date:
        return "2026-03-01"
    return {str: "a text", int: 3, float: 0.5, bool: True, NoneType: None}.get(kind, {"any": [1, None, "JSON"]})


def answer(kind: type[WireModel], *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    fields = kind.model_fields.items()
    return {field.alias or name: plain(field.annotation) for name, field in fields if name not in without}


def test_what_a_type_writes_it_reads_and_fields_of_a_newer_server_are_kept() -> None:
    for kind in TYPES:
        read = kind.model_validate(answer(kind))
        assert read.model_dump(mode="json") == answer(kind), kind
        assert kind.model_validate_json(read.model_dump_json()) == read
        assert read.model_fields_set == kind.model_fields.keys()
        newer = answer(kind) | {"of_a_newer_server": {"figures": [1, 2.5, None]}}
        read = kind.model_validate(newer)
        assert read.model_extra == {"of_a_newer_server": {"figures": [1, 2.5, None]}}
        assert read.model_dump(mode="json") == newer, kind


LATER: dict[str, set[str]] = {
    "AuditEntry": {"actor_name", "address", "person_id"},
    "BestPoint": set(),
    "Dataset": {"classes", "images", "image_field", "label_field", "left_out", "text_field"},
    "Estimate": {
        *("basis", "floating_point_operations", "forward_tokens", "peak_device_memory_bytes", "seconds", "warnings")
    },
    "GateResult": {"figure", "kept", "margin", "message", "on"},
    "Inspection": {
        *("artifact", "assumed", "classes", "context_length", "hidden_size", "image", "layers", "model_revision"),
        *("task", "tied_embeddings", "vocabulary_size"),
    },
    "Job": {
        *("gates", "metadata", "model_revision", "priority", "queue", "recovery", "sparsity", "target"),
        *("estimated_seconds", "estimated_seconds_deviation", "seconds_left", "verdict", "waiting_reason", "warnings"),
        "left_out",
    },
    "JobAttempt": {"measured", "needs", "stages"},
    "JobError": {"param", "retryable"},
    "Method": {"description", "gains", "summary", "variants"},
    "Model": {
        *("classes", "context_length", "discovery", "hidden_size", "image", "layers", "task", "tied_embeddings"),
        *("provenance", "vocabulary_size"),
    },
    "ModelProvenance": {"data", "job", "method", "source"},
    "PointCounts": {"cancelled", "failed", "not_run", "queued", "running", "succeeded", "waiting"},
    "Problem": {"instance", "param", "status", "title", "type"},
    "Retention": {"suspended"},
    "RetentionPolicy": {"keep_tagged"},
    "SearchOutcome": {"job", "nearest", "number"},
    "Sweep": {"dense", "error", "finished_at", "grid", "job", "name", "search", "skipped", "waiting_for"},
    "SweepPoint": {"error", "figures", "job", "on_front", "stage", "unmet"},
    "SweepResults": {"search"},
    "TargetReached": {"sparsity", "spread"},
    "Upload": {"error"},
    "Worker": {
        *("device_celsius", "device_id", "device_memory_bytes", "device_memory_used_bytes", "device_name"),
        *("device_uncorrected_errors", "device_utilisation", "disk_free_bytes", "memory_bytes", "reason", "version"),
        *("operations_per_second", "runtimes"),
    },
}
"""Fields without which answers of older servers come, beside `object`: none of them may become required."""


def test_an_answer_of_an_older_server_lacks_what_came_later() -> None:
    kinds = {each.__name__: each for each in TYPES}
    for name, later in LATER.items():
        kind = kinds[name]
        assert later <= kind.model_fields.keys(), name
        older = answer(kind, without=frozenset({"object", *later}))
        assert kind.model_validate(older).model_dump(mode="json", exclude_unset=True) == older, name
        required = {each for each, field in kind.model_fields.items() if field.is_required()}
        assert required == older.keys(), name


def test_a_state_that_came_later_is_read_and_a_status_nobody_knows_is_refused() -> None:
    assert Worker.model_validate(answer(Worker) | {"state": "dreaming"}).state == "dreaming"
    with pytest.raises(ValidationError, match="queued"):
        Job.model_validate(answer(Job) | {"status": "dreaming"})


def test_an_answer_of_a_narrower_type_shows_no_more_than_it_declares() -> None:
    made = CreatedKey.model_validate(answer(CreatedKey))
    shown = TypeAdapter(Key).dump_python(made)
    assert "key" not in shown
    assert shown["created_at"] == datetime(2026, 3, 1, 12, tzinfo=UTC)
