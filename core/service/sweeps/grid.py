"""Points of a sweep's request: the values in which they differ, and the job bodies made of these and the request.

Bodies share what they have in common, so that many points take little memory; nobody changes them.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from pydantic import JsonValue

from core.service.jobs.schemas import JobBody
from core.service.sweeps.schemas import MOST_POINTS, Search, SweepBody
from core.service.sweeps.tables import SweepPointRow
from secateur_wire.errors import InvalidRequest
from secateur_wire.job_body import MOST_LABELS
from secateur_wire.states import PointStage

Document = dict[str, JsonValue]

FIXED = ("model", "metadata")
"""Fields of a job body that are the same for all points: a sweep has one model."""
SWEEP_LABEL = "sweep"
"""Metadata key that names the sweep of a job."""
LONGEST_JOB = 131_072
"""Largest number of bytes of a sweep's `job`, as JSON: every point repeats it."""
MOST_VALUE_BYTES = 2**20
"""Largest number of bytes of the values of all points together, as JSON: a grid repeats each value in many points."""


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
    if (size := _values_bytes(body)) > MOST_VALUE_BYTES:
        param = "points" if body.grid is None else "grid"
        raise InvalidRequest(
            f"{param}: the values of all {count} points have {size} bytes together, and at most {MOST_VALUE_BYTES} are "
            "allowed: set in job what is the same for all, or register long texts as data sets, and vary their names",
            param=param,
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


def _values_bytes(body: SweepBody) -> int:
    """Return the number of bytes of the values of all points of a grid, without making the points."""
    grid = body.grid or {}
    in_all = math.prod(map(len, grid.values()))
    repeated = sum(in_all // len(values) * (_bytes(values) + len(values) * len(path)) for path, values in grid.items())
    return repeated + _bytes(body.points)


def _bytes(value: JsonValue | Sequence[Document]) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass"))


def _check_job(body: SweepBody) -> None:
    """Refuse a long job, and fields that the service or the search sets itself: raises InvalidRequest."""
    if (size := _bytes(body.job)) > LONGEST_JOB:
        raise InvalidRequest(
            f"job: the job of a sweep may have {LONGEST_JOB} bytes as JSON, not {size}: register long texts as a data "
            "set, and name that",
            param="job",
        )
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
    stage: PointStage = "full" if search.probe is None else "probe"
    for method, sparsity in itertools.product(search.methods, search.candidates()):
        values: Document = {"method": method, "sparsity": sparsity}
        yield RequestedPoint(values, _searched_body(job, search, values, stage), stage)


def _searched_body(job: Document, search: Search, values: Document, stage: PointStage) -> Document:
    body = _with_values(job, values, "search")
    if search.probe is None or stage == "full":
        return body
    cheaper = search.probe.model_dump(exclude_none=True)
    return _with_values(body, {f"evaluation.{name}": value for name, value in cheaper.items()}, "search")


def point_body(body: SweepBody, model: str, sweep_id: str, point: SweepPointRow) -> Document:
    """Return the job body of a sweep's point; `model` is the unambiguous name of the sweep's model."""
    metadata = body.job.get("metadata")
    label: Document = {**(metadata if isinstance(metadata, dict) else {}), SWEEP_LABEL: sweep_id}
    if body.search is None:
        of_values = _with_values(body.job, point.point_values, "grid")
    elif point.verifies is not None:
        of_values = verifying_body(body.job, body.search, point.point_values)
    else:
        of_values = _searched_body(body.job, body.search, point.point_values, cast(PointStage, point.stage))
    return of_values | {"model": model, "metadata": label}


def verifying_body(job: Document, search: Search, values: Document) -> Document:
    """Return the job body that measures a probe's model in full, with the limits as its gates."""
    return _with_values(job, values, "search") | {"gates": search.subject_to.model_dump(mode="json", exclude_none=True)}


def _with_values(job: Document, values: Mapping[str, JsonValue], param: str) -> Document:
    """Return a job with these values; what has none of them is not copied."""
    body = {**job}
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
            if inner is not None and not isinstance(inner, dict):
                raise InvalidRequest(f"{param}: {path!r}: job has no object {name!r} to set it in", param=param)
            place[name] = inner = {**(inner or {})}
            place = inner
        place[names[-1]] = value
    return body
