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
    Store,
    StoredFile,
    Unfinished,
    UploadPart,
    artifact_prefix,
    attachment,
    checked,
    translate_disk_full,
)
from core.storage.stream import open_stored

__all__ = [
    "HASHED_SUFFIX",
    "MANIFEST",
    "PACKED_SUFFIX",
    "Incoming",
    "LocalStore",
    "Store",
    "StoredFile",
    "Unfinished",
    "UploadPart",
    "artifact_prefix",
    "attachment",
    "checked",
    "open_store",
    "open_stored",
    "translate_disk_full",
]


def open_store(settings: Settings) -> Store:
    """Return the store the settings name, without connecting yet; raises ValueError where the URL is not S3's."""
    if settings.store_url is None:
        return LocalStore(settings.store_root)
    from core.storage.s3 import S3Store  # the library is slow to load, and many processes need none

    return S3Store(settings)
