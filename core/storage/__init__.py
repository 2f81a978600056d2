"""Stores of finished artifacts and uploads: a folder of this machine, or a bucket of an S3-compatible service.

`open_store` opens the one the settings name; both implement the `Store` protocol.
"""

from core.settings import Settings
from core.storage.local import LocalStore
from core.storage.store import (
    HASHED_SUFFIX,
    MANIFEST,
    PACKED_SUFFIX,
    Incoming,
    Part,
    Store,
    StoredFile,
    Unfinished,
    artifact_prefix,
    attachment,
    checked,
    full_disk_told,
)
from core.storage.stream import open_stored

__all__ = [
    "HASHED_SUFFIX",
    "MANIFEST",
    "PACKED_SUFFIX",
    "Incoming",
    "LocalStore",
    "Part",
    "Store",
    "StoredFile",
    "Unfinished",
    "artifact_prefix",
    "attachment",
    "checked",
    "full_disk_told",
    "open_store",
    "open_stored",
]


def open_store(settings: Settings) -> Store:
    """Return the store the settings name, without connecting yet; raises ValueError where the URL is not S3's."""
    if settings.store_url is None:
        return LocalStore(settings.store_root)
    from core.storage.s3 import S3Store  # the library is slow to load, and many processes need none

    return S3Store(settings)
