"""What must not be there any more once all is over: files, uploads, work folders, processes, locks."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from bench.chaos.observation import ENDED, LEASED, Observation
from bench.chaos.promises.promise import Broken, promise

_RUNNER = "secateur-runner"
_PARTIAL = (".partial", ".part", ".tmp", ".incoming")
_OLD_SECONDS = 60

_OLD = f"""
    SELECT pid, state, application_name, left(query, 200), extract(epoch FROM clock_timestamp() - xact_start)
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND xact_start < clock_timestamp() - interval '{_OLD_SECONDS} seconds'
"""
_LOCKS = """
    SELECT locks.pid, locks.locktype, locks.mode, activity.state
    FROM pg_locks AS locks JOIN pg_stat_activity AS activity ON activity.pid = locks.pid
    WHERE locks.locktype = 'advisory' AND activity.datname = current_database() AND activity.state = 'idle'
"""


@promise("leftovers", "settling")
def the_store_holds_only_what_is_named(seen: Observation) -> Iterator[Broken]:
    """No file stays in the store that neither a job, nor a model, a dataset or an open upload names."""
    named = {found.key(file) for found in seen.jobs.values() for file in found.files}
    prefixes = ["generated/", "owner/", "published/"]
    for team in seen.teams:
        for kind in ("models", "datasets"):
            prefixes += [f"{kind}/{each['id']}/" for each in seen.reader.all(team, f"/v1/{kind}")]
        prefixes += [f"uploads/{each['id']}/" for each in seen.reader.all(team, "/v1/uploads", status="open")]
    for key in seen.bucket.objects():
        if key not in named and not key.startswith(tuple(prefixes)):
            job = key.partition("/")[0]
            yield f"{key} is in the store, and nothing names it", job if job in seen.jobs else None


@promise("leftovers", "settling")
def no_upload_is_left(seen: Observation) -> Iterator[Broken]:
    """No upload stays that nobody goes on with, neither a client's nor one in parts of a process that was killed."""
    for team in seen.teams:
        for upload in seen.reader.all(team, "/v1/uploads", status="open"):
            yield f"upload {upload['id']} ({upload['name']}) of {team} is still open", None
    for key in seen.bucket.unfinished():
        yield f"an upload in parts to {key} was neither finished nor given up", None


@promise("leftovers", "settling")
def no_work_is_left(seen: Observation) -> Iterator[Broken]:
    """A worker keeps a work folder for what goes on or can be tried again, and nothing half written."""
    for home in sorted(seen.installation.folder.glob("worker-*")):
        for folder in sorted(home.glob("work/*")):
            found = seen.jobs.get(folder.name)
            if found is None or found.status == "succeeded":
                what = "of nothing" if found is None else "of a job that succeeded"
                yield f"{folder} is a work folder {what}", folder.name
        for file in home.rglob("*"):
            goes_on = not {home / "work", home / "cache/partial"}.isdisjoint(file.parents)
            if not goes_on and file.name.endswith(_PARTIAL):
                yield f"{file} is half a file that nobody writes", None
    for worker in seen.reader.json(seen.teams[0], "/v1/workers")["data"]:
        job = seen.jobs.get(worker["job_id"])
        if worker["state"] == "busy" and (job is None or job.status not in LEASED):
            yield f"{worker['id']} is told to be busy, and no job runs", worker["job_id"]


@promise("leftovers", "settling")
def no_transaction_is_left(seen: Observation) -> Iterator[Broken]:
    """No transaction stands open for longer than a minute, and no lock is held by a connection that does nothing."""
    with seen.installation.connect() as connection:
        for pid, state, application, query, seconds in connection.execute(_OLD).fetchall():
            yield f"backend {pid} ({application}, {state}) is in a transaction for {seconds:.0f} s: {query}", None
        for pid, kind, mode, state in connection.execute(_LOCKS).fetchall():
            yield f"backend {pid}, which is {state}, holds a lock ({kind}, {mode})", None


@promise("leftovers", "settling")
def no_process_is_left(seen: Observation) -> Iterator[Broken]:
    """No process of the run is left but those that should run and what they keep: no runner once no job runs."""
    is_over = all(found.status in ENDED for found in seen.jobs.values())
    processes = dict(_processes(seen.run_id))
    for pid, process in processes.items():
        above = pid
        while above in processes and above not in seen.expected_pids:
            above = processes[above]["ppid"]
        if above not in seen.expected_pids:
            yield f"process {pid} ({' '.join(process['cmdline'] or ())[:200]}) is left, and is nobody's", None
        elif is_over and pid not in seen.expected_pids and process["name"] == _RUNNER:
            yield f"runner {pid} is left, though no job runs", None


def _processes(run_id: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the id of every process that was started with CHAOS_RUN for this run, and what it is; of LC_CHAOS_RUN,
    which a runner is left with, too.
    """
    marks = {f"CHAOS_RUN={run_id}".encode(), f"LC_CHAOS_RUN={run_id}".encode()}
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            if not marks.isdisjoint(environment) and process.status() != psutil.STATUS_ZOMBIE:
                yield process.pid, process.as_dict(["ppid", "name", "cmdline"])
