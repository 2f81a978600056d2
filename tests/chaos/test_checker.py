"""The checker of the chaos harness finds nothing where promises were kept, and each that was broken by hand."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from bench.chaos import promises
from bench.chaos.installation import Observation, Promise
from bench.chaos.running import check
from tests.chaos.conftest import TEAM, Installed
from tests.webhooks.receiver import Received

Tamper = Callable[[Installed], AbstractContextManager[None]]
"""Breaks a promise until the end of the context."""


@pytest.fixture(scope="module")
def kept(installed: Installed) -> Iterator[Observation]:
    """The installation before anything was tampered with."""
    with installed.look() as seen:
        yield seen


def test_nothing_is_found_where_nothing_is_broken(installed: Installed) -> None:
    assert check(installed.installation, bound_seconds=5, expected_pids=[os.getpid()], run_id="none") == []


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


def stored(path: str, content: bytes | None) -> Tamper:
    """Return an object of the store as it should not be, None for gone."""

    @contextmanager
    def tamper(installed: Installed) -> Iterator[None]:
        with installed.look() as seen:
            where = {"Bucket": seen.installation.bucket, "Key": path.format(done=installed.done)}
            before = seen.content(where["Key"]) if where["Key"] in seen.objects() else None
            for now, is_over in ((content, False), (before, True)):
                if now is None:
                    seen.s3.delete_object(**where)
                else:
                    seen.s3.put_object(**where, Body=now)
                if not is_over:
                    yield

    return tamper


def delivered(change: Callable[[list[Received]], list[Received]]) -> Tamper:
    """Return a change of what the receiver was sent."""

    @contextmanager
    def tamper(installed: Installed) -> Iterator[None]:
        hooks = installed.installation.hooks
        before = hooks.received
        hooks.received = change(before)
        yield
        hooks.received = before

    return tamper


@contextmanager
def work_folder(installed: Installed) -> Iterator[None]:
    folder = installed.installation.folder / "worker-1/work" / installed.done
    folder.mkdir(parents=True)
    yield
    folder.rmdir()


@contextmanager
def lock(installed: Installed) -> Iterator[None]:
    with installed.installation.connect() as connection:
        connection.execute("SELECT pg_advisory_lock(1)")
        yield


FENCING = promises.no_write_of_an_attempt_after_a_newer_one
EVENT = "UPDATE job_events SET data = '{%s}' WHERE job_id = DONE AND data->>'%s' = '%s'"
ONE_KEY = "UPDATE jobs SET body = jsonb_set(body, '{metadata}', (SELECT body->'metadata' FROM jobs WHERE id = DONE))"
WEIGHTS = "{done}/attempt-1/model.safetensors"
BROKEN: list[tuple[Promise, Tamper]] = [
    (promises.numbers_have_no_gaps, rows("DELETE FROM job_events WHERE job_id = DONE AND sequence = 3")),
    (FENCING, rows("UPDATE job_events SET attempt = 1 WHERE job_id = TRIED_AGAIN AND data->>'stage' = 'store'")),
    (FENCING, rows("UPDATE job_reports SET report = report || '{\"attempt\": 1}' WHERE job_id = TRIED_AGAIN")),
    (promises.only_legal_transitions, rows(EVENT % ('"status": "succeeded"', "status", "queued"))),
    (promises.attempts_are_counted, rows("DELETE FROM job_attempts WHERE job_id = TRIED_AGAIN AND attempt = 1")),
    (promises.attempts_go_forward, rows(EVENT % ('"stage": "fetch"', "stage", "store"))),
    (promises.the_trail_is_whole, rows("DELETE FROM audit WHERE action = 'job.requeue'")),
    (promises.every_job_ends, rows("UPDATE jobs SET status = 'queued', finished_at = NULL WHERE id = DONE")),
    (promises.jobs_fail_for_their_own_reasons, rows("UPDATE jobs SET status = 'succeeded' WHERE id = MISSED")),
    (promises.one_key_makes_one_job, rows(ONE_KEY)),
    (promises.accepted_jobs_exist, noted("accepted", job="job_0", team=TEAM, key="k")),
    (promises.clients_are_told_nothing_wrong, noted("refused", doing="look", team=TEAM, text="")),
    (promises.watchers_see_every_event_once, noted("watched", job="DONE", sequences=[1, 2, 4], ended=False)),
    (promises.watchers_see_every_event_once, noted("watched", job="DONE", sequences=[1, 2], ended=True)),
    (promises.a_success_has_an_artifact, rows("DELETE FROM job_reports WHERE job_id = DONE")),
    (promises.listed_files_are_stored, stored("{done}/attempt-1/README.md", b"{}")),
    (promises.manifests_are_complete, stored(WEIGHTS, None)),
    (promises.counts_are_what_the_lists_say, rows("UPDATE teams SET stored_bytes = stored_bytes - 1")),
    (promises.hostile_files_are_refused, noted("hostile", status=422, code="unusable_model", seconds=31.0)),
    (promises.every_event_is_delivered, delivered(lambda sent: sent[1:])),
    (promises.every_event_is_delivered, delivered(lambda sent: [replace(sent[0], body=sent[0].body + b" "), *sent])),
    (promises.the_store_holds_only_what_is_named, stored("{done}/attempt-7/config.json", b"{}")),
    (promises.no_work_is_left, work_folder),
    (promises.no_transaction_is_left, lock),
]


@pytest.mark.parametrize(("promise", "tamper"), BROKEN)
def test_a_promise_that_was_broken_is_found(
    promise: Promise, tamper: Tamper, installed: Installed, kept: Observation
) -> None:
    assert not list(promise(kept))
    with tamper(installed), installed.look() as seen:
        assert list(promise(seen))


@pytest.mark.parametrize("variable", ["CHAOS_RUN", "LC_CHAOS_RUN"])
def test_a_process_is_left_over_where_it_is_of_the_run_and_not_expected(variable: str, installed: Installed) -> None:
    command = [sys.executable, "-S", "-c", "print(flush=True); input()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env={variable: "a run"}, **pipes) as process, installed.look() as seen:
        assert process.stdout is not None
        process.stdout.readline()
        seen.run_id = "a run"
        assert len(list(promises.no_process_is_left(seen))) == 1
        seen.expected_pids = [process.pid]
        assert not list(promises.no_process_is_left(seen))
        process.kill()
