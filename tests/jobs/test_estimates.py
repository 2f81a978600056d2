"""Needs of a job by the formula alone, and as the fleet's jobs correct them; jobs that no worker can hold; where in
past jobs their time went.
"""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import new_id, seconds_from_now, transaction
from core.device_kinds import CPU, CUDA
from core.engine.architectures.description import ModelDescription
from core.engine.architectures.structure import LinearShape
from core.engine.evaluation.forward_memory import ReloadRoom
from core.service.jobs import service
from core.service.jobs.estimates.compute import Tokens
from core.service.jobs.estimates.history import estimate_that_fits
from core.service.jobs.estimates.resources import estimate_resources
from core.service.jobs.progress_curves import progress_curves
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.resolution.job import resolve_job
from core.service.jobs.schemas import JobBody
from core.service.jobs.service import submit
from core.service.jobs.tables import AttemptRow, JobEventRow, JobRow, WorkerRow
from core.settings import Settings
from core.storage import Store
from secateur_wire.jobs import Estimate
from secateur_wire.progress import MOST_FACTOR, seconds_range
from tests.recipes import recipe_of

_GIB = 2**30


def _estimate(session: Session, team: str, body: dict[str, Any], store: Store, settings: Settings) -> Estimate:
    resolved = resolve_job(RequestContext(session, team, store, settings), JobBody.model_validate(body))
    return estimate_that_fits(session, team, resolved, settings).estimate


def _past_attempts(
    session: Session,
    team: str,
    job_id: str,
    estimate: Estimate,
    times: list[float],
    *,
    method: str = "wanda",
    first: int = 1,
    error_code: str | None = None,
) -> None:
    """Attempts that took so many times what the formula said, and failed where there is an error."""
    formula = estimate.basis.formula
    for number, factor in enumerate(times, first):
        session.execute(
            insert(AttemptRow).values(
                job_id=job_id, attempt=number, team_id=team, queue="default", method=method, worker_id="worker_1",
                ended_at=seconds_from_now(-60), outcome="failed" if error_code else "succeeded",
                error_code=error_code, needs=estimate.model_dump(mode="json"),
                measured={name: value and value * factor for name, value in formula.items()},
            )
        )  # fmt: skip


def test_the_fleets_jobs_correct_the_formula(
    sessions: sessionmaker[Session], team: str, job_body: dict[str, Any], store: Store, settings: Settings
) -> None:
    with transaction(sessions) as session:
        alone = _estimate(session, team, job_body, store, settings)
        assert alone.basis.jobs == 0
        assert alone.seconds == alone.basis.formula["seconds"]
        job = service.submit(RequestContext(session, team, store, settings), JobBody.model_validate(job_body))
        _past_attempts(session, team, job.id, alone, [2.0, 2.5])
        _past_attempts(session, team, job.id, alone, [9.0] * 5, method="sparsegpt", first=100)
        others = _estimate(session, team, job_body, store, settings)
        assert others.basis.jobs == 0 and others.peak_memory_bytes == alone.peak_memory_bytes, "two are no experience"
        assert others.seconds == pytest.approx(9 * (alone.seconds or 0)), "the newest of each method"
        assert others.basis.seconds_from == "jobs_of_other_methods" and (others.basis.seconds_deviation or 0) > 0.5
        _past_attempts(session, team, job.id, alone, [3.0], first=200)
        learnt = _estimate(session, team, job_body, store, settings)
    assert (learnt.basis.jobs, learnt.basis.seconds_from) == (3, "jobs")
    assert learnt.basis.formula == alone.basis.formula
    for name, value in alone.basis.formula.items():
        assert getattr(learnt, name) == (None if value is None else pytest.approx(2.5 * value, rel=1e-6)), name


def test_before_any_job_the_pace_of_a_worker_tells_the_time(
    sessions: sessionmaker[Session], team: str, job_body: dict[str, Any], store: Store, settings: Settings
) -> None:
    with transaction(sessions) as session:
        alone = _estimate(session, team, job_body, store, settings)
        worker = _worker(session, memory=64 * _GIB)
        assert _estimate(session, team, job_body, store, settings).basis.seconds_from == "formula"
        slow = CPU.operations_per_second / 100
        session.execute(update(WorkerRow).where(WorkerRow.id == worker).values(operations_per_second=slow))
        paced = _estimate(session, team, job_body, store, settings)
    assert (alone.basis.seconds_from, alone.basis.seconds_deviation) == ("formula", None)
    assert paced.basis.seconds_from == "pace" and paced.basis.formula == alone.basis.formula
    computed = alone.floating_point_operations / CPU.operations_per_second
    assert paced.seconds == pytest.approx((alone.seconds or 0) + 99 * computed, rel=1e-6)
    low, high = seconds_range(paced.seconds or 0, paced.basis.seconds_deviation)
    assert 1 < high / low < MOST_FACTOR, "known, with a band"


def _worker(session: Session, *, memory: int | None, device_memory: int | None = None, disk: int | None = None) -> str:
    worker_id = new_id("worker")
    session.execute(
        insert(WorkerRow).values(
            id=worker_id, queue="default", device="cuda" if device_memory else "cpu", hostname="node", pid=1,
            device_name="NVIDIA L4" if device_memory else None, device_memory_bytes=device_memory, memory_bytes=memory,
            disk_free_bytes=disk,
        )
    )  # fmt: skip
    return worker_id


def test_what_no_worker_can_hold_is_refused_with_the_figures(
    sessions: sessionmaker[Session], api: TestClient, team: str, job_body: dict[str, Any], store: Store,
    settings: Settings,
) -> None:  # fmt: skip
    with transaction(sessions) as session:
        small = _worker(session, memory=64 * 2**20)
    for call in ("/v1/models/inspect", "/v1/jobs"):
        answer = api.post(call, json=job_body).raise_for_status().json()
        (warning,) = answer["warnings"] if "warnings" in answer else answer["estimate"]["warnings"]
        assert "67.1 MB" in warning and "upper bound" in warning
    with transaction(sessions) as session:
        session.execute(update(WorkerRow).values(memory_bytes=2**10))
        _worker(session, memory=None, disk=1000)
    for call in ("/v1/jobs", "/v1/models/inspect"):
        answer = api.post(call, json=job_body)
        assert answer.status_code == 422
        problem = answer.json()
        assert (problem["code"], problem["param"]) == ("does_not_fit", "queue")
        assert "1.0 kB" in problem["detail"]
        assert "memory" in problem["detail"]
        assert "free disk" in problem["detail"]
    assert len(api.get("/v1/jobs").json()["data"]) == 1, "nothing more was queued"
    with transaction(sessions) as session:
        _worker(session, memory=64 * _GIB, disk=10 * _GIB)
    assert api.post("/v1/jobs", json=job_body).status_code == 201, "one worker that has room is enough"
    with transaction(sessions) as session:
        gone = {"heartbeat_at": seconds_from_now(-3600)}
        session.execute(update(WorkerRow).where(WorkerRow.id != small).values(gone))
    assert api.post("/v1/jobs", json=job_body).status_code == 422, "workers that are gone do not count"
    with transaction(sessions) as session:
        session.execute(update(WorkerRow).values(gone))
    assert api.post("/v1/jobs", json=job_body).status_code == 201, "with no worker to ask, the job waits for one"


def test_jobs_with_the_same_stages_tell_where_their_time_went(
    sessions: sessionmaker[Session], team: str, job_body: dict[str, Any], store: Store, settings: Settings
) -> None:
    def submitted(session: Session) -> str:
        return submit(RequestContext(session, team, store, settings), JobBody.model_validate(job_body)).id

    def ended(session: Session, job: str, began: dict[tuple[float, float], float]) -> None:
        """Write the parts of a job that began 100 s ago, at these seconds after the first one, and ended now."""
        session.execute(update(JobRow).where(JobRow.id == job).values(attempt=1))
        needs = {"basis": {"formula": {"seconds": 50.0}}}
        session.execute(
            insert(AttemptRow).values(
                job_id=job, attempt=1, team_id=team, queue="default", method="wanda", worker_id="worker_1",
                ended_at=seconds_from_now(0), outcome="succeeded", needs=needs, measured={"seconds": 100.0},
            )
        )  # fmt: skip
        events = [
            {"part": list(part), "progress": part[0], "at": at + more} for part, at in began.items() for more in (0, 1)
        ]
        for number, event in enumerate(events, 100):
            at = event.pop("at")
            session.execute(
                insert(JobEventRow).values(
                    job_id=job, sequence=number, type="progress", attempt=1, data=event,
                    created_at=seconds_from_now(at - 100),
                )
            )  # fmt: skip

    with transaction(sessions) as session:
        own = submitted(session)
        wanted: dict[str, Any] = {"queue": "default", "method": "wanda", "formula_seconds": 50.0}
        assert progress_curves(session, job_id=own, **wanted) == []
        ended(session, submitted(session), {(0.0, 0.8): 0.0, (0.8, 0.96): 20.0, (0.96, 0.98): 30.0})
        (curve,) = progress_curves(session, job_id=own, **wanted)
        assert progress_curves(session, job_id=own, **{**wanted, "method": "sparsegpt"}) == []
    assert [place for place, _ in curve] == [0.0, 0.8, 0.96, 1.0]
    assert [share for _, share in curve] == pytest.approx([0.0, 0.2, 0.3, 1.0], abs=0.01)


def _needs(layers: int, *rooms: ReloadRoom) -> Any:
    """Return the needs on a GPU of a model like Llama-2-7B, which has 32 layers, with so many."""
    shapes = [("self_attn.q_proj", 4096, 4096), ("self_attn.k_proj", 4096, 4096), ("self_attn.v_proj", 4096, 4096)]
    shapes += [("self_attn.o_proj", 4096, 4096), ("mlp.gate_proj", 11008, 4096), ("mlp.up_proj", 11008, 4096)]
    linears = [
        LinearShape(name=f"model.layers.{layer}.{name}", layer=layer, out_features=rows, in_features=columns)
        for layer in range(layers)
        for name, rows, columns in [*shapes, ("mlp.down_proj", 4096, 11008)]
    ]
    prunable = sum(linear.numel for linear in linears)
    parameters = prunable + 2 * 32000 * 4096
    model = ModelDescription(
        family="Llama", architecture="LlamaForCausalLM", parameters=parameters, prunable_parameters=prunable,
        bytes=2 * parameters, dtype="float16", layers=layers, hidden_size=4096, vocabulary_size=32000,
        context_length=4096, tied_embeddings=False, linears=linears,
    )  # fmt: skip
    tokens = Tokens(calibration=128 * 2048, evaluation=0, window=2048)
    recipe = recipe_of(sparsity=0.5)
    return estimate_resources(
        model, recipe, tokens, device=CUDA, activation_budget_bytes=4 * _GIB, is_fetched=False, rooms=rooms
    )


@pytest.mark.parametrize(
    "room", [ReloadRoom(2 * _GIB, None), ReloadRoom(None, 24 * _GIB)], ids=["main memory", "device memory"]
)
def test_where_no_worker_holds_the_whole_model_nothing_but_the_disk_grows_with_depth(room: ReloadRoom) -> None:
    shallow, deep = (_needs(layers, room) for layers in (64, 128))
    assert deep.peak_device_memory_bytes == pytest.approx(shallow.peak_device_memory_bytes, rel=0.01)
    assert deep.peak_memory_bytes == shallow.peak_memory_bytes < 4 * _GIB
    assert deep.disk_bytes > 1.8 * shallow.disk_bytes
    roomy = ReloadRoom(40 * _GIB, 40 * _GIB)
    assert _needs(64, room, roomy) == _needs(64), "it goes to one that does, where there is one"
    assert shallow.seconds > _needs(64).seconds, "each matrix is read whenever it is used"
