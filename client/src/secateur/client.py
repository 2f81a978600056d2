"""The client: one method for each thing the server offers."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

from pydantic import BaseModel, JsonValue

from secateur.configuration import resolve
from secateur.downloads import download_files
from secateur.errors import DownloadError
from secateur.events import stream_events
from secateur.transport import SLOW_TIMEOUT, Transport, segment
from secateur.types import (
    ArtifactFile,
    Dataset,
    Event,
    Inspection,
    Job,
    JobStatus,
    Method,
    Model,
    Page,
    Report,
)

PAGE_SIZE: Final = 100

Item = TypeVar("Item", bound=BaseModel)


class Client:
    """A synchronous client, to be used by one thread at a time and closed at the end (or used in a `with`).

    `url` and `api_key` may be left out: see `secateur.configuration`. Every method raises `secateur.errors`.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None) -> None:
        self._transport = Transport(resolve(url, api_key))

    @property
    def url(self) -> str:
        return self._transport.url

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def methods(self) -> list[Method]:
        """Every method, with the JSON schema of its parameters."""
        return list(self._list("methods", Method))

    def models(self) -> Iterator[Model]:
        """The team's registered models, newest first."""
        return self._list("models", Model)

    def add_model(self, name: str, path: str, *, source: str | None = None) -> Model:
        """Register the model folder at `path`, an absolute path on the server. Needs an admin key.

        The same folder under the same name again is the same model; the name of another model is a Conflict.
        """
        body = _given(name=name, path=path, source=source)
        return self._transport.post("models", Model, body=body, idempotency_key=_new_key(), timeout=SLOW_TIMEOUT)

    def datasets(self) -> Iterator[Dataset]:
        """The team's registered texts, newest first."""
        return self._list("datasets", Dataset)

    def add_dataset(
        self,
        name: str,
        path: str,
        *,
        format: Literal["text", "jsonl", "parquet"] | None = None,
        text_field: str | None = None,
        source: str | None = None,
    ) -> Dataset:
        """Register the text file at `path`, an absolute path on the server. Needs an admin key.

        Without `format` the file's suffix decides; `text_field` names the field of JSONL or the column of Parquet.
        """
        body = _given(name=name, path=path, format=format, text_field=text_field, source=source)
        return self._transport.post("datasets", Dataset, body=body, idempotency_key=_new_key(), timeout=SLOW_TIMEOUT)

    def inspect(self, model: str, **body: Any) -> Inspection:
        """What a model is and which methods fit it. With further fields of a job body: a dry run of `submit`."""
        return self._transport.post("models/inspect", Inspection, body={"model": model, **body}, timeout=SLOW_TIMEOUT)

    def submit(self, *, idempotency_key: str | None = None, **body: Any) -> Job:
        """Queue a job: `submit(model="smollm2-135m", method="wanda", sparsity=0.5, calibration={"dataset": …})`.

        The same `idempotency_key` with the same body gives the same job again, never a second one; unset, each call
        has a new key.
        """
        return self._transport.post(
            "jobs", Job, body=body, idempotency_key=idempotency_key or _new_key(), timeout=SLOW_TIMEOUT
        )

    def jobs(
        self,
        *,
        status: JobStatus | None = None,
        method: str | None = None,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Iterator[Job]:
        """The team's jobs that match every filter, newest first. Pages are fetched as the iteration reaches them."""
        filters: dict[str, str] = {
            name: value for name, value in (("status", status), ("method", method), ("model", model)) if value
        }
        if metadata:
            filters |= {f"metadata.{key}": value for key, value in metadata.items()}
        return self._list("jobs", Job, filters)

    def job(self, job_id: str) -> Job:
        return self._transport.get(f"jobs/{segment(job_id)}", Job)

    def cancel(self, job_id: str) -> Job:
        """Ask a job to stop. A running one becomes `cancelling` and, once its worker let go, `cancelled`."""
        return self._transport.post(f"jobs/{segment(job_id)}/cancel", Job)

    def retry(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again; it goes on from the last block it finished."""
        return self._transport.post(f"jobs/{segment(job_id)}/retry", Job)

    def events(self, job_id: str, after: int | None = None) -> Iterator[Event]:
        """What happens to a job, from the beginning or behind event number `after`, live until the job has ended.

        Connections that break are opened again; no event is lost or comes twice.
        """
        return stream_events(self._transport, job_id, after, is_finished=lambda: self.job(job_id).finished)

    def wait(self, job_id: str, on_event: Callable[[Event], None] | None = None) -> Job:
        """Block until the job has ended, handing each event to `on_event`, and return it as it ended."""
        last: int | None = None
        while True:
            for event in self.events(job_id, after=last):
                last = event.sequence
                if on_event is not None:
                    on_event(event)
            job = self.job(job_id)
            if job.finished:  # else somebody retried it between its end and our look
                return job

    def report(self, job_id: str) -> Report:
        """The whole report; NotFound while there is none."""
        return self._transport.get(f"jobs/{segment(job_id)}/report", Report)

    def artifacts(self, job_id: str) -> list[ArtifactFile]:
        """The files of a job's artifact."""
        return list(self._list(f"jobs/{segment(job_id)}/artifacts", ArtifactFile))

    def download(
        self, job_id: str, folder: str | Path, on_progress: Callable[[ArtifactFile, int], None] | None = None
    ) -> list[Path]:
        """Bring the artifact into `folder` (made if missing) and return its files, the manifest last.

        Each file's SHA-256 is verified before it gets its name. What is there already is not fetched again, and a file
        that was cut off is continued. `on_progress(file, bytes_here)` is called as bytes arrive.
        """
        files = self.artifacts(job_id)
        if not files:
            raise DownloadError(f"{job_id} has no artifact: it is {self.job(job_id).status}")
        path = f"jobs/{segment(job_id)}/artifacts"
        return download_files(self._transport, path, files, Path(folder), on_progress or _ignore)

    def _list(self, path: str, item: type[Item], filters: Mapping[str, str] | None = None) -> Iterator[Item]:
        params: dict[str, str | int] = {"limit": PAGE_SIZE, **(filters or {})}
        while True:
            page = self._transport.get(path, Page[item], params=params)  # type: ignore[valid-type]
            yield from page.data
            if not page.has_more or page.next_after is None:
                return
            params["after"] = page.next_after


def _given(**fields: JsonValue) -> dict[str, JsonValue]:
    return {name: value for name, value in fields.items() if value is not None}


def _new_key() -> str:
    return str(uuid.uuid4())


def _ignore(file: ArtifactFile, here: int) -> None:
    pass
