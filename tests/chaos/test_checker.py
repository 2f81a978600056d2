"""The checker of the chaos harness finds nothing where promises were kept, and each that was broken by hand."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.chaos import checker
from bench.chaos.bystanders import JOB, Team
from bench.chaos.observation import Bucket, Observation
from bench.chaos.promises import Promise, artifacts, attempts, jobs, leftovers, teams, webhooks
from tests.chaos.conftest import TEAM, Installed
from tests.databases import administrator

Tamper = Callable[[Installed], AbstractContextManager[None]]
"""Breaks a promise until the end of the context."""
Line = dict[str, Any]


@pytest.fixture(scope="module")
def kept(installed: Installed) -> Iterator[Observation]:
    """The installation before anything was tampered with."""
    with installed.look() as seen:
        yield seen


@pytest.mark.nightly  # each run of the harness finds nothing, that of the short seed too
def test_nothing_is_found_where_nothing_is_broken(installed: Installed) -> None:
    path = installed.journal.path
    pids = [os.getpid()]
    assert checker.check(installed.installation, path, bound_seconds=5, expected_pids=pids, run_id="none") == []


def rows(statement: str) -> Tamper:
    """Return a change of the database."""
    return lambda installed: installed.changed(statement)


def noted(kind: str, **said: Any) -> Tamper:
    """Return an entry of the journal; "DONE" in it is a job's id."""

    @contextmanager
    def tamper(installed: Installed) -> Iterator[None]:
        entry = {name: installed.done if value == "DONE" else value for name, value in said.items()}
        installed.noted.append({"kind": kind, **entry})
        yield
        installed.noted.clear()

    return tamper


@contextmanager
def disabled_trigger(installed: Installed) -> Iterator[None]:
    trigger = Team(installed.installation, installed.journal, TEAM).add_trigger(JOB)
    with noted("hub_trigger", team=TEAM, id=trigger)(installed):
        yield


def stored(path: str, content: bytes | None) -> Tamper:
    """Return an object of the store as it should not be, None for gone."""

    @contextmanager
    def tamper(installed: Installed) -> Iterator[None]:
        with closing(Bucket(installed.installation)) as bucket:
            objects = bucket.objects()
            model = next(key for key in objects if key.startswith("models/")).rpartition("/")[0]
            key = path.format(done=installed.done, tried_again=installed.tried_again, model=model)
            before = bucket.content(key) if key in objects else None
            put(bucket, key, content)
            yield
            put(bucket, key, before)

    return tamper


def put(bucket: Bucket, key: str, content: bytes | None) -> None:
    where = {"Bucket": bucket.name, "Key": key}
    if content is None:
        bucket.client.delete_object(**where)
    else:
        bucket.client.put_object(**where, Body=content)


def delivered(change: Callable[[list[Line]], list[Line]]) -> Tamper:
    """Return a change of what the receiver was sent."""

    @contextmanager
    def tamper(installed: Installed) -> Iterator[None]:
        file = installed.installation.received
        before = file.read_text()
        lines = change([json.loads(line) for line in before.splitlines()])
        file.write_text("".join(json.dumps(each) + "\n" for each in lines))
        yield
        file.write_text(before)

    return tamper


@contextmanager
def open_upload(installed: Installed) -> Iterator[None]:
    body = {"kind": "dataset", "name": "left", "files": [{"path": "a.txt", "bytes": 1, "sha256": "0" * 64}]}
    upload = installed.installation.request(TEAM, "POST", "/v1/uploads", body)["id"]
    yield
    with installed.installation.http(TEAM) as client:
        client.delete(f"/v1/uploads/{upload}")


@contextmanager
def work_folder(installed: Installed) -> Iterator[None]:
    folder = installed.installation.folder / "worker-1/work" / installed.done
    folder.mkdir(parents=True)
    yield
    folder.rmdir()


@contextmanager
def half_a_file(installed: Installed) -> Iterator[None]:
    file = installed.installation.folder / "worker-1/cache/entries/model.safetensors.partial"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    yield
    file.unlink()


@contextmanager
def lock(installed: Installed) -> Iterator[None]:
    with administrator(installed.installation.database_url) as connection:
        connection.execute("SELECT pg_advisory_lock(1)")
        yield


FENCING = attempts.no_write_of_an_attempt_after_a_newer_one
ASKED: Line = {"during": "fault 1 (hub_away)", "what": "health", "bound": 5.0, "error": None}
HOSTILE: Line = {"what": "a file", "status": 422, "code": "unusable_model", "seconds": 1.0}
EVENT = "UPDATE job_events SET data = '{%s}' WHERE job_id = DONE AND data->>'%s' = '%s'"
TWO_STEPS = """INSERT INTO job_events (job_id, sequence, type, attempt, data)
    VALUES (DONE, 1001, 'progress', 1, '{"progress": 0.8}'), (DONE, 1002, 'progress', 1, '{"progress": 0.7}')"""
ONE_KEY = "UPDATE jobs SET body = jsonb_set(body, '{metadata}', (SELECT body->'metadata' FROM jobs WHERE id = DONE))"
ZEROS = '{"layers": [{"name": "model.layers.0.mlp.up_proj", "zeros": 1}]}'
BROKEN: list[tuple[Promise, Tamper]] = [
    (attempts.numbers_have_no_gaps, rows("DELETE FROM job_events WHERE job_id = DONE AND sequence = 3")),
    (FENCING, rows("UPDATE job_events SET attempt = 1 WHERE job_id = TRIED_AGAIN AND data->>'stage' = 'store'")),
    (FENCING, rows(EVENT % ('"stage": "prune"', "stage", "store"))),
    (FENCING, rows("UPDATE job_reports SET report = report || '{\"attempt\": 1}' WHERE job_id = TRIED_AGAIN")),
    (FENCING, rows(EVENT % ('"status": "queued"', "status", "running"))),
    (attempts.only_legal_transitions, rows(EVENT % ('"status": "succeeded"', "status", "queued"))),
    (attempts.only_legal_transitions, rows("UPDATE jobs SET status = 'failed' WHERE id = DONE")),
    (attempts.attempts_are_counted, rows("DELETE FROM job_attempts WHERE job_id = TRIED_AGAIN AND attempt = 1")),
    (attempts.attempts_are_counted, rows("UPDATE jobs SET attempt = 3 WHERE id = TRIED_AGAIN")),
    (attempts.attempts_are_counted, rows("UPDATE job_attempts SET outcome = 'released' WHERE job_id = DONE")),
    (attempts.stages_come_in_order, rows(EVENT % ('"stage": "fetch"', "stage", "store"))),
    (attempts.progress_never_goes_back, rows(TWO_STEPS)),
    (attempts.the_trail_is_whole, rows("DELETE FROM audit WHERE action = 'job.submit' AND object_id = DONE")),
    (attempts.the_trail_is_whole, rows("DELETE FROM audit WHERE action = 'job.requeue'")),
    (jobs.a_life_ends_once, rows(EVENT % ('"status": "failed"', "status", "running"))),
    (jobs.every_job_ends, rows("UPDATE jobs SET status = 'queued', finished_at = NULL WHERE id = DONE")),
    (
        jobs.jobs_fail_for_their_own_reasons,
        rows('UPDATE jobs SET error = error || \'{"code": "internal_error"}\' WHERE id = MISSED'),
    ),
    (jobs.jobs_fail_for_their_own_reasons, rows("UPDATE jobs SET status = 'succeeded' WHERE id = MISSED")),
    (jobs.one_key_makes_one_job, rows(ONE_KEY)),
    (jobs.one_key_makes_one_job, noted("accepted", job="job_0", team=TEAM, key="key-1")),
    (jobs.accepted_jobs_exist, noted("accepted", job="job_0", team=TEAM, key="k")),
    (jobs.clients_are_told_nothing_wrong, noted("refused", doing="GET /", team=TEAM, status=500, text="")),
    (jobs.watchers_see_every_event_once, noted("watched", job="DONE", sequences=[1, 2, 4], ended=False)),
    (jobs.watchers_see_every_event_once, noted("watched", job="DONE", sequences=[1, 2, 2, 3], ended=False)),
    (jobs.watchers_see_every_event_once, noted("watched", job="DONE", sequences=[1, 2], ended=True)),
    (artifacts.a_success_has_an_artifact, rows("DELETE FROM job_reports WHERE job_id = DONE")),
    (artifacts.listed_files_are_stored, stored("{done}/attempt-1/README.md", b"{}")),
    (artifacts.listed_files_are_stored, stored("{done}/attempt-1/model.safetensors", None)),
    (artifacts.manifests_are_complete, stored("{done}/attempt-1/model.safetensors", None)),
    (
        artifacts.downloads_are_what_was_listed,
        noted("downloaded", job="DONE", path="config.json", sha256="0", listed="1"),
    ),
    (teams.counts_are_what_the_lists_say, rows("UPDATE teams SET running = running + 1")),
    (teams.counts_are_what_the_lists_say, rows("UPDATE teams SET stored_bytes = stored_bytes - 1")),
    (teams.counts_are_what_the_lists_say, stored("{model}/config.json", b"")),
    (teams.bystanders_are_served, noted("asked", **ASKED, seconds=6.0)),
    (teams.bystanders_are_served, noted("asked", **ASKED | {"seconds": None, "error": "timed out"})),
    (teams.hostile_files_are_refused, noted("hostile", **HOSTILE | {"status": 201, "code": ""})),
    (teams.hostile_files_are_refused, noted("hostile", **HOSTILE | {"seconds": 31.0})),
    (teams.poisoned_rows_end_with_a_reason, noted("poisoned", team=TEAM, what="job", id="DONE")),
    (teams.triggers_outlast_the_hub, disabled_trigger),
    (webhooks.every_event_is_delivered, delivered(lambda lines: lines[1:])),
    (webhooks.every_event_is_delivered, delivered(lambda lines: [*lines, lines[0] | {"id": "another"}])),
    (
        webhooks.every_event_is_delivered,
        delivered(lambda lines: [*(line | {"id": "the same"} for line in lines[:2]), *lines[2:]]),
    ),
    (webhooks.deliveries_are_signed, delivered(lambda lines: [lines[0] | {"body": lines[0]["body"] + " "}])),
    (webhooks.deliveries_are_signed, delivered(lambda lines: [lines[0] | {"path": "/elsewhere"}])),
    (leftovers.the_store_holds_only_what_is_named, stored("{done}/attempt-7/config.json", b"{}")),
    (leftovers.the_store_holds_only_what_is_named, stored("models/model_0/config.json", b"{}")),
    (leftovers.no_upload_is_left, open_upload),
    (leftovers.no_work_is_left, work_folder),
    (leftovers.no_work_is_left, half_a_file),
    (leftovers.no_transaction_is_left, lock),
]


@pytest.mark.parametrize(("promise", "tamper"), BROKEN)
def test_a_promise_that_was_broken_is_found(
    promise: Promise, tamper: Tamper, installed: Installed, kept: Observation
) -> None:
    assert not list(promise(kept))
    with tamper(installed), installed.look() as seen:
        assert {violation.promise for violation in promise(seen)} == {promise.name}


def test_an_artifact_that_does_not_load_or_lacks_zeros_is_found(installed: Installed) -> None:
    with (
        installed.changed(f"UPDATE job_reports SET report = report || '{ZEROS}' WHERE job_id = DONE"),
        stored("{tried_again}/attempt-2/config.json", b"{}")(installed),
        installed.look() as seen,
    ):
        found = list(artifacts.masks_are_zero(seen))
    assert {(each.promise, each.job) for each in found} == {
        ("reload", installed.done),
        ("reload", installed.tried_again),
    }


@pytest.mark.parametrize("variable", ["CHAOS_RUN", "LC_CHAOS_RUN"])
def test_a_process_is_left_over_where_it_is_of_the_run_and_not_expected(variable: str, kept: Observation) -> None:
    command = [sys.executable, "-S", "-c", "print(flush=True); input()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env={variable: "a run"}, **pipes) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seen = replace(kept, run_id="a run")
        assert {violation.promise for violation in leftovers.no_process_is_left(seen)} == {"leftovers"}
        assert not list(leftovers.no_process_is_left(replace(seen, expected_pids=frozenset({process.pid}))))
        assert not list(leftovers.no_process_is_left(kept))
        process.kill()


def test_a_timeline_has_events_and_faults_in_the_order_they_came(installed: Installed, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(installed.journal.path.read_text())
    fault = {"number": 4, "name": "kill", "target": "worker-1", "stage": "prune", "seconds": 0}
    with path.open("a") as file:
        for phase in ("begins", "healed"):
            file.write(json.dumps({"at": 1.0, "kind": "fault", **fault, "phase": phase}) + "\n")
    with installed.changed("DELETE FROM job_events WHERE job_id = DONE AND sequence = 3"), installed.look() as seen:
        checker.keep_events(path, seen, list(attempts.numbers_have_no_gaps(seen)))
    lines = checker.timeline(installed.done, path).splitlines()
    assert "FAULT 4 begins: kill of worker-1 in prune" in lines[1]
    assert any('"status": "succeeded"' in line for line in lines[3:])
