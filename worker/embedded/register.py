"""Registration of models, texts and images in a home, from the server's own command line."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from core.database import transaction
from core.engine.architectures.architecture import NetworkName
from core.engine.architectures.describe import describe_source
from core.pipeline.messages import Spec
from core.pipeline.stages.sources_spec import ImportGgufSpec, NewNetworkSpec
from core.service.registry.schemas import DatasetBody, ModelBody
from core.service.registry.service import read_dataset, read_model, register_dataset, register_model
from core.service.sources.folders import content_hash, dataset_hash, is_allowed
from core.settings import Settings
from core.validation import invalid_request
from secateur_wire.datasets import Dataset, DatasetFormat
from secateur_wire.errors import Conflict, SecateurError, UnusableDataset, UnusableModel
from secateur_wire.models import Model
from worker.embedded.instance import EmbeddedInstance
from worker.runner.client import run_task
from worker.temporary_folders import temporary_folder

Say = Callable[[str], None]
IMPORT_SECONDS = 600.0
IMPORT_BYTES_PER_SECOND = 1_000_000
"""Slowest import to wait for after `IMPORT_SECONDS`, in bytes per second; one core imports 4,000,000 of the sample."""
Body = TypeVar("Body", ModelBody, DatasetBody)


def add_model(instance: EmbeddedInstance, name: str, path: Path, *, source: str | None = None, say: Say) -> Model:
    """Register a model folder or a GGUF file (converted).

    A folder below an allowed root stays where it is. Another is taken into home: hard-linked where the file system
    allows, otherwise copied. Raises the errors of a folder that cannot be used, and Conflict if the name belongs to
    another model.
    """
    target = instance.settings.models_root / name
    stays = path.is_dir() and is_allowed(instance.settings, path.resolve())
    body = _body(
        ModelBody, name=name, path=str(path.resolve() if stays else target), source=source or f"local:{path.name}"
    )
    if stays:
        return register_folder(instance, body)
    with temporary_folder(target.parent, ".adding-") as temporary:
        incoming = Path(temporary, "model")
        if path.is_dir():
            describe_source(path)
            shutil.copytree(path, incoming, copy_function=_link_or_copy)
        elif path.suffix == ".gguf" and path.is_file():
            say(f"Converting {path.name} to safetensors…")
            import_gguf(instance.settings, path, incoming)
        else:
            raise UnusableModel(f"{path} is neither a model folder nor a .gguf file.", param="path")
        _move_unless_equal(incoming, target, name)
    return register_folder(instance, body)


def new_network(
    instance: EmbeddedInstance,
    name: str,
    network: NetworkName,
    *,
    classes: int,
    channels: int = 1,
    image_size: int = 28,
    hidden_sizes: Sequence[int] = (),
    seed: int = 0,
) -> Model:
    """Create a small classic network with random weights and register it; a `recover` job trains it.

    Raises UnusableModel for impossible sizes, and Conflict if the name belongs to another model.
    """
    target = instance.settings.models_root / name
    body = _body(ModelBody, name=name, path=str(target), source=f"new:{network}")
    with temporary_folder(target.parent, ".adding-") as temporary:
        folder = Path(temporary, "model")
        spec = NewNetworkSpec(
            network=network,
            classes=classes,
            channels=channels,
            image_size=image_size,
            hidden_sizes=list(hidden_sizes),
            seed=seed,
            target=folder,
        )
        _run_in_runner(instance.settings, spec, "new-network.log")
        _move_unless_equal(folder, target, name)
    return register_folder(instance, body)


def register_folder(instance: EmbeddedInstance, body: ModelBody) -> Model:
    read = read_model(body, instance.settings)
    with transaction(instance.sessions) as session:
        return register_model(session, instance.team_id, read)[0]


def add_dataset(
    instance: EmbeddedInstance,
    name: str,
    path: Path,
    *,
    file_format: DatasetFormat | None = None,
    text_field: str = "text",
    image_field: str = "image",
    label_field: str = "label",
    source: str | None = None,
) -> Dataset:
    """Register a text, JSONL or Parquet file, or a folder of images, which stays or is taken in as a model is.

    Raises UnusableDataset, and Conflict if the name belongs to something else.
    """
    if not path.exists():
        raise UnusableDataset(f"{path} is not a file.", param="path")
    stays = is_allowed(instance.settings, path.resolve())
    target = instance.settings.datasets_root / (name if path.is_dir() else f"{name}{path.suffix}")
    target = path.resolve() if stays else target
    body = _body(
        DatasetBody,
        name=name,
        path=str(target),
        format=file_format,
        text_field=text_field,
        image_field=image_field,
        label_field=label_field,
        source=source or f"local:{path.name}",
    )
    is_new = not target.exists()
    if not stays:
        _take_in_dataset(path, target, name)
    try:
        read = read_dataset(body, instance.settings)
        with transaction(instance.sessions) as session:
            return register_dataset(session, instance.team_id, read)[0]
    except SecateurError:
        if is_new:  # a file that is not a dataset must not keep the name
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        raise


def _take_in_dataset(path: Path, target: Path, name: str) -> None:
    with temporary_folder(target.parent, ".adding-") as temporary:
        incoming = Path(temporary, path.name)
        if path.is_dir():
            shutil.copytree(path, incoming, copy_function=_link_or_copy)
        else:
            _link_or_copy(str(path), str(incoming))
        if not target.exists():
            incoming.rename(target)
        elif dataset_hash(incoming) != dataset_hash(target):
            raise Conflict(f"The name {name!r} is taken by another dataset.", param="name")


def import_gguf(settings: Settings, source: Path, target: Path) -> None:
    """Convert a GGUF file in a runner, as this process never loads torch; raises UnusableModel if it takes too long."""
    until = time.monotonic() + IMPORT_SECONDS + source.stat().st_size / IMPORT_BYTES_PER_SECOND

    def wait() -> None:
        if time.monotonic() > until:
            raise UnusableModel(
                f"{source.name} could not be imported within the time allowed for a file of its size", param="path"
            )

    _run_in_runner(settings, ImportGgufSpec(source=source.resolve(), target=target), "import.log", wait)


def _body(kind: type[Body], **fields: str | None) -> Body:
    """Return a request of this home's own command line; raises InvalidRequest with the fault."""
    try:
        return kind(**fields)
    except ValidationError as error:
        raise invalid_request(error) from None


def _run_in_runner(settings: Settings, spec: Spec, log: str, on_wait: Callable[[], None] = lambda: None) -> None:
    run_task(
        spec,
        log=settings.home / "logs" / log,
        on_message=lambda message: None,
        on_wait=on_wait,
        grace_seconds=settings.cancel_grace_seconds,
    )


def _move_unless_equal(incoming: Path, target: Path, name: str) -> None:
    if not target.exists():
        incoming.rename(target)
    elif content_hash(incoming) != content_hash(target):
        raise Conflict(f"The name {name!r} is taken by another model.", param="name")


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
