"""Where finished artifacts and uploads are kept: a folder of this machine, or a bucket of an S3-compatible service.

`open_store` opens the one the settings name; both do what the `Store` protocol says.
"""

from core.artifacts.store.local import LocalStore
from core.artifacts.store.protocol import (
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
from core.artifacts.store.reading import open_stored
from core.settings import Settings

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
    """The store the settings name; no connection is made yet. Raises ValueError where the store's URL is not S3's."""
    if settings.store_url is None:
        return LocalStore(settings.store_root)
    from core.artifacts.store.s3 import S3Store  # the library is slow to load, and many processes need none

    return S3Store(settings)
