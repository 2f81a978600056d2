"""Stores of finished artifacts and uploads: a folder of this machine, or a bucket of an S3-compatible service.

`open_store` opens the one the settings name; both implement the `Store` protocol. `OwnedStore` is either as one
installation uses it, which alone may write to it.
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
    """Return the store the settings name, to read from, without connecting yet.

    Raises ValueError where the URL is not S3's.
    """
    if settings.store_url is None:
        return LocalStore(settings.store_root)
    from core.storage.s3 import S3Store  # the library is slow to load, and many processes need none

    return S3Store(settings)
