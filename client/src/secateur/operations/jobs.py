"""Operations on jobs: submit, follow, download."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Unpack, cast

from pydantic import JsonValue

from secateur.downloads import OnProgress, added_files, download_files
from secateur.errors import DownloadError
from secateur.events import stream_events
from secateur.jobs import Job
from secateur.operations.calls import Calls, ignore
from secateur.transport import segment
from secateur_wire.job_body import JobFields
from secateur_wire.jobs import ArtifactFile, JobAttempt, JobEvent, JobSort, WayToRun
from secateur_wire.reports import Report
from secateur_wire.states import JobStatus


class JobOperations(Calls):
    """Operations on jobs."""

    def submit(self, /, *, idempotency_key: str | None = None, **body: Unpack[JobFields]) -> Job:
        """Queue a job: `submit(model="smollm2-135m", method="wanda", sparsity=0.5, calibration={"dataset": …})`.

        Instead of the sparsity, a target may be given: `target={"parameters": 1e8}`, `bytes`, `latency_ratio`,
        `decode_ratio` or `memory_bytes`.

        The same `idempotency_key` with the same body returns the same job again, and never creates a second one.
        Without it, each call has a new key, which its retries share.
        """
        fields = cast(Mapping[str, JsonValue], body)
        return self._create("jobs", Job, fields, idempotency_key=idempotency_key, slow=True)

    def jobs(
        self,
        *,
        status: JobStatus | None = None,
        method: str | None = None,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
        search: str | None = None,
        sort: JobSort | None = None,
    ) -> Iterator[Job]:
        """Iterate over the team's jobs that match every filter, newest first or in the order of `sort`.

        `search` is a list of words. Each must be the beginning of a word in the job's id, model, method or metadata
        values.
        """
        given = {"status": status, "method": method, "model": model, "search": search, "sort": sort}
        filters: dict[str, str] = {name: value for name, value in given.items() if value}
        if metadata:
            filters |= {f"metadata.{key}": value for key, value in metadata.items()}
        return self._list("jobs", Job, filters)

    def job(self, job_id: str) -> Job:
        """Return one job."""
        return self._transport.call("GET", f"jobs/{segment(job_id)}", Job)

    def cancel(self, job_id: str) -> Job:
        """Ask a job to stop. A running one becomes `cancelling`, and `cancelled` once its worker has released it."""
        return self._transport.call("POST", f"jobs/{segment(job_id)}/cancel", Job)

    def retry(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again; it continues after its last complete block."""
        return self._transport.call("POST", f"jobs/{segment(job_id)}/retry", Job)

    def attempts(self, job_id: str) -> Iterator[JobAttempt]:
        """Iterate over the attempts at a job: the worker, the time and the outcome of each."""
        return self._list(f"jobs/{segment(job_id)}/attempts", JobAttempt)

    def events(self, job_id: str, after: int | None = None) -> Iterator[JobEvent]:
        """Iterate over a job's events, from the first or after event number `after`, live until the job has ended.

        Interrupted connections are opened again; no event is lost or repeated.
        """

        def is_finished() -> bool:
            return self.job(job_id).finished

        return stream_events(self._transport, job_id, after, is_finished)

    def wait(self, job_id: str, on_event: Callable[[JobEvent], None] | None = None) -> Job:
        """Wait until the job has ended, and return it, whether or not it succeeded; `on_event` gets each event.

        `.raise_for_status()` of the returned job raises if it did not succeed.
        """
        last: int | None = None
        while True:
            for event in self.events(job_id, after=last):
                last = event.sequence
                if on_event is not None:
                    on_event(event)
            job = self.job(job_id)
            if job.finished:  # Otherwise somebody retried it between its end and this request.
                return job

    def report(self, job_id: str) -> Report:
        """Return the whole report. Raises NotFound while there is no report."""
        return self._transport.call("GET", f"jobs/{segment(job_id)}/report", Report)

    def artifacts(
        self, job_id: str, *, format: str | None = None, types: Sequence[str] | None = None
    ) -> list[ArtifactFile]:
        """Return the files of a job's artifact; with `format`, such as gguf, only the added files of that form.

        `types` are the wanted types of the form; None: all of them. Raises DownloadError that lists the existing files
        where one is missing.
        """
        files = list(self._list(f"jobs/{segment(job_id)}/artifacts", ArtifactFile))
        if format is None or not files:
            return files
        metrics = self.job(job_id).metrics
        wanted = added_files([] if metrics is None else metrics.exports, format, types)
        return [file for file in files if file.path in wanted]

    def download(
        self,
        job_id: str,
        folder: str | Path,
        on_progress: OnProgress | None = None,
        *,
        format: str | None = None,
        types: Sequence[str] | None = None,
    ) -> list[Path]:
        """Download the artifact into `folder` (created if missing) and return its files, the manifest last.

        With `format`, only the added files of that form, of those `types`: see `artifacts`.

        Each file's SHA-256 is verified before the file gets its name. Existing files are not fetched again, and partial
        files are continued. `on_progress(file, bytes_here)` is called as bytes arrive.
        """
        files = self.artifacts(job_id, format=format, types=types)
        if not files:
            raise DownloadError(f"{job_id} has no artifact: it is {self.job(job_id).status}")
        path = f"jobs/{segment(job_id)}/artifacts"
        return download_files(self._transport, path, files, Path(folder), on_progress or ignore)

    def ways_to_run(self, job_id: str, folder: str | Path) -> list[WayToRun]:
        """Return commands that run a job's artifact from `folder`, one for each supported runtime."""
        path, params = f"jobs/{segment(job_id)}/ways-to-run", {"folder": str(folder)}
        return list(self._list(path, WayToRun, params))

    def delete_artifacts(self, job_id: str) -> None:
        """Delete a job's artifact and free its space; raises Conflict while another job needs it."""
        self._transport.delete(f"jobs/{segment(job_id)}/artifacts")
