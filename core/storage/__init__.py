"""Stores of finished artifacts and uploads: a folder of this machine, or a bucket of an S3-compatible service.

`open_store` opens the store in the settings; both kinds implement the `Store` protocol. `OwnedStore` wraps a store so
that only the installation that owns it can write to it.
"""

from core.settings import Settings
from core.storage.local import LocalStore
from core.storage.owned import OwnedStore, find_owner, require_owner, take_over
from core.storage.store import (
    HASHED_SUFFIX,
    MANIFEST,
    PACKED_SUFFIX,
    Incoming,
    Store,
    StoredFile,
    Unfinished,
    UploadPart,
    Usage,
    artifact_prefix,
    attachment,
    checked,
    is_disk_full,
    translate_disk_full,
)
from core.storage.stream import open_stored

__all__ = [
    "HASHED_SUFFIX",
    "MANIFEST",
    "PACKED_SUFFIX",
    "Incoming",
    "LocalStore",
    "OwnedStore",
    "Store",
    "StoredFile",
    "Unfinished",
    "UploadPart",
    "Usage",
    "artifact_prefix",
    "attachment",
    "checked",
    "find_owner",
    "is_disk_full",
    "open_store",
    "open_stored",
    "require_owner",
    "take_over",
    "translate_disk_full",
]


def open_store(settings: Settings) -> Store:
    """Return the store in the settings, for reading, without connecting yet.

    Raises ValueError if the URL is not an S3 URL.
    """
    if settings.store_url is None:
        return LocalStore(settings.store_root)
    from core.storage.s3 import S3Store  # slow to load, and many processes do not need it

    return S3Store(settings)
