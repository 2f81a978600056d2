"""Import of models and texts from a worker's disk: into the store, and into the registry."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from core.database import new_id, transaction
from core.engine.architectures.describe import describe_source
from core.engine.architectures.description import UndiscoveredModel, stored_description
from core.engine.datasets.formats import detect_format
from core.engine.datasets.text_files import describe
from core.service.discoveries.requests import ask_if_possible
from core.service.registry.service import add_dataset, add_model, dataset_answer, model_answer
from core.service.registry.uploads import object_prefix
from core.service.sources.folders import content_hash_of
from core.service.teams.principal import Actor, team_of
from core.service.teams.quotas import release_stored, reserve_stored
from core.settings import Settings
from core.storage import Store
from core.storage.removal import remove_prefixes
from secateur_wire.datasets import Dataset
from secateur_wire.errors import Conflict
from secateur_wire.models import Model

_CHUNK_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Importer:
    """Importer of models and texts from a worker's disk into the store, registered for an actor's team."""

    sessions: sessionmaker[Session]
    store: Store
    actor: Actor
    settings: Settings

    def model(self, name: str, folder: Path, source: str) -> Model:
        """Store a model folder and register it.

        Raises UnusableModel kinds, Conflict where the name is taken, and QuotaExceeded.
        """
        description = describe_source(folder)
        object_id = new_id("model")
        files = {each.relative_to(folder).as_posix(): each for each in sorted(folder.rglob("*")) if each.is_file()}
        with self._stored(object_prefix("model", object_id), files) as (stored, session):
            digests = {each["path"]: each["sha256"] for each in stored["files"]}
            facts = {"revision": content_hash_of(digests), "description": stored_description(description)}
            values = {"id": object_id, "name": name, "source": source, **stored, **facts}
            row, is_new = add_model(session, self.actor, values)
            _require_new(is_new, name)
            if isinstance(description, UndiscoveredModel):
                ask_if_possible(session, self.actor, description, self.settings)
            return model_answer(session, row)

    def text(self, name: str, file: Path, source: str) -> Dataset:
        """Store a text and register it; raises UnusableDataset, Conflict and QuotaExceeded."""
        format_name = detect_format(file)
        facts = {"format": format_name, "text_field": "text", **describe(file, format_name).model_dump()}
        object_id = new_id("dataset")
        with self._stored(object_prefix("dataset", object_id), {file.name: file}) as (stored, session):
            values = {"id": object_id, "name": name, "source": source, **stored, **facts}
            row, is_new = add_dataset(session, self.actor, values)
            _require_new(is_new, name)
            return dataset_answer(row)

    @contextmanager
    def _stored(self, prefix: str, files: Mapping[str, Path]) -> Iterator[tuple[dict[str, Any], Session]]:
        """Store files, and yield the columns that name them with the transaction that registers them.

        After an error the files are removed.
        """
        with transaction(self.sessions) as session:
            reserve_stored(session, team_of(self.actor), sum(file.stat().st_size for file in files.values()))
        try:
            stored = [self._store_file(prefix, path, file) for path, file in files.items()]
            with transaction(self.sessions) as session:
                yield {"prefix": prefix, "files": stored}, session
        except BaseException:
            with transaction(self.sessions) as session:
                release_stored(session, team_of(self.actor), sum(file.stat().st_size for file in files.values()))
            remove_prefixes(self.store, [prefix])
            raise

    def _store_file(self, prefix: str, path: str, file: Path) -> dict[str, Any]:
        incoming, digest = self.store.incoming(prefix, path), hashlib.sha256()
        try:
            with file.open("rb") as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    incoming.write(chunk)
            incoming.finish()
        finally:
            incoming.discard()
        return {"path": path, "bytes": file.stat().st_size, "sha256": digest.hexdigest()}


def _require_new(is_new: bool, name: str) -> None:
    """Require that nobody has registered the same content meanwhile, so that no stored copy is left over.

    Raises Conflict.
    """
    if not is_new:
        raise Conflict(f"{name!r} was registered by somebody else in the meantime", param="name")
