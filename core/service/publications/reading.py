"""Reading of the store's files while they are sent: never whole in memory, with a check at every read."""

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from core.service.publications.queue import PublishedFile
from core.storage import Store, artifact_prefix
from core.storage.stream import StoredStream
from secateur_wire.errors import StoreUnavailable

_BUFFER_BYTES = 4 * 2**20

Watch = Callable[[int], None]
"""Function called with an offset of the file before each further read; its errors end the reading."""


@dataclass(frozen=True)
class StoredArtifact:
    """Artifact of a job's attempt in the store."""

    store: Store
    job_id: str
    attempt: int
    files: tuple[PublishedFile, ...]

    @property
    def prefix(self) -> str:
        return artifact_prefix(self.job_id, self.attempt)


class _Watched(StoredStream):
    def __init__(self, artifact: StoredArtifact, file: PublishedFile, watch: Watch) -> None:
        super().__init__(artifact.store, artifact.prefix, file.path, file.bytes)
        self._watch = watch

    def readinto(self, buffer: "memoryview[int]") -> int:  # type: ignore[override]
        self._watch(self.tell())
        return super().readinto(buffer)


@contextmanager
def watched(artifact: StoredArtifact, file: PublishedFile, watch: Watch) -> Iterator[BinaryIO]:
    """Open a file of the store as a seekable stream; reading raises the errors of `Store.open_range` and `watch`."""
    with io.BufferedReader(_Watched(artifact, file, watch), _BUFFER_BYTES) as stream:
        yield stream


def chunks(stream: BinaryIO, file: PublishedFile) -> Iterator[bytes]:
    """Yield the content in pieces; the last piece only if the whole content matches the manifest.

    Raises StoreUnavailable.
    """
    digest = hashlib.sha256()
    remaining = file.bytes
    while remaining > 0 and (chunk := stream.read(min(remaining, _BUFFER_BYTES))):
        digest.update(chunk)
        remaining -= len(chunk)
        if remaining == 0:
            require_intact(file, digest.hexdigest())
        yield chunk
    if remaining > 0:
        require_intact(file, digest.hexdigest())


def require_intact(file: PublishedFile, sha256: str) -> None:
    """Require that the content that was read is the file's; raises StoreUnavailable."""
    if sha256 != file.sha256:
        raise StoreUnavailable(f"{file.path} in the store is not what the job left there")
