"""Points of a sweep's request: each has a whole job body, and the values in which it differs from others."""

import copy
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from core.service.jobs.schemas import JobBody
from core.service.sweeps.schemas import MOST_POINTS, Search, SweepBody
from secateur_wire.errors import InvalidRequest
from secateur_wire.job_body import MOST_LABELS
from secateur_wire.states import PointStage

Document = dict[str, JsonValue]

FIXED = ("model", "metadata")
"""Fields of a job body that are the same for all points: a sweep has one model."""
SWEEP_LABEL = "sweep"
"""Metadata key that names the sweep of a job."""


@dataclass(frozen=True)
class RequestedPoint:
    """Point of a request; its `body` has not been checked yet."""

    values: Document
    body: Document
    stage: PointStage


def requested_points(body: SweepBody) -> list[RequestedPoint]:
    """Return the distinct points; raises InvalidRequest for too many points or an unknown path."""
    _check_job(body)
    count = _count(body)
    if count > MOST_POINTS:
        raise InvalidRequest(
            f"the sweep has {count} points, but at most {MOST_POINTS} are allowed: use fewer values, or several sweeps",
            param="search" if body.search else "grid",
        )
    if body.search is not None:
        return list(_search_points(body.job, body.search))
    points: list[RequestedPoint] = []
    for param, values in _all_values(body):
        point = RequestedPoint(values, _with_values(body.job, values, param), "full")
        if all(point.body != other.body for other in points):
            points.append(point)
    return points


def _count(body: SweepBody) -> int:
    if body.search is not None:
        return len(body.search.methods) * len(body.search.candidates())
    product = 0 if body.grid is None else 1
    for values in (body.grid or {}).values():
        product *= len(values)
    return product + len(body.points)


def _check_job(body: SweepBody) -> None:
    """Refuse fields that the service or the search sets itself: raises InvalidRequest."""
    if not isinstance(body.job.get("model"), str):
        raise InvalidRequest("job.model is required: a sweep prunes one model", param="job.model")
    metadata = body.job.get("metadata")
    if isinstance(metadata, dict) and SWEEP_LABEL in metadata:
        raise InvalidRequest(
            "job.metadata.sweep is set by the service: leave it out, or use another name", param="job.metadata"
        )
    if isinstance(metadata, dict) and len(metadata) >= MOST_LABELS:
        raise InvalidRequest(
            f"job.metadata: at most {MOST_LABELS - 1} labels, because the service adds one for the sweep",
            param="job.metadata",
        )
    if body.search is None:
        return
    for name in ("method", "sparsity", "target"):
        if body.job.get(name) is not None:
            raise InvalidRequest(f"job.{name}: the search chooses it, leave it out", param=f"job.{name}")
    if body.job.get("gates"):
        raise InvalidRequest(
            "job.gates: a search has its limits in search.subject_to: leave gates out", param="job.gates"
        )


def _all_values(body: SweepBody) -> Iterator[tuple[str, Document]]:
    if body.grid is not None:
        for combination in itertools.product(*body.grid.values()):
            yield "grid", dict(zip(body.grid, combination, strict=True))
    for number, values in enumerate(body.points):
        yield f"points.{number}", dict(values)


def _search_points(job: Document, search: Search) -> Iterator[RequestedPoint]:
    """Yield the points of a search by method, in the order of the request, with ascending sparsities."""
    for method, sparsity in itertools.product(search.methods, search.candidates()):
        values: Document = {"method": method, "sparsity": sparsity}
        body = _with_values(job, values, "search")
        if search.probe is None:
            yield RequestedPoint(values, body, "full")
        else:
            cheaper = search.probe.model_dump(exclude_none=True)
            changed: Document = {f"evaluation.{name}": value for name, value in cheaper.items()}
            yield RequestedPoint(values, _with_values(body, changed, "search"), "probe")


def verifying_body(job: Document, search: Search, values: Document) -> Document:
    """Return the job body that measures a probe's model in full, with the limits as its gates."""
    return _with_values(job, values, "search") | {"gates": search.subject_to.model_dump(mode="json", exclude_none=True)}


def _with_values(job: Document, values: Mapping[str, JsonValue], param: str) -> Document:
    body = copy.deepcopy(job)
    for path, value in values.items():
        first, *rest = path.split(".")
        if first not in JobBody.model_fields:
            raise InvalidRequest(
                f"{param}: {path!r} is not a field of a job body, which has {', '.join(JobBody.model_fields)}",
                param=param,
            )
        if first in FIXED:
            raise InvalidRequest(f"{param}: {first} is the same for all points of a sweep: set it in job", param=param)
        place, names = body, [first, *rest]
        for name in names[:-1]:
            inner = place.get(name)
            if inner is None:
                inner = place[name] = {}
            if not isinstance(inner, dict):
                raise InvalidRequest(f"{param}: {path!r}: job has no object {name!r} to set it in", param=param)
            place = inner
        place[names[-1]] = copy.deepcopy(value)
    return body
