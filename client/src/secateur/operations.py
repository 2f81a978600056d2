"""Everything the server offers, one method each, written once: `AsyncClient` is this over a transport that awaits, and
`Client` drives the same coroutines to their end in the calling thread.
"""

import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, JsonValue

from secateur.downloads import OnProgress, download_files
from secateur.errors import DownloadError, UploadError
from secateur.events import stream_events
from secateur.team_types import Attempt, AuditEntry, CreatedKey, Key, Queue, Role, Team, Worker
from secateur.transport import Transport, segment
from secateur.types import (
    ArtifactFile,
    Dataset,
    Event,
    Inspection,
    Job,
    JobSort,
    JobStatus,
    Method,
    Model,
    Page,
    Report,
    Upload,
    UploadKind,
    UploadStatus,
)
from secateur.uploads import OnUpload, model_files, send_upload, sendable_name

PAGE_SIZE: Final = 100

DatasetFormat = Literal["text", "jsonl", "parquet", "image_folder", "image_parquet"]
Item = TypeVar("Item", bound=BaseModel)


class Operations:
    """Every method raises `secateur.errors`. Lists are fetched page by page as their iteration reaches them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @property
    def url(self) -> str:
        return self._transport.url

    async def methods(self) -> list[Method]:
        """Every method, with the JSON schema of its parameters."""
        return [method async for method in self._list("methods", Method)]

    def models(self) -> AsyncIterator[Model]:
        """The team's models, newest first."""
        return self._list("models", Model)

    async def model(self, name: str) -> Model:
        """A model by name or id."""
        return await self._transport.call("GET", f"models/{segment(name)}", Model)

    async def add_model(self, name: str, path: str, *, source: str | None = None) -> Model:
        """Register the model folder at `path`, an absolute path on the server. Needs an admin key.

        The same folder under the same name again is the same model; the name of another model is a Conflict.
        """
        return await self._create("models", Model, _given(name=name, path=path, source=source), slow=True)

    async def upload_model(
        self, name: str, folder: str | Path, *, source: str | None = None, on_progress: OnUpload | None = None
    ) -> Model:
        """Upload a model folder of this machine: config, tokenizer and safetensors files; the rest stays here.

        The same call again goes on where one that was cut off stopped. `on_progress` is told of bytes hashed and sent.
        """
        files, _ = model_files(Path(folder))
        announced = _given(kind="model", name=name, source=source)
        upload = await send_upload(self._transport, announced, files, _new_key(), on_progress or _ignore)
        return await self._complete(upload, Model)

    async def delete_model(self, name: str) -> None:
        """Delete a model; a Conflict while a job that waits or runs needs it."""
        await self._transport.delete(f"models/{segment(name)}")

    async def inspect(self, /, model: str, **body: Any) -> Inspection:
        """What a model is and which methods fit it. With further fields of a job body: a dry run of `submit`."""
        body = {"model": model, **body}
        return await self._transport.call("POST", "models/inspect", Inspection, body=body, slow=True)

    def datasets(self) -> AsyncIterator[Dataset]:
        """The team's texts and image sets, newest first."""
        return self._list("datasets", Dataset)

    async def dataset(self, name: str) -> Dataset:
        """A text or image set by name or id."""
        return await self._transport.call("GET", f"datasets/{segment(name)}", Dataset)

    async def add_dataset(
        self,
        name: str,
        path: str,
        *,
        format: DatasetFormat | None = None,
        text_field: str | None = None,
        image_field: str | None = None,
        label_field: str | None = None,
        source: str | None = None,
    ) -> Dataset:
        """Register the text file, or the folder or Parquet file of images, at `path`, an absolute path on the server.
        Needs an admin key.

        Without `format` the suffix decides, and a folder holds images; `text_field` names the field of JSONL or the
        column of Parquet, `image_field` and `label_field` the columns of image_parquet.
        """
        fields = _given(text_field=text_field, image_field=image_field, label_field=label_field)
        body = _given(name=name, path=path, format=format, source=source) | fields
        return await self._create("datasets", Dataset, body, slow=True)

    async def upload_dataset(
        self,
        name: str,
        file: str | Path,
        *,
        format: DatasetFormat | None = None,
        text_field: str | None = None,
        image_field: str | None = None,
        label_field: str | None = None,
        source: str | None = None,
        on_progress: OnUpload | None = None,
    ) -> Dataset:
        """Upload a text, JSONL or Parquet file of this machine; see `upload_model` and `add_dataset`."""
        path = Path(file)
        if path.is_dir():
            raise UploadError(f"{path} is a folder: upload images as one Parquet file, with format image_parquet")
        if not path.is_file():
            raise UploadError(f"{path} is not a file")
        fields = _given(text_field=text_field, image_field=image_field, label_field=label_field)
        announced = _given(kind="dataset", name=name, format=format, source=source) | fields
        files = {sendable_name(path.name): path}
        upload = await send_upload(self._transport, announced, files, _new_key(), on_progress or _ignore)
        return await self._complete(upload, Dataset)

    async def delete_dataset(self, name: str) -> None:
        """Delete a dataset; a Conflict while a job that waits or runs needs it."""
        await self._transport.delete(f"datasets/{segment(name)}")

    def uploads(self, *, kind: UploadKind | None = None, status: UploadStatus | None = None) -> AsyncIterator[Upload]:
        """The team's uploads of this kind and status, newest first."""
        filters: dict[str, str] = {name: value for name, value in (("kind", kind), ("status", status)) if value}
        return self._list("uploads", Upload, filters)

    async def upload(self, upload_id: str) -> Upload:
        """One upload and how far it came."""
        return await self._transport.call("GET", f"uploads/{segment(upload_id)}", Upload)

    async def abandon_upload(self, upload_id: str) -> None:
        """Give up an upload and free what it stored."""
        await self._transport.delete(f"uploads/{segment(upload_id)}")

    async def submit(self, /, *, idempotency_key: str | None = None, **body: Any) -> Job:
        """Queue a job: `submit(model="smollm2-135m", method="wanda", sparsity=0.5, calibration={"dataset": …})`; in
        place of the sparsity `target={"parameters": 1e8}`, or `bytes` or `latency_ratio`.

        The same `idempotency_key` with the same body gives the same job again, never a second one; unset, each call
        has a new key, which the repetitions of the call share.
        """
        return await self._create("jobs", Job, body, idempotency_key=idempotency_key, slow=True)

    def jobs(
        self,
        *,
        status: JobStatus | None = None,
        method: str | None = None,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
        search: str | None = None,
        sort: JobSort | None = None,
    ) -> AsyncIterator[Job]:
        """The team's jobs that match every filter, newest first or in the order of `sort`.

        `search` is words, each of which stands in the job's id, model, method or a value of its metadata.
        """
        given = {"status": status, "method": method, "model": model, "search": search, "sort": sort}
        filters: dict[str, str] = {name: value for name, value in given.items() if value}
        if metadata:
            filters |= {f"metadata.{key}": value for key, value in metadata.items()}
        return self._list("jobs", Job, filters)

    async def job(self, job_id: str) -> Job:
        """One job."""
        return await self._transport.call("GET", f"jobs/{segment(job_id)}", Job)

    async def cancel(self, job_id: str) -> Job:
        """Ask a job to stop. A running one becomes `cancelling` and, once its worker let go, `cancelled`."""
        return await self._transport.call("POST", f"jobs/{segment(job_id)}/cancel", Job)

    async def retry(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again; it goes on from the last block it finished."""
        return await self._transport.call("POST", f"jobs/{segment(job_id)}/retry", Job)

    def attempts(self, job_id: str) -> AsyncIterator[Attempt]:
        """Who tried a job when, and how each attempt ended."""
        return self._list(f"jobs/{segment(job_id)}/attempts", Attempt)

    def events(self, job_id: str, after: int | None = None) -> AsyncIterator[Event]:
        """What happens to a job, from the beginning or behind event number `after`, live until the job has ended.

        Connections that break are opened again; no event is lost or comes twice.
        """

        async def is_finished() -> bool:
            return (await self.job(job_id)).finished

        return stream_events(self._transport, job_id, after, is_finished)

    async def wait(self, job_id: str, on_event: Callable[[Event], None] | None = None) -> Job:
        """Wait until the job has ended, handing each event to `on_event`, and return it as it ended."""
        last: int | None = None
        while True:
            async for event in self.events(job_id, after=last):
                last = event.sequence
                if on_event is not None:
                    on_event(event)
            job = await self.job(job_id)
            if job.finished:  # else somebody retried it between its end and our look
                return job

    async def report(self, job_id: str) -> Report:
        """The whole report; NotFound while there is none."""
        return await self._transport.call("GET", f"jobs/{segment(job_id)}/report", Report)

    async def artifacts(self, job_id: str) -> list[ArtifactFile]:
        """The files of a job's artifact."""
        return [file async for file in self._list(f"jobs/{segment(job_id)}/artifacts", ArtifactFile)]

    async def download(self, job_id: str, folder: str | Path, on_progress: OnProgress | None = None) -> list[Path]:
        """Bring the artifact into `folder` (made if missing) and return its files, the manifest last.

        Each file's SHA-256 is verified before it gets its name. What is there already is not fetched again, and a file
        that was cut off is continued. `on_progress(file, bytes_here)` is called as bytes arrive.
        """
        files = await self.artifacts(job_id)
        if not files:
            raise DownloadError(f"{job_id} has no artifact: it is {(await self.job(job_id)).status}")
        path = f"jobs/{segment(job_id)}/artifacts"
        return await download_files(self._transport, path, files, Path(folder), on_progress or _ignore)

    async def delete_artifacts(self, job_id: str) -> None:
        """Delete a job's artifact, freeing what it stores; a Conflict while another job needs it."""
        await self._transport.delete(f"jobs/{segment(job_id)}/artifacts")

    def keys(self) -> AsyncIterator[Key]:
        """The team's API keys, newest first. Needs an admin key, as all calls on keys do."""
        return self._list("keys", Key)

    async def create_key(self, name: str, *, role: Role = "member", expires_at: datetime | None = None) -> CreatedKey:
        """A new API key; the answer is the only place that ever shows it."""
        body = _given(name=name, role=role, expires_at=expires_at.isoformat() if expires_at else None)
        return await self._create("keys", CreatedKey, body)

    async def rotate_key(self, key_id: str, *, grace_seconds: float | None = None) -> CreatedKey:
        """A successor with the same name and role; the old key stays good for `grace_seconds`."""
        return await self._create(f"keys/{segment(key_id)}/rotate", CreatedKey, _given(grace_seconds=grace_seconds))

    async def revoke_key(self, key_id: str) -> Key:
        """Revoke a key for good."""
        return await self._transport.call("DELETE", f"keys/{segment(key_id)}", Key)

    async def team(self) -> Team:
        """The team of this key: its quotas and what it uses of them."""
        return await self._transport.call("GET", "team", Team)

    def audit(self, *, action: str | None = None, object_id: str | None = None) -> AsyncIterator[AuditEntry]:
        """Every change somebody made, newest first, of one kind or to one thing. Needs an admin key."""
        filters = {name: value for name, value in (("action", action), ("object_id", object_id)) if value}
        return self._list("audit", AuditEntry, filters)

    def workers(self) -> AsyncIterator[Worker]:
        """The workers that gave a sign of life lately."""
        return self._list("workers", Worker)

    def queues(self) -> AsyncIterator[Queue]:
        """What waits and runs in every queue."""
        return self._list("queues", Queue)

    async def _create(
        self,
        path: str,
        answer: type[Item],
        body: Mapping[str, JsonValue],
        *,
        idempotency_key: str | None = None,
        slow: bool = False,
    ) -> Item:
        key = idempotency_key or _new_key()
        return await self._transport.call("POST", path, answer, body=body, idempotency_key=key, slow=slow)

    async def _complete(self, upload: Upload, answer: type[Item]) -> Item:
        return await self._transport.call("POST", f"uploads/{segment(upload.id)}/complete", answer, slow=True)

    async def _list(self, path: str, item: type[Item], filters: Mapping[str, str] | None = None) -> AsyncIterator[Item]:
        params: dict[str, str | int] = {"limit": PAGE_SIZE, **(filters or {})}
        while True:
            page = await self._transport.call("GET", path, Page[item], params=params)  # type: ignore[valid-type]
            for each in page.data:
                yield each
            if not page.has_more or page.next_after is None:
                return
            params["after"] = page.next_after


def _given(**fields: JsonValue) -> dict[str, JsonValue]:
    return {name: value for name, value in fields.items() if value is not None}


def _new_key() -> str:
    return str(uuid.uuid4())


def _ignore(*_: object) -> None:
    pass
