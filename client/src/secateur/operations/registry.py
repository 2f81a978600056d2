"""Operations on methods, models, datasets and uploads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, RootModel

from secateur.errors import UploadError
from secateur.operations.calls import Item, given, ignore, new_key
from secateur.operations.planning import OnWait, PlanningOperations
from secateur.transport import segment
from secateur.uploads import OnUpload, model_files, send_upload, sendable_name
from secateur_wire.datasets import Dataset, DatasetFormat
from secateur_wire.discoveries import Discovery
from secateur_wire.jobs import Inspection
from secateur_wire.methods import Method
from secateur_wire.models import Model
from secateur_wire.uploads import Upload, UploadKind, UploadStatus


class _Inspected(RootModel[Inspection | Discovery]):
    """Answer of an inspection: the model, or the discovery to wait for."""

    root: Inspection | Discovery = Field(union_mode="left_to_right")


class RegistryOperations(PlanningOperations):
    """Operations on methods, models, datasets and uploads."""

    def methods(self) -> list[Method]:
        """Return every method, with the JSON schema of its parameters."""
        return list(self._list("methods", Method))

    def models(self) -> Iterator[Model]:
        """Iterate over the team's models, newest first."""
        return self._list("models", Model)

    def model(self, name: str) -> Model:
        """Return a model by name or id."""
        return self._transport.call("GET", f"models/{segment(name)}", Model)

    def add_model(self, name: str, path: str, *, source: str | None = None) -> Model:
        """Register the model folder at `path`, an absolute path on the server. Needs an admin key.

        The same folder under the same name returns the same model; a name of another model raises Conflict.
        """
        return self._create("models", Model, given(name=name, path=path, source=source), slow=True)

    def upload_model(
        self, name: str, folder: str | Path, *, source: str | None = None, on_progress: OnUpload | None = None
    ) -> Model:
        """Upload a model folder of this machine: config, tokenizer, safetensors files, and an artifact's statement.

        Other files are not sent.
        The same call continues an interrupted upload. `on_progress` gets the hashed and the sent bytes.
        """
        files, _ = model_files(Path(folder))
        announced = given(kind="model", name=name, source=source)
        upload = send_upload(self._transport, announced, files, new_key(), on_progress or ignore)
        return self._complete(upload, Model)

    def delete_model(self, name: str) -> None:
        """Delete a model; raises Conflict while a waiting or running job needs it."""
        self._transport.delete(f"models/{segment(name)}")

    def inspect(self, /, model: str, *, on_wait: OnWait | None = None, **body: Any) -> Inspection:
        """Describe a model and the methods that fit it. With further fields of a job body: a dry run of `submit`.

        If the server has to discover the model, this waits until a worker has, and `on_wait` gets each state of the
        discovery.
        """
        return self._once_discovered("models/inspect", _Inspected, {"model": model, **body}, on_wait)

    def datasets(self) -> Iterator[Dataset]:
        """Iterate over the team's texts and image sets, newest first."""
        return self._list("datasets", Dataset)

    def dataset(self, name: str) -> Dataset:
        """Return a text or image set by name or id."""
        return self._transport.call("GET", f"datasets/{segment(name)}", Dataset)

    def add_dataset(
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
        """Register a text, conversations, or a folder or Parquet file of images, on the server. Needs an admin key.

        `path` is an absolute path on the server. Without `format` the suffix decides, and a folder is a set of images.
        `text_field` is the field of JSONL or the column of Parquet; `image_field` and `label_field` are the columns of
        image_parquet. Conversations have the format chat_jsonl or chat_parquet.
        """
        fields = given(text_field=text_field, image_field=image_field, label_field=label_field)
        body = given(name=name, path=path, format=format, source=source) | fields
        return self._create("datasets", Dataset, body, slow=True)

    def upload_dataset(
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
        fields = given(text_field=text_field, image_field=image_field, label_field=label_field)
        announced = given(kind="dataset", name=name, format=format, source=source) | fields
        files = {sendable_name(path.name): path}
        upload = send_upload(self._transport, announced, files, new_key(), on_progress or ignore)
        return self._complete(upload, Dataset)

    def delete_dataset(self, name: str) -> None:
        """Delete a dataset; raises Conflict while a waiting or running job needs it."""
        self._transport.delete(f"datasets/{segment(name)}")

    def uploads(self, *, kind: UploadKind | None = None, status: UploadStatus | None = None) -> Iterator[Upload]:
        """Iterate over the team's uploads of this kind and status, newest first."""
        filters: dict[str, str] = {name: value for name, value in (("kind", kind), ("status", status)) if value}
        return self._list("uploads", Upload, filters)

    def upload(self, upload_id: str) -> Upload:
        """Return one upload with its received bytes."""
        return self._transport.call("GET", f"uploads/{segment(upload_id)}", Upload)

    def abandon_upload(self, upload_id: str) -> None:
        """Abort an upload and free its space."""
        self._transport.delete(f"uploads/{segment(upload_id)}")

    def _complete(self, upload: Upload, answer: type[Item]) -> Item:
        return self._transport.call("POST", f"uploads/{segment(upload.id)}/complete", answer, slow=True)
